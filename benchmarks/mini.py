"""Every stage of training in minutes, from what the repository holds: that it runs, and learns.

RAW files become pairs, photographs become pairs of simulated cameras, the camera pipeline is
trained, tuned, and makes pairs for an sRGB denoiser; a RAW denoiser learns besides. Every stage is
judged on pictures that it never saw, before its first step and after its last. The networks are
not good after minutes; docs/training.md tells what longer runs reach.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import options, save, table
from cycleisp.data.prepare import PairsWriter
from cycleisp.training.loop import Progress
from cycleisp.training.recipe import train_stages

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "zoo" / "mini.yaml"
RAW_FILES = (
    ROOT / "examples" / "demo" / "bmpcc_gbrg_12b_ljpeg_lintable.dng",
    ROOT / "tests" / "data" / "raw" / "d750_orient6_ljpeg14.dng",
)
"""One frame to train on, one to judge by: the repository holds no other scenes."""


@dataclass(frozen=True)
class Claim:
    """What a stage must gain.

    Attributes:
        stage: its name.
        after: the figure, in dB, after the last step.
        before: the figure it is compared with: of the first line of the log where the name is the
            same, of the last line otherwise (a noisy input).
        margin: dB that it must be better by; about half of what was seen.
    """

    stage: str
    after: str
    before: str
    margin: float


CLAIMS = (
    Claim("rgb2raw", "RAW", "RAW", 7.0),
    Claim("raw2rgb", "sRGB", "sRGB", 8.0),
    Claim("joint", "round trip", "round trip", 1.0),
    Claim("raw-denoiser", "middle", "middle noisy", 0.5),
    Claim("raw-denoiser", "high", "high noisy", 1.5),
    Claim("srgb-denoiser", "denoised", "noisy", 1.0),
)


def prepare_pairs(folder: Path) -> None:
    """The repository's RAW files as pairs in a new folder."""
    writer = PairsWriter(folder, "levels")
    for path in RAW_FILES:
        outcome = writer.add(path)
        if outcome.error is not None:
            sys.exit(outcome.error)


def progress_lines(stage: str) -> Callable[[Progress], None]:
    """A function that prints a line per validation and, now and then, where a stage stands."""

    def report(progress: Progress) -> None:
        if progress.quality is not None:
            figures = "  ".join(f"{name} {db:.2f}" for name, db in progress.quality.items())
            print(f"# {stage}  step {progress.step}/{progress.steps}  {figures}", flush=True)

    return report


def measured(output: Path) -> list[dict[str, object]]:
    """Every claim with what was measured."""
    found = []
    for claim in CLAIMS:
        lines = (output / claim.stage / "log.jsonl").read_text("utf-8").splitlines()
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        before = (first if claim.before == claim.after else last)[claim.before]
        found.append(
            {
                "stage": claim.stage,
                "figure": claim.after,
                "steps": last["step"],
                "seconds": last["seconds"],
                "compared with": "before training" if claim.before == claim.after else claim.before,
                "before": before,
                "after": last[claim.after],
                "margin": claim.margin,
                "kept": last[claim.after] >= before + claim.margin,
            }
        )
    return found


def main() -> None:
    """Train all stages anew and print what each gained; exit 1 where one gained too little."""
    parser = options(__doc__, data=False)
    parser.add_argument(
        "--output", type=Path, default=Path("runs/mini"), help="of the runs; %(default)s"
    )
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    started = time.perf_counter()
    pairs = arguments.output / "pairs"
    prepare_pairs(pairs)
    overrides = [
        f"output={arguments.output}",
        f"pairs={pairs}",
        f"photographs={ROOT / 'examples' / 'photographs'}",
    ]
    for network in train_stages(RECIPE, overrides, resume=False, report=progress_lines):
        print(f"# {network}", flush=True)
    found = measured(arguments.output)
    rows = [
        [
            str(each["stage"]),
            str(each["figure"]),
            str(each["steps"]),
            f"{each['seconds']:.0f}",
            str(each["compared with"]),
            f"{each['before']:.2f}",
            f"{each['after']:.2f}",
            f"{each['margin']:.1f}",
            "yes" if each["kept"] else "NO",
        ]
        for each in found
    ]
    header = ["stage", " figure, dB", "steps", "seconds", " compared with", "before", "after"]
    print(table([*header, "at least more", "kept"], rows))
    print(f"{time.perf_counter() - started:.0f} seconds in all")
    save(arguments.json, found)
    if not all(each["kept"] for each in found):
        sys.exit("a stage gained less than it must")


if __name__ == "__main__":
    main()
