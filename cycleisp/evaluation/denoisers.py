"""The denoisers that are judged, each as a function on one picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cycleisp.data.flips import pack_flipped, unpack_flipped
from cycleisp.models.denoisers import denoise_raw
from cycleisp.models.storage import load_network
from cycleisp.training.distributed import local_device
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import BackendError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["MosaicDenoiser", "SrgbDenoiser", "load_raw_denoiser", "load_srgb_denoiser"]

_Picture = npt.NDArray[np.float32]

MosaicDenoiser = Callable[[_Picture, Phase, NoiseModel], _Picture]
"""From a noisy mosaic (H, W) float32 in [0, 1], H and W multiples of 4, with its phase and noise,
to a clean one, clipped to [0, 1]."""

SrgbDenoiser = Callable[[_Picture], _Picture]
"""From noisy sRGB (H, W, 3) float32 in [0, 1] to clean sRGB, clipped to [0, 1]."""


def load_raw_denoiser(model: str) -> MosaicDenoiser:
    """The RAW denoiser of a file of weights, or of a bundle by path or shipped name.

    The mosaic is flipped to RGGB and packed; the network gets it with its variance map shot * x +
    read, and what comes out is clipped, unpacked and flipped back.

    Raises:
        InputError: where the file holds no RAW denoiser.
        BundleError: where there is no such bundle.
    """
    run = _network(Path(model)) if model.endswith(".safetensors") else _bundle(model)

    def denoise(mosaic: _Picture, phase: Phase, noise: NoiseModel) -> _Picture:
        packed = pack_flipped(mosaic, phase)
        return unpack_flipped(_clipped(run(packed, noise.variance(packed)), model), phase)

    return denoise


def load_srgb_denoiser(path: Path) -> SrgbDenoiser:
    """The sRGB denoiser of a file of weights; it sees a picture whole.

    Raises:
        InputError: where the file holds no sRGB denoiser.
    """
    device = local_device()
    network = load_network(path, "srgb_denoiser").to(device)

    def denoise(picture: _Picture) -> _Picture:
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
        with torch.inference_mode():
            output: Tensor = network(torch.from_numpy(planes)[None].to(device))
        denoised: _Picture = output[0].cpu().numpy()
        return _clipped(denoised, str(path)).transpose(1, 2, 0)

    return denoise


def _network(path: Path) -> Callable[[_Picture, _Picture], _Picture]:
    device = local_device()
    network = load_network(path, "raw_denoiser").to(device)

    def run(packed: _Picture, variance: _Picture) -> _Picture:
        noisy, spread = (torch.from_numpy(each)[None].to(device) for each in (packed, variance))
        with torch.inference_mode():
            scale = spread.mean().sqrt().reshape(1, 1, 1, 1)
            output = denoise_raw(network, noisy, spread, scale)
        denoised: _Picture = output[0].cpu().numpy()
        return denoised

    return run


def _bundle(name: str) -> Callable[[_Picture, _Picture], _Picture]:
    denoiser = Denoiser.load(name)
    tensors = denoiser.bundle.record.tensors

    def run(packed: _Picture, variance: _Picture) -> _Picture:
        scale = float(np.sqrt(variance.mean(dtype=np.float64)))
        inputs = tensors.fill(packed[None], variance[None], scale)
        denoised: _Picture = denoiser.backend.run(inputs)[0]
        return denoised

    return run


def _clipped(output: _Picture, model: str) -> _Picture:
    if not np.isfinite(output).all():
        raise BackendError("the network's output is not a picture", subject=model, met="NaN")
    return np.clip(output, 0, 1)
