"""The ONNX graphs of the denoisers with dual attention, which pools over the frame.

Two graphs of the same weights. One, the statistics, ends at the last pool and puts out what channel
attention multiplies with: the gates of all blocks, one after the other. The other, the network,
takes them as an input, so that all tiles of a frame share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx

from cycleisp.models.attention import DualAttentionBlock, RecursiveResidualGroup
from cycleisp.models.denoisers import RawDenoiser, SrgbDenoiser
from cycleisp_export.graph import DENOISED, GATES, NOISY, VARIANCE, Graph, NumberTypes

__all__ = [
    "ATTENTION_FEATURES",
    "AttentionDenoiser",
    "attention_blocks",
    "attention_graph",
    "count_gates",
    "statistics_graph",
]

AttentionDenoiser: TypeAlias = RawDenoiser | SrgbDenoiser

ATTENTION_FEATURES = ("head", "tail")
"""The first and the last of the nodes that may compute in FP16."""

_Gate: TypeAlias = Callable[[str, str, DualAttentionBlock], str]
"""From features, the name of a block and the block to the tensor that scales its channels."""


def attention_graph(
    model: AttentionDenoiser, metadata: Mapping[str, str], types: NumberTypes | None = None
) -> onnx.ModelProto:
    """The network as ONNX, batch, height and width dynamic, with the gates as an input.

    Inputs NOISY (N, C, h, w), for RAW VARIANCE as well, and GATES (N, G, 1, 1); output DENOISED.
    RAW is clipped to [0, 1] first, as ``cycleisp.models.denoisers.denoise_raw`` does.

    Args:
        model: the network; float32 weights on the CPU.
        metadata: written into the file for people and programs that find it alone.
        types: what is not FP32; None for nothing. Inputs and output are FP32 in any case.
    """
    types = types or NumberTypes()
    # FP16 ends at 6e-8, within the range of a RAW frame's variance.
    types = replace(types, single=types.single | {"head"})
    frames = _frames(model)
    graph = Graph(types, {**frames, GATES: ("batch", count_gates(model), 1, 1)})
    taken = 0

    def gate(_features: str, name: str, block: DualAttentionBlock) -> str:
        nonlocal taken
        first, taken = taken, taken + _width(block)
        return graph.channels(GATES, first, taken, f"{name}.gates")

    _denoise(graph, model, gate)
    return graph.model("denoiser", DENOISED, frames[NOISY], metadata)


def statistics_graph(model: AttentionDenoiser, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The same network up to its last pool, in FP32: its output is GATES (N, G, 1, 1).

    It takes what ``attention_graph`` takes except for the gates: a whole frame, or every n-th
    sample of one.
    """
    frames = _frames(model)
    graph = Graph(NumberTypes(), frames)
    gates: list[str] = []

    def gate(features: str, name: str, block: DualAttentionBlock) -> str:
        first, last = (block.CA.conv_du.get_submodule(index) for index in "02")
        mean = graph.node("GlobalAveragePool", [features], f"{name}.mean")
        inner = graph.node("Relu", [graph.conv(mean, first, f"{name}.squeeze")], f"{name}.relu")
        excited = graph.conv(inner, last, f"{name}.excite")
        gates.append(graph.node("Sigmoid", [excited], f"{name}.gates"))
        return gates[-1]

    _denoise(graph, model, gate)
    graph.node("Concat", gates, GATES, axis=1)
    return graph.model("statistics", GATES, ("batch", count_gates(model), 1, 1), metadata)


def count_gates(model: AttentionDenoiser) -> int:
    """Length of the vector of gates: the channels of all blocks together."""
    return sum(_width(block) for block in attention_blocks(model).values())


def attention_blocks(model: AttentionDenoiser) -> dict[str, DualAttentionBlock]:
    """The blocks in the order of the gates, by the names that they have in the graph."""
    return {
        f"group{number}.block{index}": block
        for number, group in enumerate(_groups(model))
        for index, block in enumerate(group.body)
        if isinstance(block, DualAttentionBlock)
    }


def _groups(model: AttentionDenoiser) -> list[RecursiveResidualGroup]:
    return [group for group in model.body if isinstance(group, RecursiveResidualGroup)]


def _width(block: DualAttentionBlock) -> int:
    return block.conv1x1.out_channels


def _frames(model: AttentionDenoiser) -> dict[str, tuple[int | str, ...]]:
    """Shapes of the inputs that have the frame's size."""
    raw = isinstance(model, RawDenoiser)
    shape = ("batch", 4 if raw else 3, "height", "width")
    return dict.fromkeys((NOISY, VARIANCE) if raw else (NOISY,), shape)


def _denoise(graph: Graph, model: AttentionDenoiser, gate: _Gate) -> None:
    """All nodes from the samples to DENOISED."""
    noisy = planes = NOISY
    if isinstance(model, RawDenoiser):
        bounds = [graph.constant(f"clip{end}", np.array(end, np.float32)) for end in (0, 1)]
        noisy = graph.node("Clip", [NOISY, *bounds], "clipped")
        planes = graph.node("Concat", [noisy, VARIANCE], "planes", axis=1)
    features = graph.conv(planes, model.head.get_submodule("0"), "head")
    blocks = attention_blocks(model)
    for number, group in enumerate(_groups(model)):
        entry = features
        for index in range(len(group.body) - 1):
            name = f"group{number}.block{index}"
            features = _block(graph, features, name, blocks[name], gate)
        last = graph.conv(features, group.body[-1], f"group{number}.conv")
        features = graph.feature("Add", [last, entry], f"group{number}")
    features = graph.conv(features, model.body[-2], "body")
    features = graph.prelu(features, model.body[-1], "activation")
    correction = graph.conv(features, model.tail.get_submodule("0"), "tail")
    graph.node("Add", [correction, noisy], DENOISED)


def _block(graph: Graph, features: str, name: str, block: DualAttentionBlock, gate: _Gate) -> str:
    """Two convolutions, both attentions side by side, a 1x1 convolution, plus the input."""
    inner = graph.conv(features, block.body[0], f"{name}.conv0")
    inner = graph.prelu(inner, block.body[1], f"{name}.prelu")
    inner = graph.conv(inner, block.body[2], f"{name}.conv1")
    extremes = [
        graph.feature(kind, [inner], f"{name}.{what}", axes=[1], keepdims=1)
        for kind, what in (("ReduceMax", "largest"), ("ReduceMean", "average"))
    ]
    pooled = graph.feature("Concat", extremes, f"{name}.pooled", axis=1)
    spatial = graph.conv(pooled, block.SA.spatial.conv, f"{name}.spatial")
    map_ = graph.feature("Sigmoid", [spatial], f"{name}.map")
    attended = [
        graph.feature("Mul", [inner, map_], f"{name}.by_place"),
        graph.feature("Mul", [inner, gate(inner, name, block)], f"{name}.by_channel"),
    ]
    both = graph.feature("Concat", attended, f"{name}.attended", axis=1)
    return graph.feature("Add", [graph.conv(both, block.conv1x1, f"{name}.conv2"), features], name)
