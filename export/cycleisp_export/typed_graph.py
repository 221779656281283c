"""An exported graph in torch, computed with exactly the types that the file states.

ONNX Runtime computes FP16 graphs in FP32 on most CPUs, which proves nothing about FP16. Here every
value of an FP16 tensor is rounded to FP16. Convolutions multiply FP16 and add up in FP32, as tensor
cores do, and round once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from cycleisp_export.graph import DENOISED

__all__ = ["TypedGraph"]

_DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16}


class TypedGraph:
    """An exported graph in torch, called like ``OnnxGraph``."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._nodes = [_Node(node) for node in proto.graph.node]
        self._constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in proto.graph.initializer
        }

    def __call__(
        self,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        observe: Callable[[str, Tensor], None] = lambda _name, _tensor: None,
    ) -> npt.NDArray[np.float32]:
        """Denoised (N, C, h, w) from the graph's inputs by name.

        Args:
            inputs: as the graph declares them.
            observe: called with the name and the value of every tensor that a node puts out.
        """
        tensors = {
            **self._constants,
            **{name: torch.tensor(array) for name, array in inputs.items()},
        }
        with torch.inference_mode():
            for node in self._nodes:
                tensors[node.output] = node.compute([tensors[name] for name in node.inputs])
                observe(node.output, tensors[node.output])
        output: npt.NDArray[np.float32] = tensors[DENOISED].numpy()
        return output


class _Node:
    """One node: which tensors it takes and gives, and its arithmetic."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.inputs = list(node.input)
        self.output = node.output[0]
        self._kind = node.op_type
        self._attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}

    def compute(self, inputs: list[Tensor]) -> Tensor:
        if self._kind in _ELEMENTWISE:
            return _ELEMENTWISE[self._kind](*inputs)
        match self._kind:
            case "Conv":
                features, weight, *bias = (each.float() for each in inputs)
                padding: int = self._attributes["pads"][0]
                convolved = functional.conv2d(
                    features, weight, bias[0] if bias else None, padding=padding
                )
                return convolved.to(inputs[0].dtype)
            case "Cast":
                return inputs[0].to(_DTYPES[self._attributes["to"]])
            case "Concat":
                return torch.cat(inputs, self._attributes["axis"])
            case "AveragePool":
                (window, _), padding = self._attributes["kernel_shape"], self._attributes["pads"][0]
                return functional.avg_pool2d(inputs[0], window, 1, padding, count_include_pad=False)
            case "SpaceToDepth":
                return _space_to_depth(inputs[0], self._attributes["blocksize"])
            case "DepthToSpace":
                return functional.pixel_shuffle(inputs[0], self._attributes["blocksize"])
            case "ReduceMax" | "ReduceMean":
                reduced = torch.amax if self._kind == "ReduceMax" else torch.mean
                return reduced(inputs[0], self._attributes["axes"], keepdim=True)
            case "Slice":
                features, first, stop, axis = inputs
                return features.narrow(int(axis), int(first), int(stop - first))
        raise NotImplementedError(self._kind)


def _space_to_depth(planes: Tensor, side: int) -> Tensor:
    """ONNX counts output channels cell position first, pixel_unshuffle of torch plane first."""
    batch, channels, height, width = planes.shape
    cells = functional.pixel_unshuffle(planes, side).view(batch, channels, side * side, -1)
    return cells.transpose(1, 2).reshape(batch, -1, height // side, width // side)


def _quantize(values: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    """Whole numbers of the type of ``zero``, which stands for 0."""
    limits = torch.iinfo(zero.dtype)
    return torch.clamp(torch.round(values / step) + zero, limits.min, limits.max).to(zero.dtype)


def _dequantize(whole: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    """``step`` and ``zero`` are one number each, or one per slice of the first axis."""
    across = (-1, *(1,) * (whole.dim() - 1))
    return (whole.float() - zero.view(across)) * step.view(across)


def _prelu(values: Tensor, slope: Tensor) -> Tensor:
    return torch.where(values > 0, values, values * slope)


_ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Sqrt": torch.sqrt,
    "Relu": torch.relu,
    "PRelu": _prelu,
    "Sigmoid": torch.sigmoid,
    "Clip": torch.clamp,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
