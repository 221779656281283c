"""ONNX graphs, written node by node from a network's weights.

Written out rather than traced: every node has a name that says what it is, pixel-unshuffle becomes
one SpaceToDepth instead of a chain of reshapes, and no path of the exporting machine gets into the
file. Opset 17 is read by every ONNX Runtime and TensorRT that the runtime supports.

The file itself says in which type every node computes, as strongly typed networks of TensorRT want
it. What is brought to the network's units and the final addition are FP32 in all of them; what lies
between, the features, may be FP16, and convolutions may take INT8 (``NumberTypes``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cycleisp_runtime.bundle import TensorNames

__all__ = [
    "DENOISED",
    "GATES",
    "INT8_MOST",
    "NOISE_SCALE",
    "NOISY",
    "OPSET",
    "TENSORS",
    "VARIANCE",
    "Graph",
    "NumberTypes",
    "rounded_weight",
]

OPSET = 17
IR_VERSION = 8
"""The IR of opset 17's release; older runtimes refuse a newer one."""

NOISY, VARIANCE, NOISE_SCALE, DENOISED = "noisy", "variance", "noise_scale", "denoised"
GATES = "gates"

TENSORS = TensorNames(noisy=NOISY, denoised=DENOISED, variance=VARIANCE, noise_scale=NOISE_SCALE)
"""Of the RAW edge denoisers."""

INT8_MOST = 127
"""Steps on each side of zero: symmetric, as TensorRT wants it."""

_SUFFIX: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


@dataclass(frozen=True)
class NumberTypes:
    """In which type each of a network's features is computed.

    Attributes:
        half: FP16 instead of FP32.
        single: names of nodes that stay FP32 nevertheless.
        steps: quantisation step of the input of each convolution that takes INT8, by its name. Its
            weights are INT8 as well, with one step per output channel; its output is not.
    """

    half: bool = False
    single: frozenset[str] = frozenset()
    steps: Mapping[str, float] = field(default_factory=dict)


class Graph:
    """Nodes and constants in the order in which they are added, and the type of every tensor.

    Args:
        types: what is not FP32. Inputs and output are FP32 in any case.
        inputs: shape of every input by its name; batch, height and width are words.
    """

    def __init__(self, types: NumberTypes, inputs: Mapping[str, Sequence[int | str]]) -> None:
        self._types, self._inputs = types, inputs
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._type_of: dict[str, int] = dict.fromkeys(inputs, TensorProto.FLOAT)

    def model(
        self, name: str, output: str, shape: Sequence[int | str], metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """A file's content: all that the output depends on.

        Args:
            name: of the graph.
            output: the tensor that it puts out, FP32.
            shape: of the output.
            metadata: written into the file for people and programs that find it alone.
        """
        inputs = [
            helper.make_tensor_value_info(each, TensorProto.FLOAT, sizes)
            for each, sizes in self._inputs.items()
        ]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        needed = {output}
        nodes: list[onnx.NodeProto] = []
        for node in reversed(self._nodes):
            if node.output[0] in needed:
                needed.update(node.input)
                nodes.insert(0, node)
        constants = [each for each in self._constants if each.name in needed]
        proto = helper.make_model(
            helper.make_graph(nodes, name, inputs, outputs, constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cycleisp",
        )
        helper.set_model_props(proto, dict(metadata))
        return proto

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node that computes in FP32."""
        return self._typed(TensorProto.FLOAT, kind, inputs, output, **attributes)

    def feature(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node that computes in the type of the features."""
        return self._typed(self._feature_type(output), kind, inputs, output, **attributes)

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """A constant of the type that the array has."""
        tensor = numpy_helper.from_array(value, name)
        self._constants.append(tensor)
        self._type_of[name] = tensor.data_type
        return name

    def conv(
        self, features: str, conv: nn.Module, name: str, order: list[int] | None = None
    ) -> str:
        """A convolution that keeps the size; ``order`` is that of its input channels."""
        weight = conv.get_parameter("weight").detach().numpy()
        if order is not None:
            weight = np.ascontiguousarray(weight[:, order])
        step = self._types.steps.get(name)
        if step is not None:
            features = self._quantised(features, f"{name}.input", step)
            weights = self._quantised_weight(weight, f"{name}.weight")
        else:
            weights = self._number(f"{name}.weight", weight, name)
        inputs = [features, weights]
        if conv.bias is not None:
            bias = conv.get_parameter("bias").detach().numpy()
            inputs.append(self._number(f"{name}.bias", bias, name))
        side = weight.shape[-1]
        return self.feature("Conv", inputs, name, kernel_shape=[side, side], pads=[side // 2] * 4)

    def prelu(self, features: str, prelu: nn.Module, name: str) -> str:
        """The input where it is positive, elsewhere times a slope per channel."""
        slope = prelu.get_parameter("weight").detach().numpy()[:, None, None]
        inputs = [features, self._number(f"{name}.slope", slope, name)]
        return self.feature("PRelu", inputs, name)

    def channels(self, tensor: str, first: int, stop: int, output: str) -> str:
        """A tensor's channels from ``first`` up to ``stop``, in its own type."""
        bounds = [
            self.constant(f"{output}.{name}", np.array([value], np.int64))
            for name, value in (("first", first), ("stop", stop), ("axis", 1))
        ]
        return self._plain(self._type_of[tensor], "Slice", [tensor, *bounds], output)

    def _number(self, name: str, value: npt.NDArray[np.float32], of: str) -> str:
        """A constant in the type that the node ``of`` computes in."""
        half = self._feature_type(of) == TensorProto.FLOAT16
        return self.constant(name, value.astype(np.float16) if half else value)

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
        self._nodes.append(node)
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
        whole, steps = rounded_weight(weight)
        inputs = [
            self.constant(f"{name}.int8", whole),
            self.constant(f"{name}.steps", steps),
            self.constant(f"{name}.zeros", np.zeros(len(steps), np.int8)),
        ]
        return self._plain(TensorProto.FLOAT, "DequantizeLinear", inputs, name, axis=0)


def rounded_weight(
    weight: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A convolution's weight (O, I, h, w) in INT8, and the step of each output channel."""
    largest = np.abs(weight).max(axis=(1, 2, 3))
    steps = np.where(largest > 0, largest / INT8_MOST, 1).astype(np.float32)
    return np.rint(weight / steps[:, None, None, None]).astype(np.int8), steps
