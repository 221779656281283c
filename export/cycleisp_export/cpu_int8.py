"""INT8 as ONNX Runtime computes it fast on a CPU: a graph of FP32, convolutions rounded all around.

Its integer kernels take unsigned activations with signed weights, and only where a convolution's
output is rounded as well does it become one of them (QLinearConv). A ReLU behind it folds into the
rounding, where zero is the lowest value. TensorRT takes no unsigned values, and the INT8 that it
takes is slower than FP32 on a CPU: hence two files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from cycleisp_export.graph import INT8_MOST, rounded_weight

__all__ = ["cpu_int8_graph", "rounded_tensors"]

_UINT8_MOST = 255
_MIDDLE = 128


def rounded_tensors(proto: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """What every convolution of a graph takes and gives, behind its ReLU, by the layer's name."""
    relus = _relus(proto)
    return {
        node.name: (node.input[0], relus.get(node.output[0], node.output[0]))
        for node in proto.graph.node
        if node.op_type == "Conv"
    }


def cpu_int8_graph(
    proto: onnx.ModelProto, steps: Mapping[str, float], layers: Collection[str]
) -> onnx.ModelProto:
    """The graph with some of its convolutions in INT8.

    Args:
        proto: of FP32.
        steps: of the tensors that ``rounded_tensors`` names, of symmetric INT8. Behind a ReLU half
            of it is unused, so that the same range has steps half as far apart here.
        layers: names of the convolutions.
    """
    tensors = {name: each for name, each in rounded_tensors(proto).items() if name in layers}
    given = {output for _, output in tensors.values()}
    rewriting = _Rewriting(proto, steps)
    for node in proto.graph.node:
        if node.name in tensors:
            rewriting.round_layer(node, tensors[node.name][0])
        else:
            rewriting.keep(node)
        if node.output[0] in given:
            rewriting.round_for_all(node.output[0])
    return rewriting.model()


def _relus(proto: onnx.ModelProto) -> dict[str, str]:
    """Outputs of ReLUs by their input, where nothing else reads that."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {
        name: nodes[0].output[0]
        for name, nodes in readers.items()
        if len(nodes) == 1 and nodes[0].op_type == "Relu"
    }


class _Rewriting:
    """The nodes of a graph, copied one after the other with roundings in between."""

    def __init__(self, proto: onnx.ModelProto, steps: Mapping[str, float]) -> None:
        self._proto, self._steps = proto, steps
        self._unsigned = set(_relus(proto).values())
        self._values = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
        self._constants = {each.name: each for each in proto.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._rounded: dict[str, str] = {}
        self._read_instead: dict[str, str] = {}

    def keep(self, node: onnx.NodeProto) -> None:
        """The node as it is."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [self._read_instead.get(name, name) for name in node.input]
        self._nodes.append(copied)

    def round_layer(self, node: onnx.NodeProto, features: str) -> None:
        """The convolution on rounded features, with rounded weights and biases."""
        _, weight, *bias = node.input
        whole, steps = rounded_weight(self._values[weight])
        inputs = [self._round(features), self._whole(weight, whole, steps)]
        if bias:
            # Integer kernels add the bias in units of a product.
            units = (self._step(features) * steps).astype(np.float32)
            counts = np.rint(self._values[bias[0]] / units).astype(np.int32)
            inputs.append(self._whole(bias[0], counts, units))
        self.keep(node)
        self._nodes[-1].input[:] = inputs

    def round_for_all(self, tensor: str) -> None:
        """What reads this tensor from here on reads it rounded."""
        self._read_instead[tensor] = self._round(tensor)

    def model(self) -> onnx.ModelProto:
        """The file's content, without the constants that nothing reads."""
        needed = {name for node in self._nodes for name in node.input}
        constants = [each for name, each in self._constants.items() if name in needed]
        model = onnx.ModelProto()
        model.CopyFrom(self._proto)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self._nodes)
        model.graph.initializer.extend(constants)
        return model

    def _step(self, tensor: str) -> np.float32:
        step = self._steps[tensor]
        return np.float32(step * INT8_MOST / _UINT8_MOST if tensor in self._unsigned else step)

    def _round(self, tensor: str) -> str:
        if tensor not in self._rounded:
            zero = np.array(0 if tensor in self._unsigned else _MIDDLE, np.uint8)
            scale = [
                self._constant(f"{tensor}.step", np.array(self._step(tensor))),
                self._constant(f"{tensor}.zero", zero),
            ]
            whole = self._node("QuantizeLinear", [tensor, *scale], f"{tensor}.uint8")
            self._rounded[tensor] = self._node(
                "DequantizeLinear", [whole, *scale], f"{tensor}.rounded"
            )
        return self._rounded[tensor]

    def _whole(
        self, name: str, whole: npt.NDArray[np.int8 | np.int32], steps: npt.NDArray[np.float32]
    ) -> str:
        """A constant of integers as the real numbers that they stand for."""
        inputs = [
            self._constant(f"{name}.whole", whole),
            self._constant(f"{name}.steps", steps),
            self._constant(f"{name}.zeros", np.zeros(len(steps), whole.dtype)),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}.rounded", axis=0)

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        node = helper.make_node(kind, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(*each) for each in attributes.items())
        self._nodes.append(node)
        return output
