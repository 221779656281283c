"""The ONNX graph computes what the network computes, and says nothing of where it was made."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from cycleisp.evaluation.metrics import psnr
from cycleisp.models import create_model
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.graph import GATES, NOISE_SCALE, NOISY, VARIANCE, NumberTypes
from cycleisp_export.verify import (
    OnnxGraph,
    check_graph,
    gates_agreement,
    measured_halo,
    parity,
)
from cycleisp_runtime.errors import BackendError, SettingsError
from cycleisp_runtime.onnx_file import MOST_CONSTANT_BYTES, OPERATORS

Build = Callable[[str, str], Exportable]
Samples = npt.NDArray[np.float32]

METADATA = {"model": "cycleisp test", "license": "Apache-2.0"}

SMALL_ONES = [(f"{task}_denoiser", size) for task in ("raw", "srgb") for size in ("tiny", "small")]
ALL = [*SMALL_ONES, ("raw_denoiser", "edge"), ("srgb_denoiser", "edge")]


def named(denoisers: list[tuple[str, str]]) -> pytest.MarkDecorator:
    ids = [f"{name}-{size}" for name, size in denoisers]
    return pytest.mark.parametrize(("name", "size"), denoisers, ids=ids)


def statistics_of(model: Exportable) -> OnnxGraph | None:
    proto = model.statistics(METADATA)
    return None if proto is None else OnnxGraph(proto)


@pytest.fixture(name="tiny", scope="module")
def tiny_denoiser(denoiser: Build) -> Exportable:
    return denoiser("raw_denoiser", "tiny")


@pytest.fixture(name="proto", scope="module")
def tiny_graph(tiny: Exportable) -> onnx.ModelProto:
    return tiny.graph(METADATA)


@pytest.fixture(name="pooling", scope="module")
def pooling_denoiser(denoiser: Build) -> Exportable:
    return denoiser("raw_denoiser", "small")


@named(ALL)
def test_the_graph_computes_what_the_network_computes(
    denoiser: Build, name: str, size: str
) -> None:
    model = denoiser(name, size)
    found = parity(model, OnnxGraph(model.graph(METADATA)), statistics_of(model))
    assert found.absolute < 1e-5
    if (name, size) in {("raw_denoiser", "tiny"), ("raw_denoiser", "edge")}:
        # Float32 sums in another order; the tolerance for trained networks is 1e-3 of the noise.
        assert found.of_noise is not None
        assert found.of_noise < 1e-4
    else:
        assert found.of_noise is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw_denoiser", "srgb_denoiser"])
def test_the_published_size_computes_the_same(denoiser: Build, name: str) -> None:
    model = denoiser(name, "full")
    proto, statistics = model.graph(METADATA), model.statistics(METADATA)
    assert statistics is not None
    check_graph(proto)
    check_graph(statistics)
    assert model.gates == 4 * 8 * 64
    assert parity(model, OnnxGraph(proto), OnnxGraph(statistics)).absolute < 1e-5


@named(ALL)
def test_the_graph_is_plain_onnx(denoiser: Build, name: str, size: str) -> None:
    model = denoiser(name, size)
    protos = [model.graph(METADATA), model.graph(METADATA, NumberTypes(half=True))]
    statistics = model.statistics(METADATA)
    for proto in protos if statistics is None else [*protos, statistics]:
        check_graph(proto)
        assert [(each.domain, each.version) for each in proto.opset_import] == [("", 17)]
        assert proto.ir_version == 8
        assert {entry.key: entry.value for entry in proto.metadata_props} == METADATA
        names = [node.name for node in proto.graph.node]
        assert len(set(names)) == len(names)


def test_no_more_operators_are_allowed_than_needed(denoiser: Build) -> None:
    used = {"QuantizeLinear", "DequantizeLinear"}  # of INT8
    for name, size in SMALL_ONES:
        model = denoiser(name, size)
        for proto in (model.graph({}, NumberTypes(half=True)), model.statistics({})):
            used |= {node.op_type for node in proto.graph.node} if proto else set()
    assert used == OPERATORS


@named(SMALL_ONES)
def test_tensors_are_named_and_sized_as_the_bundle_says(
    denoiser: Build, name: str, size: str
) -> None:
    def sizes(value: onnx.ValueInfoProto) -> list[int | str]:
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]

    def all_sizes(proto: onnx.ModelProto) -> tuple[Mapping[str, object], Mapping[str, object]]:
        inputs = {value.name: sizes(value) for value in proto.graph.input}
        return inputs, {value.name: sizes(value) for value in proto.graph.output}

    model = denoiser(name, size)
    channels = 4 if name == "raw_denoiser" else 3
    frame, gates = ["batch", channels, "height", "width"], ["batch", model.gates, 1, 1]
    shapes = {NOISY: frame, VARIANCE: frame, NOISE_SCALE: ["batch", 1, 1, 1], GATES: gates}
    wanted = {each: shapes[each] for each in model.tensors.inputs}
    assert all_sizes(model.graph({})) == (wanted, {model.tensors.denoised: frame})
    statistics = model.statistics({})
    if statistics is not None:
        del wanted[GATES]
        assert all_sizes(statistics) == (wanted, {GATES: gates})


@named(SMALL_ONES)
def test_the_file_says_nothing_of_the_machine(denoiser: Build, name: str, size: str) -> None:
    proto = denoiser(name, size).graph(METADATA)
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    paths = rb"/\w+/|\w:\\|site-packages|\.py\b|" + re.escape(str(Path.home()).encode())
    assert not re.search(paths, proto.SerializeToString())
    assert not any(node.doc_string for node in proto.graph.node)


@named(SMALL_ONES)
def test_equal_networks_make_equal_files(denoiser: Build, name: str, size: str) -> None:
    first, again = (
        denoiser(name, size).graph(METADATA).SerializeToString(deterministic=True) for _ in "12"
    )
    assert first == again


def test_networks_that_do_not_denoise_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"only denoisers .*met Raw2Rgb"):
        exportable(create_model("raw2rgb", "small"))


def altered(proto: onnx.ModelProto, name: str, change: Callable[[Samples], None]) -> OnnxGraph:
    """The graph with one constant changed."""
    other = copy.deepcopy(proto)
    (tensor,) = (each for each in other.graph.initializer if each.name == name)
    value: Samples = numpy_helper.to_array(tensor).copy()
    change(value)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return OnnxGraph(other)


@pytest.mark.parametrize("name", ["head.weight", "group1.block0.conv1.weight", "tail.weight"])
def test_a_wrong_weight_is_caught(tiny: Exportable, proto: onnx.ModelProto, name: str) -> None:
    def negate_one(value: Samples) -> None:
        value[0, 0, 1, 1] *= -1

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(tiny, altered(proto, name, negate_one))


@pytest.mark.parametrize("name", ["group0.conv.bias", "tail.bias", "signal_range", "signal_low"])
def test_a_wrong_constant_is_caught(tiny: Exportable, proto: onnx.ModelProto, name: str) -> None:
    def shift(value: Samples) -> None:
        value += 0.1

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(tiny, altered(proto, name, shift))


@pytest.mark.parametrize(
    "name", ["group0.block0.prelu.slope", "group0.block1.spatial.weight", "clip1"]
)
def test_wrong_attention_is_caught(pooling: Exportable, name: str) -> None:
    def lower(value: Samples) -> None:
        value -= 0.3

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(pooling, altered(pooling.graph({}), name, lower), statistics_of(pooling))


class _InAnotherOrder(OnnxGraph):
    """A statistics graph that gives one block the gates of another."""

    def __call__(self, inputs: Mapping[str, Samples]) -> Samples:
        return np.roll(super().__call__(inputs), 24, axis=1)


def test_gates_in_another_order_are_caught(pooling: Exportable) -> None:
    statistics = pooling.statistics({})
    assert statistics is not None
    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(pooling, OnnxGraph(pooling.graph({})), _InAnotherOrder(statistics))


def test_wrong_statistics_are_caught(pooling: Exportable) -> None:
    def shift(value: Samples) -> None:
        value += 0.1

    statistics = pooling.statistics({})
    assert statistics is not None
    wrong = altered(statistics, "group0.block0.excite.bias", shift)
    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(pooling, OnnxGraph(pooling.graph({})), wrong)


def test_planes_in_another_order_are_caught(tiny: Exportable, proto: onnx.ModelProto) -> None:
    def exchange(value: Samples) -> None:
        value[:, [1, 2]] = value[:, [2, 1]]

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(tiny, altered(proto, "head.weight", exchange))


def test_not_a_number_is_caught(tiny: Exportable, proto: onnx.ModelProto) -> None:
    def spoil(value: Samples) -> None:
        value[3] = np.nan

    with pytest.raises(BackendError, match="met nan apart"):
        parity(tiny, altered(proto, "tail.bias", spoil))


def test_other_operators_are_refused(proto: onnx.ModelProto) -> None:
    strange = copy.deepcopy(proto)
    strange.graph.node[-1].op_type = "Mod"
    with pytest.raises(BackendError, match=r"operators that not .*met Mod"):
        check_graph(strange)


def test_another_opset_is_refused(proto: onnx.ModelProto) -> None:
    newer = copy.deepcopy(proto)
    newer.opset_import[0].version = 18
    with pytest.raises(BackendError, match="wrong opset"):
        check_graph(newer)


def test_an_invalid_graph_is_refused(proto: onnx.ModelProto) -> None:
    broken = copy.deepcopy(proto)
    broken.graph.node[3].input[0] = "nothing"
    with pytest.raises(BackendError, match="not valid ONNX"):
        check_graph(broken)


def test_weights_outside_of_the_file_are_refused(
    proto: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where ONNX looks for it
    outside = copy.deepcopy(proto)
    tensor = next(each for each in outside.graph.initializer if each.name == "head.weight")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(BackendError, match="weights outside the file"):
        check_graph(outside)


def test_a_giant_constant_is_refused(proto: onnx.ModelProto) -> None:
    giant = copy.deepcopy(proto)
    giant.graph.initializer.append(
        numpy_helper.from_array(np.zeros(MOST_CONSTANT_BYTES // 4, np.float32), "giant")
    )
    with pytest.raises(BackendError, match=r"giant: a constant is too large .*at most 16777216"):
        check_graph(giant)


def tile(inputs: Mapping[str, Samples], cut: slice) -> dict[str, Samples]:
    """These rows and columns of what has the frame's size."""
    return {
        name: np.ascontiguousarray(array[..., cut, cut]) if array.shape[-1] > 1 else array
        for name, array in inputs.items()
    }


@named(ALL)
def test_measured_halos_hold(denoiser: Build, name: str, size: str) -> None:
    model = denoiser(name, size)
    graph = OnnxGraph(model.graph(METADATA))
    halo = measured_halo(model, graph)
    assert halo.exact == (None if model.gates else model.halo)
    assert halo.for_90_db <= halo.for_120_db <= model.halo
    assert halo.for_90_db % 2 == halo.for_120_db % 2 == 0

    side, core = 2 * model.halo + 44, slice(model.halo + 4, model.halo + 40)
    frames = dict(model.frames(np.random.default_rng(2), 1, side, side))
    inputs = model.with_gates(frames["middle"])
    whole = graph(inputs)[..., core, core]

    def agreement(context: int) -> float:
        cut = slice(core.start - context, core.stop + context)
        inner = slice(context, context + core.stop - core.start)
        return psnr(graph(tile(inputs, cut))[..., inner, inner], whole)

    # On another frame than the measured one: a decibel of grace. Without context tiles must fail.
    assert agreement(halo.for_90_db) > 89
    assert agreement(halo.for_120_db) > 119
    # Float32 alone: 2e-8 of outputs that reach 2 for golden weights in sRGB.
    assert agreement(model.halo) > 140
    assert agreement(0) < 90


class _PoolingOnItsOwn(OnnxGraph):
    """A graph in which every sample depends on the whole frame."""

    def __call__(self, inputs: Mapping[str, Samples]) -> Samples:
        return super().__call__(inputs) + np.float32(inputs[NOISY].mean())


def test_a_graph_that_pools_over_the_frame_is_caught(
    tiny: Exportable, proto: onnx.ModelProto
) -> None:
    with pytest.raises(BackendError, match="tiles do not agree with the frame"):
        measured_halo(tiny, _PoolingOnItsOwn(proto))


def test_gates_of_the_whole_frame_make_tiles_exact_and_those_of_samples_nearly(
    pooling: Exportable,
) -> None:
    graph, statistics = OnnxGraph(pooling.graph({})), statistics_of(pooling)
    assert statistics is not None
    whole, sampled = (gates_agreement(pooling, graph, statistics, step) for step in (1, 4))
    # Those of the statistics graph against torch's: float32 sums in another order.
    assert whole > 140
    assert 30 < sampled < 120
