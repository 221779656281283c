"""What parts of the camera pipeline are worth, at one budget of steps each.

RGB2RAW with and without the loss's log term and on one camera or many; RAW2RGB with and without
the colour branch, on one camera or many; both before and after joint tuning. Judged on photographs
that none was trained on, by cameras of three kinds: many (new ones of the law that was trained on),
one, and new (a matrix that the law does not hold). sRGB does not tell the white balance that was
undone, so no network can know it: RAW is also stated after per-channel gains, and beside what the
exact inverse pipeline of the average camera reaches, which knows everything but the camera.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.report import options, required, save, table
from cycleisp.data.camera_pairs import CAMERAS, CameraPair, SimulatedPairs
from cycleisp.data.inverse_pipeline import mosaic_planes, random_inverse_pipeline
from cycleisp.data.photographs import load_photographs
from cycleisp.evaluation.camera_pipeline import raw_quality, srgb_quality, with_true_gains
from cycleisp.evaluation.metrics import psnr
from cycleisp.models.storage import load_network
from cycleisp.training.isp_stages import rendered
from cycleisp.training.loop import Progress
from cycleisp.training.recipe import train_stage

JUDGED_PICTURES = 24


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        stage: its name.
        changes: settings that make it differ from the others.
    """

    stage: str
    changes: Mapping[str, object]


RUNS = {
    "RGB2RAW": Run("rgb2raw", {}),
    "RGB2RAW, no log term": Run("rgb2raw", {"log_weight": 0.0}),
    "RGB2RAW, one camera": Run("rgb2raw", {"cameras": "one"}),
    "RAW2RGB": Run("raw2rgb", {}),
    "RAW2RGB, no colour branch": Run("raw2rgb", {"color_branch": False}),
    "RAW2RGB, one camera": Run("raw2rgb", {"cameras": "one"}),
    "RAW2RGB, one camera, no colour branch": Run(
        "raw2rgb", {"cameras": "one", "color_branch": False}
    ),
}


def folder_of(output: Path, name: str) -> Path:
    """Where a run's networks go."""
    return output / name.lower().replace(",", "").replace(" ", "_")


def trained(name: str, run: Run, values: dict[str, object], output: Path) -> Path:
    """The folder of the run, trained now unless it was before."""
    folder = folder_of(output, name)

    def report(progress: Progress) -> None:
        if progress.quality is not None:
            figures = "  ".join(f"{key} {db:.2f}" for key, db in progress.quality.items())
            print(f"# {name}  step {progress.step}/{progress.steps}  {figures}", flush=True)

    recipe = {**values, **run.changes, "output": str(folder)}
    train_stage(run.stage, recipe, [], resume=True, report=report)
    return folder


def judged_pairs(photographs: Path) -> dict[str, dict[str, CameraPair]]:
    """Held-out pairs by kind of camera."""
    found = load_photographs(photographs, pattern="*", minimum_side=160, held_out=2)
    pictures = dict(sorted({**found.training, **found.held_out}.items()))
    names = list(pictures)[:: max(1, len(pictures) // JUDGED_PICTURES)][:JUDGED_PICTURES]
    judged = {name: pictures[name] for name in names}
    return {
        kind: SimulatedPairs({}, judged, law, patch=16).held_out() for kind, law in CAMERAS.items()
    }


def average_camera(pairs: Mapping[str, CameraPair], kind: str) -> dict[str, float]:
    """PSNR of the exact inverse pipeline of a camera with the means of the law ``many``.

    Args:
        pairs: what it is judged by.
        kind: which cameras took them; the one camera of ``one`` is its own average.
    """
    law = CAMERAS["many" if kind == "new" else kind]
    means = replace(
        law,
        red_gain=(statistics.mean(law.red_gain),) * 2,
        blue_gain=(statistics.mean(law.blue_gain),) * 2,
        brightness_spread=0.0,
        tones=(statistics.mean(law.tones),),
    )
    cameras = [random_inverse_pipeline(np.random.default_rng(seed), means) for seed in range(64)]
    camera = replace(cameras[0], matrix=np.mean([each.matrix for each in cameras], axis=0))
    plain, gained = [], []
    for pair in pairs.values():
        codes = np.rint(pair.rgb.transpose(1, 2, 0) * 255).astype(np.uint8)
        raw = mosaic_planes(camera.camera_rgb(codes))
        plain.append(psnr(raw, pair.raw))
        gained.append(psnr(with_true_gains(raw, pair.raw), pair.raw))
    return {"RAW": statistics.mean(plain), "RAW after gains": statistics.mean(gained)}


def networks_in(folder: Path) -> nn.ModuleDict:
    """The networks that a run left."""
    names = ("rgb2raw", "color_branch", "raw2rgb")
    return nn.ModuleDict(
        {
            name: load_network(folder / f"{name}.safetensors", name)
            for name in names
            if (folder / f"{name}.safetensors").exists()
        }
    )


@torch.inference_mode()
def judge(networks: nn.ModuleDict, pairs: Mapping[str, CameraPair]) -> dict[str, float]:
    """Every figure that these networks have."""
    found: dict[str, float] = {}
    if "rgb2raw" in networks:
        found |= raw_quality(networks["rgb2raw"], pairs)
    if "raw2rgb" in networks:
        found |= srgb_quality(_renderer(networks, from_true_raw=True), pairs)
    if "rgb2raw" in networks and "raw2rgb" in networks:
        found["round trip"] = srgb_quality(_renderer(networks, from_true_raw=False), pairs)["sRGB"]
    return found


def _renderer(
    networks: nn.ModuleDict, *, from_true_raw: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    def render(raw: Tensor, rgb: Tensor) -> Tensor:
        seen = raw if from_true_raw else networks["rgb2raw"](rgb).clamp(0, 1)
        return rendered(networks, seen, rgb)

    return render


def main() -> None:
    """Train what is not trained yet, and print the tables."""
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="of every run; %(default)s")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/ablations"), help="of the runs; %(default)s"
    )
    arguments = parser.parse_args()
    photographs = required(arguments.data / "photos_train")
    judged = judged_pairs(required(arguments.data / "photos_test"))
    values: dict[str, object] = {
        "photographs": str(photographs),
        "pattern": "a_*",
        "steps": arguments.steps,
        "validation_steps": arguments.steps,
        "workers": 0,
    }
    folders = {name: trained(name, run, values, arguments.output) for name, run in RUNS.items()}
    before = networks_in(folders["RGB2RAW"])
    before.update(dict(networks_in(folders["RAW2RGB"]).items()))
    files = {
        name: str(folders["RGB2RAW" if name == "rgb2raw" else "RAW2RGB"] / f"{name}.safetensors")
        for name in before
    }
    joint = Run("joint", {**files, "steps": arguments.steps // 2})
    after = networks_in(trained("joint", joint, values, arguments.output))

    compared = {name: networks_in(folder) for name, folder in folders.items()}
    compared |= {"all three, before joint tuning": before, "all three, after it": after}
    results: dict[str, dict[str, dict[str, float]]] = {
        name: {kind: judge(networks, pairs) for kind, pairs in judged.items()}
        for name, networks in compared.items()
    }
    results["average camera, exact inverse"] = {
        kind: average_camera(pairs, kind) for kind, pairs in judged.items()
    }
    for kind in judged:
        print(f"\ncameras: {kind}; {arguments.steps} steps of 8 patches each, joint half of it, dB")
        print(figures_table({name: figures[kind] for name, figures in results.items()}))
    save(arguments.json, results)


def figures_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """A row per run, a column per figure; a dash where the run does not have it."""
    columns = [
        "RAW", "RAW after gains", "sRGB", "sRGB mean colour error of 255", "round trip",
    ]  # fmt: skip
    rows = [
        [name, *(f"{found[key]:.2f}" if key in found else "-" for key in columns)]
        for name, found in results.items()
    ]
    return table(["run", *columns], rows)


if __name__ == "__main__":
    main()
