"""Checks that an exported graph passes before anybody gets it, and the halo its tiles need."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from cycleisp.evaluation.metrics import psnr
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_export.graph import DENOISED, NOISE_SCALE, NOISY, OPSET, VARIANCE
from cycleisp_runtime.bundle import Halo
from cycleisp_runtime.errors import BackendError

__all__ = ["OnnxGraph", "check_graph", "measured_halo", "parity"]

ALLOWED_OPERATORS = frozenset(
    {
        "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "DequantizeLinear",
        "Div", "Mul", "QuantizeLinear", "Relu", "SpaceToDepth", "Sqrt", "Sub",
    }
)  # fmt: skip
"""What an edge denoiser needs; every one is native to ONNX Runtime and TensorRT."""

PARITY_SHAPES = ((1, 64, 96), (2, 38, 50), (1, 130, 34))
"""Batch, height, width in packed samples; sides that are no multiples of 4 among them."""

PARITY_TOLERANCE = 1e-3
"""In units of the noise scale: a thousandth of the noise is 60 dB below it. Float32 sums in another
order differ by some 1e-5 of it."""


class OnnxGraph:
    """A graph in ONNX Runtime, called like the torch network it was made from."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def __call__(
        self,
        noisy: npt.NDArray[np.float32],
        variance: npt.NDArray[np.float32],
        noise_scale: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Denoised (N, 4, h, w) from the same, its variance map and noise scales (N, 1, 1, 1)."""
        inputs = {
            NOISY: noisy,
            VARIANCE: variance,
            NOISE_SCALE: noise_scale,
        }
        output: npt.NDArray[np.float32] = self._session.run([DENOISED], inputs)[0]
        return output


def check_graph(proto: onnx.ModelProto) -> None:
    """Full ONNX check with shape inference, allowed operators, opset, all weights inside.

    Raises:
        BackendError: naming the first thing that is wrong.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendError("the exported graph is not valid ONNX", met=str(error)) from error
    strange = {node.op_type for node in proto.graph.node} - ALLOWED_OPERATORS
    if strange:
        raise BackendError("operators that not every runtime has", met=", ".join(sorted(strange)))
    opsets = [(entry.domain, entry.version) for entry in proto.opset_import]
    if opsets != [("", OPSET)]:
        raise BackendError("wrong opset", met=opsets, wanted=OPSET)
    if any(tensor.external_data for tensor in proto.graph.initializer):
        raise BackendError("weights outside the file", hint="export them into it")


def parity(model: EdgeDenoiser, graph: OnnxGraph) -> float:
    """Largest difference between torch and ONNX Runtime, in units of the noise scale.

    Over PARITY_SHAPES and the three noise levels.

    Raises:
        BackendError: where it is not finite or above the tolerance.
    """
    rng = np.random.default_rng(0)
    worst = 0.0
    for (batch, height, width), (shot, read) in itertools.product(PARITY_SHAPES, LEVELS.values()):
        signal = np.stack([dead_leaves(rng, height, width) for _ in range(batch)])
        inputs = _conditioned(noisy_samples(signal, shot, read, rng), shot, read)
        with torch.inference_mode():
            expected = model(*(torch.from_numpy(array) for array in inputs)).numpy()
        apart = float(np.max(np.abs(graph(*inputs) - expected) / inputs[2]))
        if not apart <= PARITY_TOLERANCE:  # so that NaN is refused
            raise BackendError(
                "the exported graph does not compute what the network computes",
                subject=f"batch {batch}, {height}x{width}, shot {shot}",
                met=f"{apart:.2e} noise scales apart",
                wanted=f"at most {PARITY_TOLERANCE}",
            )
        worst = max(worst, apart)
    return worst


def measured_halo(model: EdgeDenoiser, graph: OnnxGraph) -> Halo:
    """The smallest even halos at which a tile agrees with the frame to 90 and to 120 dB, peak 1.

    Measured at the three noise levels on frames of random discs, with that noise and without it: a
    network that is told of more noise than there is looks farthest. The exact one is its receptive
    field.

    Raises:
        BackendError: where even that one does not reach 120 dB.
    """
    exact = model.halo
    core, side = 64, 64 + 2 * (exact + 2)
    worst = dict.fromkeys(range(0, exact + 1, 2), math.inf)
    rng = np.random.default_rng(1)
    middle = slice(exact + 2, exact + 2 + core)
    for (shot, read), noise_is_there in itertools.product(LEVELS.values(), (True, False)):
        samples = dead_leaves(rng, side, side)[None]
        if noise_is_there:
            samples = noisy_samples(samples, shot, read, rng)
        inputs = _conditioned(samples, shot, read)
        whole = graph(*inputs)[..., middle, middle]
        for halo in worst:
            cut = slice(middle.start - halo, middle.stop + halo)
            noisy, variance = (np.ascontiguousarray(array[..., cut, cut]) for array in inputs[:2])
            kept = slice(halo, halo + core)
            tile = graph(noisy, variance, inputs[2])[..., kept, kept]
            worst[halo] = min(worst[halo], psnr(tile, whole))

    if worst[exact] < 120:
        raise BackendError(
            "tiles do not agree with the frame",
            subject=f"halo {exact}",
            met=f"{worst[exact]:.1f} dB",
            wanted="at least 120 dB",
        )

    def smallest(decibels: float) -> int:
        return next(halo for halo, agreement in worst.items() if agreement >= decibels)

    return Halo(for_90_db=smallest(90), for_120_db=smallest(120), exact=exact)


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """A frame (4, height, width) of overlapping random discs, in [0, 1]: edges at every scale.

    The dead leaves model of A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images",
    IJCV 41, 2001: radii follow a power law of exponent -3.
    """
    frame = np.full((4, height, width), 0.2, np.float32)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(300):
        radius = 2.0 / np.sqrt(rng.uniform(1e-3, 1.0))
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        disc = np.square(rows - row) + np.square(columns - column) < radius * radius
        frame[:, disc] = rng.uniform(0, 1, (4, 1)) ** 2
    return frame


def _conditioned(
    noisy: npt.NDArray[np.float32], shot: float, read: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The samples, their variance map, and one noise scale per frame."""
    variance = variance_map(noisy, shot, read)
    return noisy, variance, np.sqrt(variance.mean(axis=(1, 2, 3), keepdims=True))
