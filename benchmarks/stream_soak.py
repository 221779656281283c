"""Whether a stream may run for days: memory and latency over many small frames.

Frames of noise go through the queue, the denoiser and its statistics. They are large enough for the
network to take longer than a hiccup of the machine, which else is all that a p99 tells;
``--backend identity`` leaves the network away. Memory is the process's resident set, its slope a
least-squares line through samples behind the warm-up. p99 is that of the time to the next result,
in blocks of frames; its drift compares the median over the blocks of the second half with that of
the first, which keeps a busy machine's hiccups out.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.report import options, save, table
from cycleisp_runtime import Area, Denoiser, NoiseModel, Phase, RawFrame

MOST_SLOPE_MB = 1.0
"""Per 1,000 frames."""

MOST_DRIFT = 0.05
BLOCK = 500
"""Frames whose p99 is one sample, and after which memory is read."""

WARM_UP = 1000
NOISE = NoiseModel.uniform(1e-3, 1e-5)


def resident_mb() -> float:
    """Resident memory of this process, in MB of 1e6 bytes (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def frames(count: int, side: int) -> Iterator[RawFrame]:
    """Fresh frames of noise, as a camera would give them."""
    random = np.random.default_rng(0)
    scene = random.normal(400, 20, (2 * side, side)).clip(0, 1023).astype(np.uint16)
    for number in range(count):
        samples = scene[number % side :][:side].copy()
        yield RawFrame(samples, Phase.RGGB, (64,) * 4, 1023, Area(0, 0, side, side))


def main() -> int:
    """Print both figures; 1 where one is missed."""
    parser = options(__doc__, data=False)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--backend", default="onnxruntime")
    chosen = parser.parse_args()
    if chosen.frames < 4 * BLOCK:
        parser.error(f"--frames {chosen.frames}: at least {4 * BLOCK}, for halves to compare")

    count = chosen.frames + WARM_UP
    memory: list[tuple[int, float]] = []
    seconds = np.empty(count)
    with (
        Denoiser.load(chosen.model, backend=chosen.backend, threads=1) as denoiser,
        denoiser.stream(frames(count, chosen.side), depth=1, noise=NOISE) as results,
    ):
        start = perf_counter()
        for number, _ in enumerate(results, start=1):
            seconds[number - 1] = perf_counter() - start
            if number > WARM_UP and number % BLOCK == 0:
                memory.append((number, resident_mb()))
            start = perf_counter()
    at, megabytes = zip(*memory, strict=True)
    slope = float(np.polyfit(at, megabytes, 1)[0]) * 1000
    blocks = np.reshape(seconds[WARM_UP:], (-1, BLOCK))
    p99 = np.percentile(blocks, 99, axis=1).tolist()
    first, second = p99[: len(p99) // 2], p99[len(p99) // 2 :]
    drift = statistics.median(second) / statistics.median(first) - 1
    print(
        table(
            ("frames", "MB", "MB per 1,000 frames", "p99, ms", "drift of p99", "fps"),
            [
                (
                    f"{chosen.frames:,}",
                    f"{megabytes[-1]:.1f}",
                    f"{slope:+.3f}",
                    f"{1000 * statistics.median(p99):.2f}",
                    f"{drift:+.1%}",
                    f"{count / seconds.sum():.0f}",
                )
            ],
        )
    )
    save(
        chosen.json,
        {"memory_mb": memory, "block_p99_s": p99, "slope_mb": slope, "p99_drift": drift},
    )
    return int(slope > MOST_SLOPE_MB or drift > MOST_DRIFT)


if __name__ == "__main__":
    sys.exit(main())
