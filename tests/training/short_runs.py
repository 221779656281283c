"""Runs of a few steps: of a stage that learns a line in milliseconds, and of the real ones."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from cycleisp.models import create_model
from cycleisp.models.storage import save_network
from cycleisp.training.loop import Progress
from cycleisp.training.recipe import train_stage
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.stage import Stage
from tests.training.tensors import equal

__all__ = [
    "LineStage",
    "assert_same_run",
    "learn",
    "log",
    "short_run",
    "start",
    "train_until_killed",
    "write_pipeline",
]


class LineStage(Stage):
    """Learns y = 3x + 1 from noisy points."""

    name = "line"

    def __init__(self, settings: RunSettings, outputs: int = 1) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            super().__init__({"line": nn.Linear(1, outputs)})

    def draw(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        x = rng.uniform(-1, 1, (4, 1))
        y = 3 * x + 1 + rng.normal(0, 0.1, x.shape)
        return {"x": x.astype(np.float32), "y": y.astype(np.float32)}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return mse_loss(self.networks["line"](batch["x"]).float(), batch["y"])

    @torch.inference_mode()
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        return {"at 1": float(networks["line"](torch.ones(1, 1)).mean())}

    def manifest(self) -> dict[str, object]:
        return {"points": "random"}


def write_pipeline(folder: Path) -> dict[str, object]:
    """Untrained networks of the camera pipeline, as the settings that name their files."""
    files: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in ("rgb2raw", "color_branch", "raw2rgb"):
            path = folder / f"{name}.safetensors"
            save_network(path, create_model(name, "small"), name, "small")
            files[name] = str(path)
    return files


def short_run(photographs: Path, output: Path, **changes: object) -> dict[str, object]:
    """Settings of a run of twelve steps, for any stage that takes photographs."""
    return {
        "photographs": str(photographs),
        "output": str(output),
        "steps": 12,
        "batch": 2,
        "patch": 16,
        "warmup_steps": 2,
        "held_out": 2,
        "validation_steps": 6,
        "checkpoint_steps": 4,
        "workers": 0,
        "device": "cpu",
        **changes,
    }


def learn(stage: str, settings: Mapping[str, object], *, resume: bool = False) -> list[Progress]:
    """Train, and give what was reported."""
    reported: list[Progress] = []
    train_stage(stage, settings, (), resume=resume, report=reported.append)
    return reported


def start(stage: str, settings: Mapping[str, object], **environment: str) -> Popen[str]:
    """``cycleisp train STAGE --resume`` in another process; a line per validation on stderr."""
    given = [f"{name}={value}" for name, value in settings.items()]
    return Popen(
        [sys.executable, "-c", _COMMAND, "train", stage, "--resume", *given],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=PIPE,
        stderr=PIPE,
        text=True,
    )


_COMMAND = "from cycleisp_runtime.cli import main; main(prog_name='cycleisp')"


def train_until_killed(
    stage: str, settings: Mapping[str, object], validations: int, seconds: float = 0.0
) -> None:
    """Train in another process and kill it without warning, so long after so many validations."""
    with start(stage, settings) as process:
        assert process.stderr is not None
        progress = [process.stderr.readline() for _ in range(validations)]
        time.sleep(seconds)
        process.kill()
    assert process.returncode == -signal.SIGKILL, progress


def log(folder: Path) -> list[dict[str, float]]:
    """The records of a run's log, without their times."""
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs left the same networks, to the bit, the same checkpoint, and the same log."""
    networks = sorted(path.name for path in one.glob("*.safetensors"))
    assert networks == sorted(path.name for path in other.glob("*.safetensors"))
    for name in networks:
        assert equal(load_file(one / name), load_file(other / name)), name
    assert log(one) == log(other)
