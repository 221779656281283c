"""FP16 and INT8: which nodes take which type, within range and budget, or a refusal."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from PIL import Image

from cycleisp.evaluation.metrics import SSIM_WINDOW
from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.models.storage import load_network
from cycleisp.noise import LEVELS
from cycleisp_calibration.set_file import CalibrationSet
from cycleisp_calibration.sets import build_calibration_set
from cycleisp_calibration.survey import SetSettings
from cycleisp_export import loss
from cycleisp_export.edge_graph import edge_graph
from cycleisp_export.exportable import exportable
from cycleisp_export.graph import NumberTypes
from cycleisp_export.half_range import (
    HALF_MOST,
    check_half_range,
    hard_frames,
    nodes_beyond_half,
)
from cycleisp_export.loss import JudgedTiles, judging_tiles, read_clean_tiles
from cycleisp_export.precisions import FP16_MOST_LOSS_DB, Reduced, Reducer
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph
from cycleisp_runtime.bundle import NoiseRange
from cycleisp_runtime.errors import BackendError, CalibrationError, InputError
from tests.helpers import ROOT

Tiles = list[npt.NDArray[np.float32]]

NOISE = NoiseRange(shot_min=2e-5, shot_max=2e-2)


@pytest.fixture(name="reducer", scope="module")
def reducer_of_the_trained(trained: EdgeDenoiser, clean: Tiles) -> Reducer:
    return Reducer(exportable(trained), {}, NOISE, clean)


def in_int8(
    reducer: Reducer, calibration: CalibrationSet, budget: float, said: list[str] | None = None
) -> Reduced:
    progress = [] if said is None else said
    return reducer.int8(reducer.calibrated(calibration, "percentile"), budget, progress.append)


def convolutions(proto: onnx.ModelProto) -> list[str]:
    return [node.name for node in proto.graph.node if node.op_type == "Conv"]


def types_of(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, as ONNX infers it."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_fp16_costs_nothing_and_leaves_the_borders_alone(reducer: Reducer) -> None:
    reduced = reducer.half()
    assert reduced.reduction.kept == {}
    assert reduced.reduction.photographs == 3
    assert reduced.reduction.loss_db.keys() == LEVELS.keys()
    assert max(map(abs, reduced.reduction.worst_loss_db.values())) < 0.01
    types = types_of(reduced.proto)
    for name in convolutions(reduced.proto):
        assert types[name] == TensorProto.FLOAT16
    for name in ("noisy", "signal", "deviation", "residual", "denoised"):
        assert types[name] == TensorProto.FLOAT


def with_large_features(model: EdgeDenoiser) -> EdgeDenoiser:
    """The same function, with values inside one block that FP16 cannot hold."""
    large = copy.deepcopy(model)
    factor = 2.0**10
    with torch.no_grad():
        for parameter in large.get_submodule("body.0.body.0.body.0").parameters():
            parameter.mul_(factor)
        large.get_submodule("body.0.body.0.body.2").get_parameter("weight").div_(factor)
    return large


def test_layers_that_leave_the_range_of_fp16_are_named_and_kept(
    trained: EdgeDenoiser, clean: Tiles
) -> None:
    large = with_large_features(trained)
    block = ["group0.block0.conv0", "group0.block0.relu", "group0.block0.conv1"]
    proto, network = edge_graph(large, {}), exportable(large)
    hard = list(hard_frames(network, NOISE))
    assert nodes_beyond_half(network, TypedGraph(proto), proto, hard) == block

    overflowing = edge_graph(large, {}, NumberTypes(half=True))
    with pytest.raises(BackendError, match=r"group0\.block0\.conv0: the network leaves the range"):
        check_half_range(TypedGraph(overflowing), hard)

    reduced = Reducer(exportable(large), {}, NOISE, clean).half()
    assert sorted(reduced.reduction.kept) == sorted(block)
    types = types_of(reduced.proto)
    assert {name for name in convolutions(proto) if types[name] == TensorProto.FLOAT} == {
        *("group0.block0.conv0", "group0.block0.conv1")
    }
    assert max(reduced.reduction.loss_db.values()) < 0.01


def test_the_hard_frames_stay_in_range(trained: EdgeDenoiser) -> None:
    proto, network = edge_graph(trained, {}), exportable(trained)
    hard = list(hard_frames(network, NOISE))
    assert nodes_beyond_half(network, TypedGraph(proto), proto, hard) == []
    assert HALF_MOST < 65504 / 2


def test_fp16_that_loses_too_much_is_refused(
    reducer: Reducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycleisp_export.precisions.FP16_MOST_LOSS_DB", -1.0)
    with pytest.raises(BackendError, match=r"FP16 loses too much .*wanted at most -1 dB"):
        reducer.half()


def test_int8_is_symmetric_and_only_in_convolutions(
    reducer: Reducer, calibration: CalibrationSet
) -> None:
    reduced = in_int8(reducer, calibration, 0.2)
    proto, kept = reduced.proto, reduced.reduction.kept
    assert reduced.reduction.calibration == f"percentile, set {calibration.record.sha256}"
    quantised = [name for name in convolutions(proto) if name not in kept]
    assert len(quantised) >= 6
    types = types_of(proto)
    assert all(types[name] == TensorProto.FLOAT16 for name in convolutions(proto))

    readers = {name: node for node in proto.graph.node for name in node.input}
    nodes = {node.output[0]: node for node in proto.graph.node}
    constants = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    rounded = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert {node.name for node in rounded} == {f"{name}.input.int8" for name in quantised}
    for node in rounded:
        step, zero = (constants[name] for name in node.input[1:])
        assert step.shape == zero.shape == ()
        assert (step.dtype, zero.dtype) == (np.dtype(np.float32), np.dtype(np.int8))
        assert zero == 0
        assert readers[node.output[0]].op_type == "DequantizeLinear"
    for name in quantised:
        dequantised = nodes[f"{name}.weight"]
        whole, steps, zeros = (constants[each] for each in dequantised.input)
        assert whole.dtype == np.int8
        assert len(steps) == len(whole)
        assert not zeros.any()
        # Every channel makes use of its whole range.
        assert (np.abs(whole).reshape(len(whole), -1).max(axis=1) == 127).all()


def test_no_more_layers_are_kept_than_the_budget_needs(
    reducer: Reducer, calibration: CalibrationSet
) -> None:
    said: list[str] = []
    loose, tight = (in_int8(reducer, calibration, budget, said) for budget in (3.0, 0.1))
    assert loose.reduction.kept == {}
    assert tight.reduction.kept.keys() > loose.reduction.kept.keys()
    assert max(tight.reduction.loss_db.values()) <= 0.1
    assert max(tight.reduction.loss_db.values()) < max(loose.reduction.loss_db.values())
    assert all("fp16: alone in INT8 it loses" in reason for reason in tight.reduction.kept.values())
    assert len(tight.proto.SerializeToString()) > len(loose.proto.SerializeToString())
    assert said[0].startswith("head alone in INT8 loses")
    assert said[12].startswith("12 of 12 layers in INT8 lose")


def test_layers_are_kept_by_what_they_lose_alone(
    trained: EdgeDenoiser, reducer: Reducer, calibration: CalibrationSet
) -> None:
    said: list[str] = []
    kept = in_int8(reducer, calibration, 0.1, said).reduction.kept
    losses = {
        sentence.split()[0]: float(sentence.split("loses ")[1].split()[0])
        for sentence in said[: len(convolutions(edge_graph(trained, {})))]
    }
    others = [loss for name, loss in losses.items() if name not in kept]
    assert min(losses[name] for name in kept) >= max(others)


def test_a_budget_that_cannot_be_met_is_refused(
    reducer: Reducer, calibration: CalibrationSet
) -> None:
    with pytest.raises(BackendError, match="a single layer in INT8 loses too much"):
        in_int8(reducer, calibration, -1.0)


def test_int8_in_torch_loses_what_it_loses_in_onnx_runtime(
    trained: EdgeDenoiser, clean: Tiles, reducer: Reducer, calibration: CalibrationSet
) -> None:
    proto = in_int8(reducer, calibration, 0.2).proto
    judged = JudgedTiles(exportable(trained), clean, OnnxGraph(edge_graph(trained, {})))
    in_torch, _ = judged.losses(TypedGraph(proto))
    in_runtime, _ = judged.losses(OnnxGraph(proto))
    for level in LEVELS:
        # The torch one rounds to FP16 between the layers, too, which may cost what FP16 may.
        assert in_torch[level] == pytest.approx(in_runtime[level], abs=FP16_MOST_LOSS_DB)


def test_a_layer_that_sees_only_zeros_is_refused(
    trained: EdgeDenoiser, clean: Tiles, calibration: CalibrationSet
) -> None:
    dead = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in dead.get_submodule("body.1.body.0.body.0").parameters():
            parameter.zero_()
    with pytest.raises(CalibrationError, match=r"group1\.block0\.relu: what a layer takes or"):
        in_int8(Reducer(exportable(dead), {}, NOISE, clean), calibration, 0.2)


def test_too_few_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"too few photographs .*met 0, wanted at least 2"):
        read_clean_tiles(tmp_path)


def test_photographs_smaller_than_the_window_of_ssim_are_refused(tmp_path: Path) -> None:
    for index, side in enumerate((24, 23)):
        Image.new("RGB", (40, side), (90, 160, 30)).save(tmp_path / f"{index}.png")
    with pytest.raises(InputError, match=r"1\.png: too small .*met 40x23 pixels, wanted at"):
        read_clean_tiles(tmp_path)
    (tmp_path / "1.png").rename(tmp_path / "not a picture")
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes())
    for task in ("raw", "srgb"):
        assert min(read_clean_tiles(tmp_path, task)[0].shape[1:]) >= SSIM_WINDOW


@pytest.mark.parametrize("name", ["raw_denoiser", "srgb_denoiser"])
@pytest.mark.parametrize(
    ("size", "judged"), [("tiny", 48), ("edge", 48), ("small", 48), ("full", 6)]
)
def test_costly_networks_are_judged_on_fewer_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: str, judged: int
) -> None:
    network = exportable(create_model(name, size))
    for index in range(48):
        Image.new("RGB", (24, 24)).save(tmp_path / f"{index}.png")
    assert len(judging_tiles(network, tmp_path)) == judged
    monkeypatch.setattr(loss, "MOST_MACS", 0)
    assert len(judging_tiles(network, tmp_path)) == 2


def test_a_network_that_pools_is_calibrated_and_judged_with_its_own_gates(
    clean: Tiles, calibration: CalibrationSet
) -> None:
    weights = ROOT / "zoo" / "runs" / "small" / "raw_denoiser.safetensors"
    network = exportable(load_network(weights, "raw_denoiser"))
    reducer = Reducer(network, {}, NOISE, clean[:4])
    calibrated = reducer.calibrated(calibration, "percentile")
    half = reducer.half()
    for reduced in (
        half,
        reducer.int8(calibrated, 1.0, lambda _sentence: None),
        reducer.cpu_int8(calibrated, 1.0, lambda _sentence: None),
    ):
        assert [each.name for each in reduced.proto.graph.input] == ["noisy", "variance", "gates"]
        assert max(reduced.reduction.loss_db.values()) <= 1.0
        rounded = [node for node in reduced.proto.graph.node if node.op_type == "QuantizeLinear"]
        assert bool(rounded) == (reduced is not half)
        assert len(reduced.reduction.kept) < 9  # of 12 layers


def test_int8_of_an_srgb_network_is_made_and_judged() -> None:
    network = exportable(create_model("srgb_denoiser", "tiny").eval().requires_grad_(False))
    photographs = sorted((ROOT / "examples" / "photographs").glob("*.jpg"))[:3]
    settings = SetSettings(task="srgb", tiles=6, side=128)
    tiles = build_calibration_set(photographs, settings).calibration
    clean = read_clean_tiles(ROOT / "examples" / "photographs", "srgb")[-4:]
    assert clean[0].shape == (3, 128, 128)
    reducer = Reducer(network, {}, None, [tile[:, :64, :64] for tile in clean])
    calibrated = reducer.calibrated(tiles, "percentile")
    for reduced in (
        reducer.half(),
        reducer.int8(calibrated, 0.2, print),
        reducer.cpu_int8(calibrated, 0.2, print),
    ):
        assert reduced.reduction.loss_db.keys() == LEVELS.keys()
        assert [each.name for each in reduced.proto.graph.input] == ["noisy"]
