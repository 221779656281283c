"""Small random ONNX networks with the interface of the edge models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def residual_network(seed: int = 0) -> ModelProto:
    """noisy + noise_scale * f(noisy, variance).

    f is two 3x3 convolutions at half the packed resolution: an output sample sees 4 packed samples
    beyond its own 2x2 cell. The second one is the first one's transpose, so that f pulls every
    sample down as a denoiser pulls noise, and its correction is trusted.
    """
    onnx = pytest.importorskip("onnx", reason="needs onnx to build a network")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    random = np.random.default_rng(seed)
    head = random.normal(0, 0.1, (16, 32, 3, 3))
    weights = {"head": head, "tail": -0.1 * head[:, :16, ::-1, ::-1].swapaxes(0, 1)}
    nodes = [
        helper.make_node("Concat", ["noisy", "variance"], ["input"], axis=1),
        helper.make_node("SpaceToDepth", ["input"], ["cells"], blocksize=2),
        helper.make_node("Conv", ["cells", "head"], ["hidden"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "tail"], ["out"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["out"], ["planes"], blocksize=2),
        helper.make_node("Mul", ["planes", "noise_scale"], ["residual"]),
        helper.make_node("Add", ["noisy", "residual"], ["denoised"]),
    ]

    def tensor(name: str, *shape: object) -> ValueInfoProto:
        value: ValueInfoProto = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        return value

    graph = helper.make_graph(
        nodes,
        "residual",
        [
            tensor("noisy", "n", 4, "h", "w"),
            tensor("variance", "n", 4, "h", "w"),
            tensor("noise_scale", "n", 1, 1, 1),
        ],
        [tensor("denoised", "n", 4, "h", "w")],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return model
