"""The ONNX graph computes what the network computes, and says nothing of where it was made."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from cycleisp.evaluation.metrics import psnr
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_export.graph import DENOISED, NOISE_SCALE, NOISY, VARIANCE, edge_graph
from cycleisp_export.verify import (
    ALLOWED_OPERATORS,
    OnnxGraph,
    check_graph,
    dead_leaves,
    measured_halo,
    parity,
)
from cycleisp_runtime.errors import BackendError

Network = Callable[[str], EdgeDenoiser]
Samples = npt.NDArray[np.float32]

METADATA = {"model": "cycleisp test", "license": "Apache-2.0"}

SIZES = pytest.mark.parametrize("size", ["tiny", "edge"])


@pytest.fixture(name="tiny", scope="module")
def tiny_graph(network: Network) -> onnx.ModelProto:
    return edge_graph(network("tiny"), METADATA)


@SIZES
def test_the_graph_computes_what_the_network_computes(network: Network, size: str) -> None:
    model = network(size)
    # Float32 sums in another order; the tolerance for trained networks is 1e-3 of the noise.
    assert parity(model, OnnxGraph(edge_graph(model, METADATA))) < 1e-4


@SIZES
def test_the_graph_is_plain_onnx(network: Network, size: str) -> None:
    proto = edge_graph(network(size), METADATA)
    check_graph(proto)
    of_lower_precisions = {"Cast", "DequantizeLinear", "QuantizeLinear"}
    assert {node.op_type for node in proto.graph.node} == ALLOWED_OPERATORS - of_lower_precisions
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 17)]
    assert proto.ir_version == 8
    assert {entry.key: entry.value for entry in proto.metadata_props} == METADATA
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)


def test_tensors_are_named_and_sized_as_the_bundle_says(tiny: onnx.ModelProto) -> None:
    def sizes(value: onnx.ValueInfoProto) -> list[int | str]:
        return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]

    frame = ["batch", 4, "height", "width"]
    assert {value.name: sizes(value) for value in tiny.graph.input} == {
        NOISY: frame,
        VARIANCE: frame,
        NOISE_SCALE: ["batch", 1, 1, 1],
    }
    assert {value.name: sizes(value) for value in tiny.graph.output} == {DENOISED: frame}


def test_the_file_says_nothing_of_the_machine(tiny: onnx.ModelProto) -> None:
    words = copy.deepcopy(tiny)
    for tensor in words.graph.initializer:
        tensor.ClearField("raw_data")
    paths = rb"/\w+/|\w:\\|site-packages|\.py\b|" + re.escape(str(Path.home()).encode())
    assert not re.search(paths, words.SerializeToString())
    assert not any(node.doc_string for node in tiny.graph.node)


def test_equal_networks_make_equal_files(network: Network, tiny: onnx.ModelProto) -> None:
    again = edge_graph(network("tiny"), METADATA)
    assert again.SerializeToString(deterministic=True) == tiny.SerializeToString(deterministic=True)


def altered(proto: onnx.ModelProto, name: str, change: Callable[[Samples], None]) -> OnnxGraph:
    """The graph with one constant changed."""
    other = copy.deepcopy(proto)
    (tensor,) = (each for each in other.graph.initializer if each.name == name)
    value: Samples = numpy_helper.to_array(tensor).copy()
    change(value)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return OnnxGraph(other)


@pytest.mark.parametrize("name", ["head.weight", "group1.block0.conv1.weight", "tail.weight"])
def test_a_wrong_weight_is_caught(network: Network, tiny: onnx.ModelProto, name: str) -> None:
    def negate_one(value: Samples) -> None:
        value[0, 0, 1, 1] *= -1

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(network("tiny"), altered(tiny, name, negate_one))


@pytest.mark.parametrize("name", ["group0.conv.bias", "tail.bias", "signal_range", "signal_low"])
def test_a_wrong_constant_is_caught(network: Network, tiny: onnx.ModelProto, name: str) -> None:
    def shift(value: Samples) -> None:
        value += 0.1

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(network("tiny"), altered(tiny, name, shift))


def test_planes_in_another_order_are_caught(network: Network, tiny: onnx.ModelProto) -> None:
    def exchange(value: Samples) -> None:
        value[:, [1, 2]] = value[:, [2, 1]]

    with pytest.raises(BackendError, match="does not compute what the network computes"):
        parity(network("tiny"), altered(tiny, "head.weight", exchange))


def test_not_a_number_is_caught(network: Network, tiny: onnx.ModelProto) -> None:
    def spoil(value: Samples) -> None:
        value[3] = np.nan

    with pytest.raises(BackendError, match="met nan noise scales apart"):
        parity(network("tiny"), altered(tiny, "tail.bias", spoil))


def test_other_operators_are_refused(tiny: onnx.ModelProto) -> None:
    strange = copy.deepcopy(tiny)
    strange.graph.node[-1].op_type = "PRelu"
    with pytest.raises(BackendError, match="PRelu"):
        check_graph(strange)


def test_another_opset_is_refused(tiny: onnx.ModelProto) -> None:
    newer = copy.deepcopy(tiny)
    newer.opset_import[0].version = 18
    with pytest.raises(BackendError, match="wrong opset"):
        check_graph(newer)


def test_an_invalid_graph_is_refused(tiny: onnx.ModelProto) -> None:
    broken = copy.deepcopy(tiny)
    broken.graph.node[3].input[0] = "nothing"
    with pytest.raises(BackendError, match="not valid ONNX"):
        check_graph(broken)


@SIZES
def test_measured_halos_hold(network: Network, size: str) -> None:
    model = network(size)
    graph = OnnxGraph(edge_graph(model, METADATA))
    halo = measured_halo(model, graph)
    assert halo.exact == model.halo
    assert halo.for_90_db <= halo.for_120_db <= halo.exact
    assert halo.for_90_db % 2 == halo.for_120_db % 2 == 0

    side, core = 2 * model.halo + 44, slice(model.halo + 4, model.halo + 40)
    rng = np.random.default_rng(2)
    shot, read = LEVELS["middle"]
    noisy = noisy_samples(dead_leaves(rng, side, side)[None], shot, read, rng)
    variance = variance_map(noisy, shot, read)
    scale = np.sqrt(variance.mean(keepdims=True))
    whole = graph(noisy, variance, scale)[..., core, core]

    def agreement(context: int) -> float:
        cut = (..., *(slice(core.start - context, core.stop + context),) * 2)
        inner = (..., *(slice(context, context + core.stop - core.start),) * 2)
        tile = graph(np.ascontiguousarray(noisy[cut]), np.ascontiguousarray(variance[cut]), scale)
        return psnr(tile[inner], whole)

    # On another frame than the measured one: a decibel of grace. Without context tiles must fail.
    assert agreement(halo.for_90_db) > 89
    assert agreement(halo.for_120_db) > 119
    assert agreement(model.halo) > 150
    assert agreement(0) < 90


class _Pooling(OnnxGraph):
    """A graph in which every sample depends on the whole frame."""

    def __call__(self, noisy: Samples, variance: Samples, noise_scale: Samples) -> Samples:
        return super().__call__(noisy, variance, noise_scale) + np.float32(noisy.mean())


def test_a_graph_that_pools_over_the_frame_is_caught(
    network: Network, tiny: onnx.ModelProto
) -> None:
    with pytest.raises(BackendError, match="tiles do not agree with the frame"):
        measured_halo(network("tiny"), _Pooling(tiny))
