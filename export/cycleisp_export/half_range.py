"""Which nodes of a graph leave the range of FP16, over all noise and on the hardest frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from torch import Tensor

from cycleisp.noise import UNPROCESSING, noisy_samples, variance_map
from cycleisp_export.graph import FIRST_FEATURES, LAST_FEATURES
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import dead_leaves
from cycleisp_runtime.bundle import NoiseRange
from cycleisp_runtime.errors import BackendError

__all__ = ["HALF_MOST", "check_half_range", "nodes_beyond_half"]

HALF_MOST = 65504.0 / 4
"""A quarter of what FP16 holds: other frames may go further than the ones tried here."""

_SIDE = 48
_LEVELS_OF_NOISE = 4

_Inputs = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def nodes_beyond_half(graph: TypedGraph, proto: onnx.ModelProto, noise: NoiseRange) -> list[str]:
    """Names of the nodes that would compute in FP16 with values or weights above HALF_MOST.

    In the graph's order; the noise normalisation and the final addition are not among them.

    Args:
        graph: of FP32.
        proto: what it was made from.
        noise: that training covered.
    """
    largest = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max())
        for tensor in proto.graph.initializer
    }

    def observe(name: str, tensor: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(tensor.abs().max()))

    for _, inputs in _hard_frames(noise):
        graph(*inputs, observe=observe)
    names = [node.name for node in proto.graph.node]
    features = set(names[names.index(FIRST_FEATURES) : names.index(LAST_FEATURES) + 1])
    return [
        node.name
        for node in proto.graph.node
        if node.name in features
        and max(largest.get(name, 0.0) for name in (*node.input, *node.output)) > HALF_MOST
    ]


def check_half_range(graph: TypedGraph, noise: NoiseRange) -> None:
    """Nothing, where a graph with FP16 in it puts out numbers on every hard frame.

    Raises:
        BackendError: naming the first node that does not, and the frame.
    """
    for frame, inputs in _hard_frames(noise):
        broken: list[str] = []

        def observe(name: str, tensor: Tensor, broken: list[str] = broken) -> None:
            if not tensor.isfinite().all():
                broken.append(name)

        graph(*inputs, observe=observe)
        if broken:
            raise BackendError(
                "the network leaves the range of FP16", subject=broken[0], met=f"on {frame}"
            )


def _hard_frames(noise: NoiseRange) -> Iterator[tuple[str, _Inputs]]:
    """Frames with a name, as inputs, over the range of noise from its lowest to its highest."""
    rng = np.random.default_rng(2)
    shape = (1, 4, _SIDE, _SIDE)
    checkers = np.indices((_SIDE, _SIDE)).sum(axis=0) % 2
    spot = np.zeros(shape, np.float32)
    spot[..., _SIDE // 2, _SIDE // 2] = 1
    clean = {
        "a flat frame": np.full(shape, 0.2, np.float32),
        "a black frame": np.zeros(shape, np.float32),
        "a clipped frame": np.ones(shape, np.float32),
        "a frame of random discs": dead_leaves(rng, _SIDE, _SIDE)[None],
        "a chequered frame": np.broadcast_to(checkers, shape).astype(np.float32),
        "a bright spot on black": spot,
        "a frame far above white": np.full(shape, 16, np.float32) * checkers,
    }
    for shot in np.geomspace(noise.shot_min, noise.shot_max, _LEVELS_OF_NOISE):
        read = UNPROCESSING.read(shot)
        for name, samples in clean.items():
            for frame, noisy in (
                (f"{name}, noisy", noisy_samples(samples, shot, read, rng)),
                (f"{name}, without noise", samples),
            ):
                variance = variance_map(noisy, shot, read)
                # In a whole frame that is black elsewhere the scale is that of black.
                of_variance = np.array(read) if samples is spot else variance.mean()
                scale = np.sqrt(of_variance).astype(np.float32).reshape(1, 1, 1, 1)
                yield f"{frame}, shot {shot:.1g}", (noisy, variance, scale)
