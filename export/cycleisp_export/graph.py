"""The ONNX graph of an edge denoiser, built node by node from its weights.

Written out rather than traced: every node has a name that says what it is, pixel-unshuffle becomes
one SpaceToDepth instead of a chain of reshapes, and no path of the exporting machine gets into the
file. Opset 17 is read by every ONNX Runtime and TensorRT that the runtime supports.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cycleisp.models.edge import MEAN_WINDOW, SIGNAL_RANGE, EdgeDenoiser
from cycleisp_runtime.bundle import TensorNames

__all__ = ["OPSET", "TENSORS", "edge_graph"]

OPSET = 17
IR_VERSION = 8
"""The IR of opset 17's release; older runtimes refuse a newer one."""

TENSORS = TensorNames(
    noisy="noisy", variance="variance", noise_scale="noise_scale", denoised="denoised"
)


class _Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        node = helper.make_node(kind, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(*each) for each in attributes.items())
        self.nodes.append(node)
        return output

    def constant(self, name: str, value: npt.NDArray[np.float32]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def conv(
        self, features: str, conv: nn.Module, name: str, order: list[int] | None = None
    ) -> str:
        """A 3x3 convolution; ``order`` picks its input channels in another order."""
        weight = conv.get_parameter("weight").detach().numpy()
        if order is not None:
            weight = np.ascontiguousarray(weight[:, order])
        inputs = [
            features,
            self.constant(f"{name}.weight", weight),
            self.constant(f"{name}.bias", conv.get_parameter("bias").detach().numpy()),
        ]
        return self.node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def edge_graph(model: EdgeDenoiser, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The network as ONNX, batch, height and width dynamic, inputs and output named by TENSORS.

    Args:
        model: the network; float32 weights on the CPU.
        metadata: written into the file for people and programs that find it alone.
    """
    graph = _Graph()
    residual = _body(graph, model, _conditioned_input(graph))
    scaled = graph.node("Mul", [residual, TENSORS.noise_scale], "residual")
    graph.node("Add", [TENSORS.noisy, scaled], TENSORS.denoised)

    frame = ("batch", 4, "height", "width")
    float32 = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(TENSORS.noisy, float32, frame),
        helper.make_tensor_value_info(TENSORS.variance, float32, frame),
        helper.make_tensor_value_info(TENSORS.noise_scale, float32, ("batch", 1, 1, 1)),
    ]
    outputs = [helper.make_tensor_value_info(TENSORS.denoised, float32, frame)]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "edge_denoiser", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cycleisp",
    )
    helper.set_model_props(proto, dict(metadata))
    return proto


def _conditioned_input(graph: _Graph) -> str:
    """Mean-free signal and deviation in units of the noise scale, at half the packed resolution."""
    mean = graph.node(
        "AveragePool",
        [TENSORS.noisy],
        "local_mean",
        kernel_shape=[MEAN_WINDOW, MEAN_WINDOW],
        pads=[MEAN_WINDOW // 2] * 4,
        count_include_pad=0,
    )
    detail = graph.node("Sub", [TENSORS.noisy, mean], "detail")
    unit = graph.node(
        "Mul",
        [TENSORS.noise_scale, graph.constant("signal_range", np.array(SIGNAL_RANGE, np.float32))],
        "signal_unit",
    )
    limits = [
        graph.constant("signal_low", np.array(-SIGNAL_RANGE, np.float32)),
        graph.constant("signal_high", np.array(SIGNAL_RANGE, np.float32)),
    ]
    signal = graph.node("Clip", [graph.node("Div", [detail, unit], "units"), *limits], "signal")
    sigma = graph.node("Sqrt", [TENSORS.variance], "sigma")
    deviation = graph.node("Div", [sigma, TENSORS.noise_scale], "deviation")
    planes = graph.node("Concat", [signal, deviation], "planes", axis=1)
    return graph.node("SpaceToDepth", [planes], "cells", blocksize=2)


def _body(graph: _Graph, model: EdgeDenoiser, cells: str) -> str:
    """Head, residual groups with a long skip, tail: the residual in units of the noise scale."""
    # SpaceToDepth counts its output channels cell position first, pixel_unshuffle plane first.
    unshuffled = [plane * 4 + position for position in range(4) for plane in range(8)]
    head = graph.conv(cells, model.head, "head", unshuffled)
    features = head
    for group_index in range(model.groups):
        group, of_group = f"group{group_index}", f"body.{group_index}.body"
        entry = features
        for block_index in range(model.blocks):
            block, of_block = f"{group}.block{block_index}", f"{of_group}.{block_index}.body"
            inner = graph.conv(features, model.get_submodule(f"{of_block}.0"), f"{block}.conv0")
            inner = graph.node("Relu", [inner], f"{block}.relu")
            inner = graph.conv(inner, model.get_submodule(f"{of_block}.2"), f"{block}.conv1")
            features = graph.node("Add", [inner, features], block)
        last = model.get_submodule(f"{of_group}.{model.blocks}")
        features = graph.node("Add", [graph.conv(features, last, f"{group}.conv"), entry], group)
    features = graph.node("Add", [features, head], "body")
    tail = graph.conv(features, model.tail, "tail")
    return graph.node("DepthToSpace", [tail], "residual_units", blocksize=2, mode="CRD")
