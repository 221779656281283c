"""Trained networks to export, without a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.models.storage import load_network, save_network
from cycleisp.noise import LEVELS
from cycleisp.training.raw_denoiser import RawDenoiserSettings
from cycleisp.training.settings import settings_as_yaml
from cycleisp_calibration.set_file import CalibrationSet
from cycleisp_calibration.sets import build_calibration_set
from cycleisp_calibration.survey import SetSettings
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.loss import read_clean_tiles
from tests.helpers import ROOT
from tests.training.golden_weights import fill_with_golden_weights

torch.set_num_threads(1)  # the networks are too small for more, and results stay the same


@pytest.fixture(scope="session")
def network() -> Callable[[str], EdgeDenoiser]:
    """An edge denoiser of a size, whose every weight and bias does something."""

    def build(size: str) -> EdgeDenoiser:
        model = create_model("raw_denoiser", size)
        assert isinstance(model, EdgeDenoiser)
        fill_with_golden_weights(model, frozenset({"tail.weight"}))
        return model.eval()

    return build


@pytest.fixture(scope="session")
def denoiser() -> Callable[[str, str], Exportable]:
    """A denoiser of a name and size, whose every weight and bias does something."""

    def build(name: str, size: str) -> Exportable:
        model = create_model(name, size)
        fill_with_golden_weights(model, frozenset({"tail.weight", "tail.0.weight"}))
        return exportable(model.eval().requires_grad_(False))

    return build


@pytest.fixture
def finished_run(tmp_path: Path, network: Callable[[str], EdgeDenoiser]) -> Path:
    """The folder that the training of a tiny network would leave."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_network(folder / "raw_denoiser.safetensors", network("tiny"), "raw_denoiser", "tiny")
    settings = RawDenoiserSettings(
        photographs=Path("photographs of mine"), output=folder, size="tiny", threads=2
    )
    (folder / "settings.yaml").write_text(settings_as_yaml(settings), "utf-8")
    decibels = {name: 40.0 for level in LEVELS for name in (f"{level} noisy", level)}
    record = {"step": 60_000, "loss": 0.3, "seconds": 5400.0, **decibels, "high": 45.5}
    (folder / "log.jsonl").write_text(json.dumps({"step": 1}) + "\n" + json.dumps(record), "utf-8")
    return folder


@pytest.fixture(scope="session")
def trained() -> EdgeDenoiser:
    """The tiny denoiser that is shipped."""
    model = load_network(ROOT / "zoo/runs/tiny/raw_denoiser.safetensors", "raw_denoiser")
    assert isinstance(model, EdgeDenoiser)
    return model


@pytest.fixture(scope="session")
def clean() -> list[npt.NDArray[np.float32]]:
    """Clean packed planes (4, 64, 64) of six example photographs."""
    tiles = read_clean_tiles(ROOT / "examples" / "photographs")
    return [tile[:, 32:96, 32:96] for tile in tiles[-6:]]


@pytest.fixture(scope="session")
def calibration() -> CalibrationSet:
    """Tiles of the example photographs at low, middle and high noise."""
    photographs = sorted((ROOT / "examples" / "photographs").glob("*.jpg"))[:4]
    return build_calibration_set(photographs, SetSettings(tiles=12, side=128)).calibration
