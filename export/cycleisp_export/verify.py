"""Checks that an exported graph passes before anybody gets it, and the context its tiles need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from cycleisp.evaluation.metrics import psnr
from cycleisp_export.exportable import Exportable, Inputs, Samples
from cycleisp_export.graph import GATES, NOISE_SCALE, OPSET
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.bundle import Halo
from cycleisp_runtime.errors import BackendError
from cycleisp_runtime.onnx_file import MOST_CONSTANT_BYTES, OPERATORS

__all__ = [
    "OnnxGraph",
    "Parity",
    "check_graph",
    "gates_agreement",
    "measured_halo",
    "parity",
]

PARITY_SHAPES = ((1, 32, 48), (2, 19, 25), (1, 65, 17))
"""Batch, height, width, the sides in units of ``multiple_of``, odd ones among them."""

PARITY_TOLERANCE = 1e-5
"""Of what is 1 at white: float32 sums in another order, some 1e-7 apart in each of their terms."""

NOISE_TOLERANCE = 1e-3
"""In units of the noise scale: a thousandth of the noise is 60 dB below it."""

HALO_CORE = 64
"""Side of the part of a tile that is compared, in samples."""

COSTLY = 200.0
"""kMAC per sample above which halos are measured at middle noise only, on a core of half the side:
minutes instead of a quarter of an hour for the full networks."""

AGREEMENT_SIDE = 192
"""Of the frame whose gates are taken from every n-th sample."""


class OnnxGraph:
    """A graph in ONNX Runtime, called with its inputs by name; it gives its only output."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self._inputs = {each.name for each in self._session.get_inputs()}

    def __call__(self, inputs: Mapping[str, Samples]) -> Samples:
        """Denoised (N, C, h, w), or the gates of a statistics graph.

        Args:
            inputs: as the graph declares them, float32; what it does not take is left out.
        """
        taken = {name: array for name, array in inputs.items() if name in self._inputs}
        output: Samples = self._session.run(None, taken)[0]
        return output


@dataclass(frozen=True)
class Parity:
    """Largest difference between torch and ONNX Runtime over all that was tried.

    Attributes:
        absolute: of normalised samples, or of sRGB in [0, 1].
        of_noise: in units of the noise scale; None for networks that are not told of it.
    """

    absolute: float
    of_noise: float | None

    def __str__(self) -> str:
        relative = "" if self.of_noise is None else f", {self.of_noise:.1e} of the noise"
        return f"{self.absolute:.1e}{relative}"


def check_graph(proto: onnx.ModelProto) -> None:
    """Full ONNX check with shape inference, allowed operators, opset, all weights inside.

    Raises:
        BackendError: naming the first thing that is wrong.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendError("the exported graph is not valid ONNX", met=str(error)) from error
    strange = {node.op_type for node in proto.graph.node} - OPERATORS
    if strange:
        raise BackendError("operators that not every runtime has", met=", ".join(sorted(strange)))
    opsets = [(entry.domain, entry.version) for entry in proto.opset_import]
    if opsets != [("", OPSET)]:
        raise BackendError("wrong opset", met=opsets, wanted=OPSET)
    for tensor in proto.graph.initializer:
        if tensor.external_data:
            raise BackendError("weights outside the file", hint="export them into it")
        if tensor.ByteSize() > MOST_CONSTANT_BYTES:
            raise BackendError(
                "a constant is too large for this family of networks",
                subject=tensor.name,
                met=f"{tensor.ByteSize()} bytes",
                wanted=f"at most {MOST_CONSTANT_BYTES}",
            )


def parity(model: Exportable, graph: OnnxGraph, statistics: OnnxGraph | None = None) -> Parity:
    """How far the graph is from the network, over PARITY_SHAPES and the three noise levels.

    Args:
        model: the network.
        graph: of it.
        statistics: the graph that gives the gates, where the network pools.

    Raises:
        BackendError: where a difference is not finite or above the tolerance.
    """
    rng = np.random.default_rng(0)
    absolute, of_noise = 0.0, 0.0
    for batch, *sides in PARITY_SHAPES:
        height, width = (side * model.multiple_of for side in sides)
        for level, frame in model.frames(rng, batch, height, width):
            if statistics is None:
                inputs = model.with_gates(frame)
            else:
                inputs = {**frame, GATES: statistics(frame)}
            difference = np.abs(graph(inputs) - model.denoise(frame))
            apart = float(difference.max())
            relative = float((difference / frame.get(NOISE_SCALE, np.inf)).max())
            if not (apart <= PARITY_TOLERANCE and relative <= NOISE_TOLERANCE):  # NaN is refused
                raise BackendError(
                    "the exported graph does not compute what the network computes",
                    subject=f"batch {batch}, {height}x{width}, {level} noise",
                    met=f"{apart:.2e} apart",
                    wanted=f"at most {PARITY_TOLERANCE:.0e}, {NOISE_TOLERANCE:.0e} of the noise",
                )
            absolute, of_noise = max(absolute, apart), max(of_noise, relative)
    return Parity(absolute, None if model.tensors.noise_scale is None else of_noise)


def measured_halo(model: Exportable, graph: OnnxGraph, watch: Watch = nobody) -> Halo:
    """The smallest even halos at which a tile agrees with the frame to 90 and to 120 dB, peak 1.

    Found by bisection, on frames of random discs at the three noise levels, with that noise and
    without it: a network that is told of more noise than there is looks farthest. The exact one is
    the receptive field; where the network pools it holds for tiles that are given the same gates,
    and the record has none.

    Args:
        model: the network.
        graph: of it.
        watch: called after every halo that was tried, with the most that it can take.

    Raises:
        BackendError: where even that one does not reach 120 dB.
    """
    exact = model.halo
    costly = model.kmac_per_sample > COSTLY
    core = HALO_CORE // 2 if costly else HALO_CORE
    margin = 2 * math.ceil(exact / 2) + 2
    middle = slice(margin, margin + core)
    rng = np.random.default_rng(1)
    frames: list[tuple[Inputs, Samples]] = []
    for noise in (True, False):
        for level, frame in model.frames(rng, 1, *[2 * margin + core] * 2, noise=noise):
            if level == "middle" or not costly:
                inputs = model.with_gates(frame)
                frames.append((inputs, graph(inputs)[..., middle, middle]))

    widest = 2 * math.ceil(exact / 2)
    most_tried = 1 + 2 * math.ceil(math.log2(widest // 2 + 1))
    tried: dict[int, float] = {}

    def agreement(halo: int) -> float:
        if halo not in tried:
            cut = slice(middle.start - halo, middle.stop + halo)
            kept = slice(halo, halo + core)
            tried[halo] = min(
                psnr(graph(_tile(inputs, cut))[..., kept, kept], whole) for inputs, whole in frames
            )
            watch("context of tiles", len(tried), most_tried)
        return tried[halo]

    if agreement(widest) < 120:
        raise BackendError(
            "tiles do not agree with the frame",
            subject=f"halo {exact}",
            met=f"{agreement(widest):.1f} dB",
            wanted="at least 120 dB",
        )

    def smallest(decibels: float) -> int:
        low, high = 0, widest
        while low < high:
            middle = (low + high) // 4 * 2
            low, high = (low, middle) if agreement(middle) >= decibels else (middle + 2, high)
        return high

    pools = model.tensors.gates is not None
    return Halo(for_90_db=smallest(90), for_120_db=smallest(120), exact=None if pools else exact)


def gates_agreement(
    model: Exportable, graph: OnnxGraph, statistics: OnnxGraph, decimation: int
) -> float:
    """PSNR (peak 1) of frames whose gates come of every n-th sample, against their own gates.

    The lowest over the three noise levels. Tiles with the exact halo are the frame, so that it is
    theirs, too.

    Args:
        model: a network that pools.
        graph: of it.
        statistics: the graph that gives its gates.
        decimation: n.
    """
    every_nth = slice(None, None, decimation)
    rng = np.random.default_rng(3)
    return min(
        psnr(graph({**frame, GATES: statistics(_tile(frame, every_nth))}), model.denoise(frame))
        for _, frame in model.frames(rng, 1, AGREEMENT_SIDE, AGREEMENT_SIDE)
    )


def _tile(inputs: Inputs, cut: slice) -> Inputs:
    """These rows and columns of the inputs that have the frame's size."""
    return {
        name: np.ascontiguousarray(array[..., cut, cut]) if array.shape[-1] > 1 else array
        for name, array in inputs.items()
    }
