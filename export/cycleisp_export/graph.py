"""The ONNX graph of an edge denoiser, built node by node from its weights.

Written out rather than traced: every node has a name that says what it is, pixel-unshuffle becomes
one SpaceToDepth instead of a chain of reshapes, and no path of the exporting machine gets into the
file. Opset 17 is read by every ONNX Runtime and TensorRT that the runtime supports.

The file itself says in which type every node computes, as strongly typed networks of TensorRT want
it. Noise normalisation and the final addition are FP32 in all of them; what lies between may be
FP16, and convolutions may take INT8 (``NumberTypes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cycleisp.models.edge import MEAN_WINDOW, SIGNAL_RANGE, EdgeDenoiser
from cycleisp_runtime.bundle import TensorNames

__all__ = [
    "DENOISED",
    "FIRST_FEATURES",
    "INT8_MOST",
    "LAST_FEATURES",
    "NOISE_SCALE",
    "NOISY",
    "OPSET",
    "TENSORS",
    "VARIANCE",
    "NumberTypes",
    "edge_graph",
]

OPSET = 17
IR_VERSION = 8
"""The IR of opset 17's release; older runtimes refuse a newer one."""

NOISY, VARIANCE, NOISE_SCALE, DENOISED = "noisy", "variance", "noise_scale", "denoised"

TENSORS = TensorNames(noisy=NOISY, denoised=DENOISED, variance=VARIANCE, noise_scale=NOISE_SCALE)

FIRST_FEATURES, LAST_FEATURES = "cells", "residual_units"
"""The first and the last of the nodes that may compute in FP16."""

INT8_MOST = 127
"""Steps on each side of zero: symmetric, as TensorRT wants it."""

_SUFFIX: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


@dataclass(frozen=True)
class NumberTypes:
    """In which type each node between the noise normalisation and the final addition computes.

    Attributes:
        half: FP16 instead of FP32.
        single: names of nodes that stay FP32 nevertheless.
        steps: quantisation step of the input of each convolution that takes INT8, by its name. Its
            weights are INT8 as well, with one step per output channel; its output is not.
    """

    half: bool = False
    single: frozenset[str] = frozenset()
    steps: Mapping[str, float] = field(default_factory=dict)


class _Graph:
    """Nodes and constants in the order in which they are added, and the type of every tensor."""

    def __init__(self, types: NumberTypes) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._types = types
        self._type_of: dict[str, int] = dict.fromkeys(
            (NOISY, VARIANCE, NOISE_SCALE), TensorProto.FLOAT
        )

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node that computes in FP32."""
        return self._typed(TensorProto.FLOAT, kind, inputs, output, **attributes)

    def feature(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node that computes in the type of the features."""
        return self._typed(self._feature_type(output), kind, inputs, output, **attributes)

    def constant(self, name: str, value: npt.NDArray[np.float32 | np.float16 | np.int8]) -> str:
        tensor = numpy_helper.from_array(value, name)
        self.constants.append(tensor)
        self._type_of[name] = tensor.data_type
        return name

    def conv(
        self, features: str, conv: nn.Module, name: str, order: list[int] | None = None
    ) -> str:
        """A 3x3 convolution; ``order`` picks its input channels in another order."""
        weight = conv.get_parameter("weight").detach().numpy()
        if order is not None:
            weight = np.ascontiguousarray(weight[:, order])
        half = self._feature_type(name) == TensorProto.FLOAT16
        step = self._types.steps.get(name)
        if step is not None:
            features = self._quantised(features, f"{name}.input", step)
            weights = self._quantised_weight(weight, f"{name}.weight")
        else:
            weights = self.constant(f"{name}.weight", weight.astype(np.float16) if half else weight)
        bias = conv.get_parameter("bias").detach().numpy()
        inputs = [
            features,
            weights,
            self.constant(f"{name}.bias", bias.astype(np.float16) if half else bias),
        ]
        return self.feature("Conv", inputs, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def _feature_type(self, name: str) -> int:
        half = self._types.half and name not in self._types.single
        return TensorProto.FLOAT16 if half else TensorProto.FLOAT

    def _typed(
        self, wanted: int, kind: str, inputs: list[str], output: str, **attributes: object
    ) -> str:
        taken = [self._cast(tensor, wanted) for tensor in inputs]
        return self._plain(wanted, kind, taken, output, **attributes)

    def _cast(self, tensor: str, wanted: int) -> str:
        if self._type_of[tensor] == wanted:
            return tensor
        name = f"{tensor}.{_SUFFIX[wanted]}"
        return (
            name
            if name in self._type_of
            else self._plain(wanted, "Cast", [tensor], name, to=wanted)
        )

    def _plain(
        self, produced: int, kind: str, inputs: list[str], output: str, **attributes: object
    ) -> str:
        node = helper.make_node(kind, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(*each) for each in attributes.items())
        self.nodes.append(node)
        self._type_of[output] = produced
        return output

    def _quantised(self, tensor: str, name: str, step: float) -> str:
        """The tensor, rounded to INT8; steps are FP32, which every TensorRT takes."""
        scale = self.constant(f"{name}.step", np.array(step, np.float32))
        zero = self.constant(f"{name}.zero", np.array(0, np.int8))
        inputs = [self._cast(tensor, TensorProto.FLOAT), scale, zero]
        whole = self._plain(TensorProto.INT8, "QuantizeLinear", inputs, f"{name}.int8")
        return self._plain(TensorProto.FLOAT, "DequantizeLinear", [whole, scale, zero], name)

    def _quantised_weight(self, weight: npt.NDArray[np.float32], name: str) -> str:
        largest = np.abs(weight).max(axis=(1, 2, 3))
        steps = np.where(largest > 0, largest / INT8_MOST, 1).astype(np.float32)
        whole = np.rint(weight / steps[:, None, None, None]).astype(np.int8)
        inputs = [
            self.constant(f"{name}.int8", whole),
            self.constant(f"{name}.steps", steps),
            self.constant(f"{name}.zeros", np.zeros(len(steps), np.int8)),
        ]
        return self._plain(TensorProto.FLOAT, "DequantizeLinear", inputs, name, axis=0)


def edge_graph(
    model: EdgeDenoiser, metadata: Mapping[str, str], types: NumberTypes | None = None
) -> onnx.ModelProto:
    """The network as ONNX, batch, height and width dynamic, inputs and output named by TENSORS.

    Args:
        model: the network; float32 weights on the CPU.
        metadata: written into the file for people and programs that find it alone.
        types: what is not FP32; None for nothing. Inputs and output are FP32 in any case.
    """
    graph = _Graph(types or NumberTypes())
    residual = _body(graph, model, _conditioned_input(graph))
    scaled = graph.node("Mul", [residual, NOISE_SCALE], "residual")
    graph.node("Add", [NOISY, scaled], DENOISED)

    frame = ("batch", 4, "height", "width")
    float32 = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(NOISY, float32, frame),
        helper.make_tensor_value_info(VARIANCE, float32, frame),
        helper.make_tensor_value_info(NOISE_SCALE, float32, ("batch", 1, 1, 1)),
    ]
    outputs = [helper.make_tensor_value_info(DENOISED, float32, frame)]
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
        [NOISY],
        "local_mean",
        kernel_shape=[MEAN_WINDOW, MEAN_WINDOW],
        pads=[MEAN_WINDOW // 2] * 4,
        count_include_pad=0,
    )
    detail = graph.node("Sub", [NOISY, mean], "detail")
    unit = graph.node(
        "Mul",
        [NOISE_SCALE, graph.constant("signal_range", np.array(SIGNAL_RANGE, np.float32))],
        "signal_unit",
    )
    limits = [
        graph.constant("signal_low", np.array(-SIGNAL_RANGE, np.float32)),
        graph.constant("signal_high", np.array(SIGNAL_RANGE, np.float32)),
    ]
    signal = graph.node("Clip", [graph.node("Div", [detail, unit], "units"), *limits], "signal")
    sigma = graph.node("Sqrt", [VARIANCE], "sigma")
    deviation = graph.node("Div", [sigma, NOISE_SCALE], "deviation")
    planes = graph.node("Concat", [signal, deviation], "planes", axis=1)
    return graph.feature("SpaceToDepth", [planes], FIRST_FEATURES, blocksize=2)


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
            inner = graph.feature("Relu", [inner], f"{block}.relu")
            inner = graph.conv(inner, model.get_submodule(f"{of_block}.2"), f"{block}.conv1")
            features = graph.feature("Add", [inner, features], block)
        last = model.get_submodule(f"{of_group}.{model.blocks}")
        features = graph.feature("Add", [graph.conv(features, last, f"{group}.conv"), entry], group)
    features = graph.feature("Add", [features, head], "body")
    tail = graph.conv(features, model.tail, "tail")
    return graph.feature("DepthToSpace", [tail], LAST_FEATURES, blocksize=2, mode="CRD")
