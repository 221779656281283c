"""What training costs beyond the networks: a step of the loop against a bare forward and backward.

The bare step runs the same networks on one batch that is already there, with neither data,
optimiser, averages nor checks. Both take turns on an otherwise idle machine; medians of all steps.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import options, required, save, table
from cycleisp.training.loop import Progress, train
from cycleisp.training.recipe import STAGES
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import resolve_settings
from cycleisp.training.stage import Stage

MEASURED = {
    "rgb2raw": "small",
    "raw2rgb": "small",
    "joint": "small",
    "raw-denoiser": "edge",
    "srgb-denoiser": "small",
}
MOST = 1.1
"""Times the bare step that a step of the loop may take."""

STEPS, TURNS, WARM_UP = 30, 3, 5


def loop_times(stage: Stage, settings: RunSettings) -> list[float]:
    """Seconds of each step of the loop, data and all, after some to warm up."""
    moments: list[float] = []

    def report(progress: Progress) -> None:
        if progress.step < settings.steps:
            moments.append(time.perf_counter())

    train(stage, settings, resume=False, report=report)
    return list(np.diff(moments)[WARM_UP:])


def bare_times(stage: Stage, settings: RunSettings) -> list[float]:
    """Seconds of forward and backward on one batch, after some to warm up."""
    samples = [
        stage.draw(np.random.default_rng([settings.seed, 0, index]))
        for index in range(settings.batch)
    ]
    batch = {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
        for name in samples[0]
    }
    seconds = []
    for _ in range(STEPS):
        stage.zero_grad(set_to_none=True)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            loss = stage(batch)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def draw_seconds(stage: Stage, settings: RunSettings) -> float:
    """Seconds that one process needs to make a batch."""
    start = time.perf_counter()
    for step in range(5):
        for index in range(settings.batch):
            stage.draw(np.random.default_rng([settings.seed, step, index]))
    return (time.perf_counter() - start) / 5


def main() -> None:
    """Print the table; exit 1 where a step takes more than it may."""
    parser = options(__doc__)
    arguments = parser.parse_args()
    photographs = required(arguments.data / "photos_train")
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        networks: dict[str, str] = {}
        for name, size in MEASURED.items():
            kind = STAGES[name]
            values = {
                "photographs": str(photographs),
                "size": size,
                "steps": STEPS,
                "device": "cpu",
            }
            values |= {use: networks[use] for use in kind.uses}
            loop, bare = [], []
            for turn in range(TURNS):
                output = Path(scratch) / f"{name}-{turn}"
                settings = resolve_settings(
                    kind.settings, {**values, "output": str(output), "validation_steps": STEPS}, []
                )
                stage = kind.build(settings)
                loop += loop_times(stage, settings)
                bare += bare_times(stage, settings)
            networks |= {file.stem: str(file) for file in output.glob("*.safetensors")}
            results[name] = {
                "loop_ms": 1e3 * statistics.median(loop),
                "bare_ms": 1e3 * statistics.median(bare),
                "batch_ms": 1e3 * draw_seconds(stage, settings),
            }
    rows = [
        [
            name,
            MEASURED[name],
            f"{1e3 * settings.batch / each['bare_ms']:.0f}",
            f"{1e3 * settings.batch / each['batch_ms']:.0f}",
            f"{each['loop_ms']:.1f}",
            f"{each['bare_ms']:.1f}",
            f"{each['loop_ms'] / each['bare_ms']:.3f}",
        ]
        for name, each in results.items()
    ]
    header = ["stage", "size", "samples/s needed", "samples/s of a worker", "step ms", "bare ms"]
    print(table([*header, "step / bare"], rows))
    save(arguments.json, results)
    slow = [name for name, each in results.items() if each["loop_ms"] > MOST * each["bare_ms"]]
    if slow:
        sys.exit(f"more than {MOST} times the bare step: {', '.join(slow)}")


if __name__ == "__main__":
    main()
