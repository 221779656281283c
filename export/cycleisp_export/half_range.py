"""Which nodes of a graph leave the range of FP16, over all noise and on the hardest frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from cycleisp.noise import LEVELS, UNPROCESSING, noisy_samples, variance_map
from cycleisp_export.exportable import Exportable, Inputs, dead_leaves
from cycleisp_export.graph import NOISE_SCALE
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.bundle import NoiseRange
from cycleisp_runtime.errors import BackendError

__all__ = ["HALF_MOST", "check_half_range", "hard_frames", "nodes_beyond_half"]

HALF_MOST = 65504.0 / 4
"""A quarter of what FP16 holds: other frames may go further than the ones tried here."""

_SIDE = 48
_LEVELS_OF_NOISE = 4

_UNTOLD = (LEVELS["low"][0], LEVELS["high"][0])
"""Smallest and largest shot where the network is told of no noise."""


def nodes_beyond_half(
    network: Exportable,
    graph: TypedGraph,
    proto: onnx.ModelProto,
    frames: Sequence[tuple[str, Inputs]],
    watch: Watch = nobody,
) -> list[str]:
    """Names of the nodes that would compute in FP16 with values or weights above HALF_MOST.

    In the graph's order; what stands before and behind the features is not among them.

    Args:
        network: says what its features are.
        graph: of FP32.
        proto: what it was made from.
        frames: those of ``hard_frames``.
        watch: called after every frame.
    """
    largest = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max())
        for tensor in proto.graph.initializer
    }

    def observe(name: str, tensor: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(tensor.abs().max()))

    for count, (_, inputs) in enumerate(frames, 1):
        graph(inputs, observe=observe)
        watch("range of FP16", count, len(frames))
    names = [node.name for node in proto.graph.node]
    first, last = map(names.index, network.features)
    features = set(names[first : last + 1])
    return [
        node.name
        for node in proto.graph.node
        if node.name in features
        and max(largest.get(name, 0.0) for name in (*node.input, *node.output)) > HALF_MOST
    ]


def check_half_range(
    graph: TypedGraph, frames: Sequence[tuple[str, Inputs]], watch: Watch = nobody
) -> None:
    """Nothing, where a graph with FP16 in it puts out numbers on all of ``hard_frames``.

    Raises:
        BackendError: naming the first node that does not, and the frame.
    """
    for count, (frame, inputs) in enumerate(frames, 1):
        broken: list[str] = []

        def observe(name: str, tensor: Tensor, broken: list[str] = broken) -> None:
            if not tensor.isfinite().all():
                broken.append(name)

        graph(inputs, observe=observe)
        if broken:
            raise BackendError(
                "the network leaves the range of FP16", subject=broken[0], met=f"on {frame}"
            )
        watch("FP16 on hard frames", count, len(frames))


def hard_frames(network: Exportable, noise: NoiseRange | None) -> Iterator[tuple[str, Inputs]]:
    """Frames with a name, as inputs, over the range of noise from its lowest to its highest.

    Args:
        network: says what its inputs are.
        noise: that training covered; None for a network that is told of none.
    """
    lowest, highest = (noise.shot_min, noise.shot_max) if noise else _UNTOLD
    rng = np.random.default_rng(2)
    channels = network.channels
    shape = (1, channels, _SIDE, _SIDE)
    checkers = (np.indices((_SIDE, _SIDE)).sum(axis=0) % 2).astype(np.float32)
    spot = np.zeros(shape, np.float32)
    spot[..., _SIDE // 2, _SIDE // 2] = 1
    clean = {
        "a flat frame": np.full(shape, 0.2, np.float32),
        "a black frame": np.zeros(shape, np.float32),
        "a clipped frame": np.ones(shape, np.float32),
        "a frame of random discs": dead_leaves(rng, channels, _SIDE, _SIDE)[None],
        "a chequered frame": np.broadcast_to(checkers, shape).copy(),
        "a bright spot on black": spot,
        "a frame far above white": np.full(shape, 16, np.float32) * checkers,
    }
    for shot in np.geomspace(lowest, highest, _LEVELS_OF_NOISE):
        read = UNPROCESSING.read(shot)
        for name, samples in clean.items():
            for frame, noisy in (
                (f"{name}, noisy", noisy_samples(samples, shot, read, rng)),
                (f"{name}, without noise", samples),
            ):
                inputs = network.inputs(noisy, variance_map(noisy, shot, read))
                if samples is spot and NOISE_SCALE in inputs:
                    # In a whole frame that is black elsewhere the scale is that of black.
                    inputs[NOISE_SCALE] = np.full((1, 1, 1, 1), np.sqrt(read), np.float32)
                yield f"{frame}, shot {shot:.1g}", inputs
