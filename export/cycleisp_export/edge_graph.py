"""The ONNX graphs of the edge denoisers: one body, before it what each brings the samples to.

RAW     noisy, variance, noise_scale  ->  detail and deviation in units of the noise  ->  body
sRGB    noisy                         ->  detail, amplified, and local mean           ->  body
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from cycleisp.models.edge import (
    DETAIL_GAIN,
    MEAN_WINDOW,
    SIGNAL_RANGE,
    EdgeDenoiser,
    SrgbEdgeDenoiser,
)
from cycleisp_export.graph import DENOISED, NOISE_SCALE, NOISY, VARIANCE, Graph, NumberTypes

__all__ = ["EDGE_FEATURES", "edge_graph", "srgb_edge_graph"]

EDGE_FEATURES = ("cells", "residual_units")
"""The first and the last of the nodes that may compute in FP16."""


def edge_graph(
    model: EdgeDenoiser, metadata: Mapping[str, str], types: NumberTypes | None = None
) -> onnx.ModelProto:
    """The RAW network as ONNX, batch, height and width dynamic; tensors named by TENSORS.

    Args:
        model: the network; float32 weights on the CPU.
        metadata: written into the file for people and programs that find it alone.
        types: what is not FP32; None for nothing. Inputs and output are FP32 in any case.
    """
    frame = ("batch", 4, "height", "width")
    inputs: dict[str, tuple[int | str, ...]] = {NOISY: frame, VARIANCE: frame}
    graph = Graph(types or NumberTypes(), {**inputs, NOISE_SCALE: ("batch", 1, 1, 1)})
    unit = graph.node(
        "Mul",
        [NOISE_SCALE, graph.constant("signal_range", np.array(SIGNAL_RANGE, np.float32))],
        "signal_unit",
    )
    limits = [
        graph.constant("signal_low", np.array(-SIGNAL_RANGE, np.float32)),
        graph.constant("signal_high", np.array(SIGNAL_RANGE, np.float32)),
    ]
    detail = graph.node("Sub", [NOISY, _local_mean(graph)], "detail")
    signal = graph.node("Clip", [graph.node("Div", [detail, unit], "units"), *limits], "signal")
    sigma = graph.node("Sqrt", [VARIANCE], "sigma")
    deviation = graph.node("Div", [sigma, NOISE_SCALE], "deviation")
    residual = _body(graph, model, graph.node("Concat", [signal, deviation], "planes", axis=1))
    scaled = graph.node("Mul", [residual, NOISE_SCALE], "residual")
    graph.node("Add", [NOISY, scaled], DENOISED)
    return graph.model("edge_denoiser", DENOISED, frame, metadata)


def srgb_edge_graph(
    model: SrgbEdgeDenoiser, metadata: Mapping[str, str], types: NumberTypes | None = None
) -> onnx.ModelProto:
    """The sRGB network as ONNX, from NOISY to DENOISED; otherwise as ``edge_graph``."""
    picture = ("batch", 3, "height", "width")
    graph = Graph(types or NumberTypes(), {NOISY: picture})
    mean = _local_mean(graph)
    gain = graph.constant("detail_gain", np.array(DETAIL_GAIN, np.float32))
    detail = graph.node("Mul", [graph.node("Sub", [NOISY, mean], "detail"), gain], "signal")
    residual = _body(graph, model, graph.node("Concat", [detail, mean], "planes", axis=1))
    graph.node("Add", [NOISY, residual], DENOISED)
    return graph.model("srgb_edge_denoiser", DENOISED, picture, metadata)


def _local_mean(graph: Graph) -> str:
    return graph.node(
        "AveragePool",
        [NOISY],
        "local_mean",
        kernel_shape=[MEAN_WINDOW, MEAN_WINDOW],
        pads=[MEAN_WINDOW // 2] * 4,
        count_include_pad=0,
    )


def _body(graph: Graph, model: EdgeDenoiser | SrgbEdgeDenoiser, planes: str) -> str:
    """Cells, head, residual groups with a long skip, tail, and samples again."""
    cells = graph.feature("SpaceToDepth", [planes], EDGE_FEATURES[0], blocksize=2)
    # SpaceToDepth counts its output channels cell position first, pixel_unshuffle plane first.
    count = model.head.in_channels // 4
    unshuffled = [plane * 4 + position for position in range(4) for plane in range(count)]
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
    return graph.feature("DepthToSpace", [tail], EDGE_FEATURES[1], blocksize=2, mode="CRD")
