"""A stranger's network is looked through before ONNX Runtime or TensorRT gets it."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.errors import BundleError
from cycleisp_runtime.onnx_file import MOST_CONSTANT_BYTES, check_network
from tests.networks import picture_network, pooling_networks, residual_network

if TYPE_CHECKING:
    from onnx import ModelProto

NAME = Path("net.onnx")


@pytest.fixture(name="proto")
def network() -> ModelProto:
    return residual_network()


def refused(proto: ModelProto, problem: str) -> None:
    with pytest.raises(BundleError, match=rf"net\.onnx: {problem}") as refusal:
        check_network(proto.SerializeToString(), NAME)
    assert "\n" not in str(refusal.value)


def test_networks_of_the_family_pass() -> None:
    for proto in (residual_network(), picture_network(), *pooling_networks(3)):
        check_network(proto.SerializeToString(), NAME)


@pytest.mark.parametrize("kind", ["If", "Loop", "Expand", "ConstantOfShape", "MatMul", "", "\n"])
def test_other_operators_are_refused(proto: ModelProto, kind: str) -> None:
    proto.graph.node[2].op_type = kind
    refused(proto, "an operator that no denoiser has")


def test_operators_of_other_domains_are_refused(proto: ModelProto) -> None:
    proto.graph.node[2].domain = "com.microsoft"
    refused(proto, "an operator that no denoiser has")


def test_a_second_name_does_not_hide_an_operator(proto: ModelProto) -> None:
    """Of a field that stands twice the last counts, in other readers perhaps the first."""
    node = proto.graph.node[-1].SerializeToString()
    hidden = node + b"\x22\x04Loop" + b"\x22\x03Add"
    graph = b"\x0a" + bytes([len(hidden)]) + hidden
    with pytest.raises(BundleError, match="an operator that no denoiser has"):
        check_network(proto.SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph, NAME)


def test_a_giant_constant_is_refused(proto: ModelProto) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="needs onnx to build a network")
    giant = np.zeros(MOST_CONSTANT_BYTES // 4, np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(giant, "giant"))
    refused(proto, r"a constant is too large .*wanted at most 16777216")


def test_a_sparse_constant_is_refused(proto: ModelProto) -> None:
    proto.graph.sparse_initializer.add().dims.extend([1 << 40])
    refused(proto, "a sparse constant")


def in_another_file(proto: ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.external_data.add(key="location", value="/etc/passwd")


def in_another_file_of_an_attribute(proto: ModelProto) -> None:
    attribute = proto.graph.node[0].attribute.add(name="value")
    attribute.t.external_data.add(key="location", value="/etc/passwd")


@pytest.mark.parametrize("hide", [in_another_file, in_another_file_of_an_attribute])
def test_constants_in_other_files_are_refused(
    proto: ModelProto, hide: Callable[[ModelProto], None]
) -> None:
    hide(proto)
    refused(proto, "the network refers to data outside its file")


@pytest.mark.parametrize("field", ["functions", "training_info"])
def test_functions_and_training_are_refused(proto: ModelProto, field: str) -> None:
    getattr(proto, field).add()
    refused(proto, "functions or training inside of a network")


def test_no_cut_file_is_taken_for_a_whole_one() -> None:
    content = find_bundle("tiny").model("fp32")
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(content) // 2, 100):
        with pytest.raises(BundleError, match="not an ONNX file, or a damaged one"):
            check_network(content[:length], NAME)


@given(content=st.binary(max_size=300))
def test_no_bytes_whatever_raise_another_error(content: bytes) -> None:
    with pytest.raises(BundleError):
        check_network(content, NAME)


@given(data=st.data())
def test_damage_raises_no_other_error(data: st.DataObject) -> None:
    content = bytearray(find_bundle("tiny").model("fp32"))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        check_network(bytes(content), NAME)


def test_a_claimed_length_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            check_network(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 100, NAME)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
