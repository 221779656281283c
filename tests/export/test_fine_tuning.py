"""Quantisation-aware fine-tuning: less is lost in INT8, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.training.raw_denoiser import RawDenoiserSettings
from cycleisp.training.settings import settings_as_yaml
from cycleisp_calibration.set_file import CalibrationSet
from cycleisp_export.activation_steps import activation_steps
from cycleisp_export.cpu_int8 import cpu_int8_graph, rounded_tensors
from cycleisp_export.exportable import exportable
from cycleisp_export.fine_tuning import fine_tuned, stage_of_run
from cycleisp_export.loss import JudgedTiles
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph
from cycleisp_runtime.errors import InputError, SettingsError
from tests.helpers import ROOT


@pytest.fixture(name="run", scope="module")
def folder_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    settings = RawDenoiserSettings(
        photographs=ROOT / "examples" / "photographs", output=folder, size="tiny", patch=32
    )
    (folder / "settings.yaml").write_text(settings_as_yaml(settings), "utf-8")
    return folder


def test_rounding_costs_less_afterwards(
    trained: EdgeDenoiser,
    calibration: CalibrationSet,
    clean: list[npt.NDArray[np.float32]],
    run: Path,
) -> None:
    network = exportable(trained)
    proto = network.graph({})
    layers = rounded_tensors(proto)
    tensors = sorted({tensor for pair in layers.values() for tensor in pair})
    calibrated = activation_steps(TypedGraph(proto), tensors, calibration.arrays, "percentile")
    # Coarse, so that a few steps of the optimiser show.
    coarse = {tensor: 3 * step for tensor, step in calibrated.items()}
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    said: list[str] = []
    tuned, steps = fine_tuned(trained, stage_of_run(run, "raw"), layers, coarse, 40, said.append)
    again, same_steps = fine_tuned(trained, stage_of_run(run, "raw"), layers, coarse, 40, print)

    assert said[-1].startswith("fine-tuning: 40 of 40 steps, loss ")
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    assert tuned.state_dict().keys() == before.keys()
    assert steps == same_steps
    assert all(
        torch.equal(one, other)
        for one, other in zip(tuned.state_dict().values(), again.state_dict().values(), strict=True)
    )

    judged = JudgedTiles(network, clean, OnnxGraph(proto))
    rounded = cpu_int8_graph(proto, coarse, list(layers))
    learned = cpu_int8_graph(exportable(tuned).graph({}), steps, list(layers))
    losses_before, _ = judged.losses(OnnxGraph(rounded))
    losses_after, _ = judged.losses(OnnxGraph(learned))
    for level, loss in losses_before.items():
        assert losses_after[level] < 0.95 * loss


def test_networks_that_pool_are_refused(run: Path) -> None:
    with pytest.raises(SettingsError, match="only edge networks are fine-tuned"):
        fine_tuned(
            create_model("raw_denoiser", "small"), stage_of_run(run, "raw"), {}, {}, 1, print
        )


def test_a_run_without_its_photographs_is_refused(tmp_path: Path) -> None:
    settings = RawDenoiserSettings(photographs=tmp_path / "gone", output=tmp_path, size="tiny")
    (tmp_path / "settings.yaml").write_text(settings_as_yaml(settings), "utf-8")
    with pytest.raises(InputError, match="the folder of photographs cannot be read"):
        stage_of_run(tmp_path, "raw")
