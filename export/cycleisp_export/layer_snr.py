"""How far each layer of a network at a lower precision is from the same layer of FP32."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from cycleisp_export.typed_graph import TypedGraph

__all__ = ["NOT_FINITE", "LayerSnr", "first_below", "layer_snr"]

NOT_FINITE = -300.0
"""Stands for an SNR of minus infinity, which JSON lacks."""

_TYPES = {torch.float32: "fp32", torch.float16: "fp16"}


@dataclass(frozen=True)
class LayerSnr:
    """One layer's output at the lower precision.

    Attributes:
        name: of the node.
        kind: its operator.
        type: in which it computes: "fp32", "fp16", or "int8" for a convolution of rounded values.
        snr_db: 10 log10 of the energy of its FP32 output over that of the difference; None where
            there is none, NOT_FINITE where FP32 has 0 or the output holds an infinity or NaN.
    """

    name: str
    kind: str
    type: str
    snr_db: float | None


def layer_snr(
    exact: onnx.ModelProto,
    lower: onnx.ModelProto,
    tiles: Iterable[Mapping[str, npt.NDArray[np.float32]]],
) -> list[LayerSnr]:
    """The layers that both graphs have, in their order, each over all tiles together.

    Both are computed with the types that they state, so that differences of FP16 are there.

    Args:
        exact: the graph of FP32.
        lower: the same network at a lower precision; nodes that are only here, such as casts, are
            no layers.
        tiles: inputs of both graphs by name.
    """
    graph, lower_graph = TypedGraph(exact), TypedGraph(lower)
    layers = {node.output[0]: node for node in exact.graph.node}
    signal, error = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    types: dict[str, str] = {}
    for tile in tiles:
        outputs: dict[str, Tensor] = {}
        graph(tile, observe=outputs.__setitem__)

        def compare(name: str, tensor: Tensor, outputs: dict[str, Tensor] = outputs) -> None:
            if name in layers:
                types[name] = _TYPES[tensor.dtype]
                signal[name] += float(outputs[name].double().square().sum())
                error[name] += float((tensor.double() - outputs[name]).square().sum())

        lower_graph(tile, observe=compare)
    producers = {node.output[0]: node for node in lower.graph.node}
    return [
        LayerSnr(
            name=layers[output].name,
            kind=layers[output].op_type,
            type="int8" if _takes_whole(producers[output], producers) else precision,
            snr_db=_decibels(signal[output], error[output]),
        )
        for output, precision in types.items()
    ]


def first_below(layers: Sequence[LayerSnr], threshold_db: float) -> LayerSnr | None:
    """The first layer under the threshold: all that it takes is above."""
    return next(
        (layer for layer in layers if layer.snr_db is not None and layer.snr_db < threshold_db),
        None,
    )


def _takes_whole(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether it is a convolution of values that were rounded to integers."""
    source = producers.get(node.input[0])
    while source is not None and source.op_type == "Cast":
        source = producers.get(source.input[0])
    return node.op_type == "Conv" and source is not None and source.op_type == "DequantizeLinear"


def _decibels(signal: float, error: float) -> float | None:
    if not math.isfinite(error):
        return NOT_FINITE
    if error == 0:
        return None
    return round(10 * math.log10(signal / error), 2) if signal > 0 else NOT_FINITE
