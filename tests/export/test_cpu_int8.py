"""INT8 for CPUs: ONNX Runtime computes every rounded convolution in integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp_calibration.set_file import CalibrationSet
from cycleisp_export.activation_steps import activation_steps
from cycleisp_export.cpu_int8 import cpu_int8_graph, rounded_tensors
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.graph import NOISE_SCALE
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph, check_graph


@pytest.fixture(name="network", scope="module")
def exportable_network(trained: EdgeDenoiser) -> Exportable:
    return exportable(trained)


@pytest.fixture(name="steps", scope="module")
def calibrated_steps(network: Exportable, calibration: CalibrationSet) -> dict[str, float]:
    proto = network.graph({})
    tensors = {tensor for pair in rounded_tensors(proto).values() for tensor in pair}
    return activation_steps(TypedGraph(proto), sorted(tensors), calibration.arrays, "percentile")


def as_executed(proto: onnx.ModelProto, folder: Path) -> list[str]:
    """Kinds of the nodes that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "executed.onnx")
    onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [node.op_type for node in onnx.load(folder / "executed.onnx").graph.node]


def test_every_convolution_is_executed_in_integers(
    network: Exportable, steps: dict[str, float], tmp_path: Path
) -> None:
    proto = network.graph({})
    layers = list(rounded_tensors(proto))
    rounded = cpu_int8_graph(proto, steps, layers)
    check_graph(rounded)
    kinds = as_executed(rounded, tmp_path)
    assert kinds.count("QLinearConv") == len(layers) == 12
    assert not {"Conv", "FusedConv", "Relu"} & set(kinds)


def test_other_convolutions_stay_as_they_are(
    network: Exportable, steps: dict[str, float], tmp_path: Path
) -> None:
    proto = network.graph({})
    layers = list(rounded_tensors(proto))[3:7]
    rounded = cpu_int8_graph(proto, steps, layers)
    check_graph(rounded)
    kinds = as_executed(rounded, tmp_path)
    assert kinds.count("QLinearConv") == 4
    assert kinds.count("Conv") + kinds.count("FusedConv") == 8
    untouched = cpu_int8_graph(proto, steps, [])
    assert untouched.SerializeToString() == proto.SerializeToString()


def test_values_behind_a_relu_use_the_whole_range(
    network: Exportable, steps: dict[str, float]
) -> None:
    proto = network.graph({})
    rounded = cpu_int8_graph(proto, steps, list(rounded_tensors(proto)))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in rounded.graph.initializer}
    for node in rounded.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        tensor, step, zero = node.input
        assert constants[zero].dtype == np.uint8
        after_relu = tensor.endswith("relu")
        assert constants[zero] == (0 if after_relu else 128)
        wanted = steps[tensor] * (127 / 255 if after_relu else 1)
        assert constants[step] == pytest.approx(wanted, rel=1e-6)
    biases = [each for each in rounded.graph.initializer if each.data_type == TensorProto.INT32]
    assert sum(each.name.endswith("bias.whole") for each in biases) == 12


def test_torch_computes_what_onnx_runtime_computes(
    network: Exportable, steps: dict[str, float]
) -> None:
    proto = network.graph({})
    exact = OnnxGraph(proto)
    rounded = cpu_int8_graph(proto, steps, list(rounded_tensors(proto)))
    for _, inputs in network.frames(np.random.default_rng(1), 1, 34, 50):
        found, scale = OnnxGraph(rounded)(inputs), inputs[NOISE_SCALE]
        apart = np.abs(found - TypedGraph(rounded)(inputs)) / scale
        moved = np.abs(found - exact(inputs)) / scale
        # A value on the border of two steps may fall on either side, and spread; rounding itself
        # moves the output much further. Discs without noise to speak of leave the calibrated range.
        assert apart.mean() < 0.3 * moved.mean()
        assert 0 < moved.mean() < 0.5


def test_srgb_networks_are_rounded_alike(tmp_path: Path) -> None:
    network = exportable(create_model("srgb_denoiser", "tiny").eval().requires_grad_(False))
    proto = network.graph({})
    tensors = rounded_tensors(proto)
    steps = {tensor: 0.05 for pair in tensors.values() for tensor in pair}
    rounded = cpu_int8_graph(proto, steps, list(tensors))
    check_graph(rounded)
    assert as_executed(rounded, tmp_path).count("QLinearConv") == len(tensors)
