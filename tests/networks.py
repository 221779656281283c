"""Small random ONNX networks with the interfaces of the family's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["GATES", "picture_network", "pooling_networks", "residual_network"]

GATES = 6
"""Of the networks that pool."""

_Shape = Sequence[int | str]


def residual_network(seed: int = 0) -> ModelProto:
    """noisy + noise_scale * f(noisy, variance), for RAW.

    f is two 3x3 convolutions at half the packed resolution: an output sample sees 4 packed samples
    beyond its own 2x2 cell. The second one is the first one's transpose, so that f pulls every
    sample down as a denoiser pulls noise, and its correction is trusted.
    """
    head = np.random.default_rng(seed).normal(0, 0.1, (16, 32, 3, 3))
    planes = ("n", 4, "h", "w")
    return _model(
        [
            _node("Concat", ["noisy", "variance"], "input", axis=1),
            *_in_cells("input", "head", "tail"),
            _node("Mul", ["planes", "noise_scale"], "residual"),
            _node("Add", ["noisy", "residual"], "denoised"),
        ],
        {"noisy": planes, "variance": planes, "noise_scale": ("n", 1, 1, 1)},
        {"denoised": planes},
        {"head": head, "tail": _transposed(head[:, :16])},
    )


def picture_network(seed: int = 0) -> ModelProto:
    """noisy + f(noisy) for rendered pictures; f as in ``residual_network``."""
    head = np.random.default_rng(seed).normal(0, 0.1, (16, 12, 3, 3))
    planes = ("n", 3, "h", "w")
    return _model(
        [
            *_in_cells("noisy", "head", "tail"),
            _node("Add", ["noisy", "planes"], "denoised"),
        ],
        {"noisy": planes},
        {"denoised": planes},
        {"head": head, "tail": _transposed(head)},
    )


def pooling_networks(planes: int, seed: int = 0) -> tuple[ModelProto, ModelProto]:
    """A network with channel attention, and its statistics graph.

    noisy + f(noisy) with two 3x3 convolutions, the features between them times their gates: the
    sigmoid of ten times their mean over the frame. For RAW, of 4 planes, the features
    see the variance map, too.
    """
    frame, gates = ("n", planes, "h", "w"), ("n", GATES, 1, 1)
    inputs: dict[str, _Shape] = {"noisy": frame}
    if planes == 4:
        inputs["variance"] = frame
    head = np.random.default_rng(seed).normal(0, 0.3, (GATES, planes * len(inputs), 3, 3))
    features = [
        _node("Concat", list(inputs), "input", axis=1),
        _node("Conv", ["input", "head"], "hidden", pads=[1, 1, 1, 1]),
        _node("Relu", ["hidden"], "active"),
    ]
    statistics = [
        _node("GlobalAveragePool", ["active"], "mean"),
        _node("Mul", ["mean", "steepness"], "scaled"),
        _node("Sigmoid", ["scaled"], "gates"),
    ]
    network = [
        _node("Mul", ["active", "gates"], "attended"),
        _node("Conv", ["attended", "tail"], "residual", pads=[1, 1, 1, 1]),
        _node("Add", ["noisy", "residual"], "denoised"),
    ]
    constants = {
        "head": head,
        "tail": _transposed(head[:, :planes]),
        "steepness": np.full((1, 1, 1, 1), 10.0),
    }
    return (
        _model([*features, *network], {**inputs, "gates": gates}, {"denoised": frame}, constants),
        _model([*features, *statistics], inputs, {"gates": gates}, constants),
    )


def _in_cells(name: str, head: str, tail: str) -> list[NodeProto]:
    """conv -> ReLU -> conv at half the resolution; puts out "planes"."""
    return [
        _node("SpaceToDepth", [name], "cells", blocksize=2),
        _node("Conv", ["cells", head], "hidden", pads=[1, 1, 1, 1]),
        _node("Relu", ["hidden"], "active"),
        _node("Conv", ["active", tail], "out", pads=[1, 1, 1, 1]),
        _node("DepthToSpace", ["out"], "planes", blocksize=2),
    ]


def _transposed(head: np.ndarray) -> np.ndarray:
    """Weights of a convolution that gives back, small and negative, what ``head`` took."""
    return -0.1 * head[..., ::-1, ::-1].swapaxes(0, 1)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:  # noqa: ANN401  ONNX's own
    onnx = pytest.importorskip("onnx", reason="needs onnx to build a network")
    made: NodeProto = onnx.helper.make_node(kind, inputs, [output], **attributes)
    return made


def _model(
    nodes: list[NodeProto],
    inputs: Mapping[str, _Shape],
    outputs: Mapping[str, _Shape],
    constants: Mapping[str, np.ndarray],
) -> ModelProto:
    """A self-contained file with the constants that its nodes use."""
    onnx = pytest.importorskip("onnx", reason="needs onnx to build a network")
    helper, numpy_helper, single = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, single, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, single, shape) for name, shape in outputs.items()],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in constants.items()
            if name in used
        ],
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return model
