"""What synthesis and evaluation cost beyond the networks' own forward passes.

Photographs are synthesised to shards, and pairs of pictures evaluated, as the commands do it:
reading, noise, writing and metrics included. The bare time is that of the same networks on the
same pictures, already in memory, with the same tiles. All take turns on an otherwise idle machine;
medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import options, required, save, table
from cycleisp.data.photographs import load_photograph
from cycleisp.evaluation.denoisers import load_srgb_denoiser
from cycleisp.evaluation.pairs import find_picture_pairs, judged_pair
from cycleisp.evaluation.scores import mean_scores
from cycleisp.models import create_model
from cycleisp.models.storage import load_network, save_network
from cycleisp.synthesis.cycle import RawSynthesis, SrgbSynthesis
from cycleisp.synthesis.job import SynthesisSettings, run_synthesis

NETWORKS = ("rgb2raw", "color_branch", "raw2rgb", "srgb_denoiser")
PICTURES, TURNS = 6, 5
MOST = 1.2
"""Times the networks' own time that each may take."""


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def synthesis(
    kind: str, photographs: list[Path], files: dict[str, Path], scratch: Path
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The command's work, and the networks' alone."""
    turn = iter(range(1000))

    def whole() -> object:
        return run_synthesis(
            SynthesisSettings(
                kind="raw" if kind == "raw" else "srgb",
                inputs=photographs,
                output=scratch / f"{kind}-{next(turn)}",
                rgb2raw=files["rgb2raw"],
                color_branch=files["color_branch"] if kind != "raw" else None,
                raw2rgb=files["raw2rgb"] if kind != "raw" else None,
                noise="cycleisp-dnd",
            ),
            lambda _count: lambda _name: None,
        )

    to_raw = RawSynthesis(load_network(files["rgb2raw"], "rgb2raw"))
    to_rgb = SrgbSynthesis(
        to_raw,
        load_network(files["color_branch"], "color_branch"),
        load_network(files["raw2rgb"], "raw2rgb"),
        "blurred",
    )
    pictures = [
        torch.from_numpy(load_photograph(path).transpose(2, 0, 1).astype(np.float32) / 255)[None]
        for path in photographs
    ]

    @torch.inference_mode()
    def bare() -> None:
        for picture in pictures:
            raw = to_raw.clean_raw(picture)
            if kind != "raw":
                # The default target takes the clean and the noisy RAW through RAW2RGB.
                to_rgb.render(torch.cat([raw, raw], dim=1), picture)

    return whole, bare


def evaluation(folder: Path, file: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """The command's work, and the network's alone."""
    pairs = find_picture_pairs(folder)[: 2 * PICTURES]
    denoise = load_srgb_denoiser(file)
    pictures = [load_photograph(pair.noisy).astype(np.float32) / np.float32(255) for pair in pairs]

    def whole() -> object:
        groups = [pair.group for pair in pairs]
        return mean_scores(groups, lambda index: judged_pair(denoise, pairs[index]))

    def bare() -> None:
        for picture in pictures:
            denoise(picture)

    return whole, bare


def main() -> None:
    """Print the table; exit 1 where something takes more than it may."""
    parser = options(__doc__)
    arguments = parser.parse_args()
    photographs = sorted(required(arguments.data / "photos_train").glob("a_*.jpg"))[:PICTURES]
    pairs = required(arguments.data / "pairs")
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = {network: scratch / f"{network}.safetensors" for network in NETWORKS}
        for network, file in files.items():
            save_network(file, create_model(network, "small"), network, "small")
        measured = {
            "synthesize raw": synthesis("raw", photographs, files, scratch),
            "synthesize srgb": synthesis("srgb", photographs, files, scratch),
            "evaluate pairs": evaluation(pairs, files["srgb_denoiser"]),
        }
        for what, (whole, bare) in measured.items():
            bare()
            times = [(seconds(whole), seconds(bare)) for _ in range(TURNS)]
            results[what] = {
                "whole_s": statistics.median(each[0] for each in times),
                "bare_s": statistics.median(each[1] for each in times),
            }
    rows = [
        [
            what,
            f"{each['whole_s']:.2f}",
            f"{each['bare_s']:.2f}",
            f"{each['whole_s'] / each['bare_s']:.3f}",
        ]
        for what, each in results.items()
    ]
    print(table(["size small", "seconds", "networks alone", "ratio"], rows))
    save(arguments.json, results)
    slow = [what for what, each in results.items() if each["whole_s"] > MOST * each["bare_s"]]
    if slow:
        sys.exit(f"more than {MOST} times the networks' own time: {', '.join(slow)}")


if __name__ == "__main__":
    main()
