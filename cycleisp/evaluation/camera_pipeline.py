"""How well the networks of the camera pipeline turn sRGB into RAW and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cycleisp.data.camera_pairs import CameraPair
from cycleisp.evaluation.metrics import psnr

__all__ = ["raw_quality", "srgb_quality", "with_true_gains"]

_Array = npt.NDArray[np.float32]


def raw_quality(
    predict: Callable[[Tensor], Tensor],
    pairs: Mapping[str, CameraPair],
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Mean PSNR in dB of RAW predicted from sRGB, as it is and after per-channel gains.

    sRGB does not tell which white balance was undone: a gain per channel and picture is taken out
    to see what the network knows beside it.

    Args:
        predict: (1, 3, H, W) sRGB to (1, 4, H/2, W/2) packed RAW.
        pairs: what it is judged by.
        device: on which ``predict`` takes its tensors.
    """
    plain, gained = [], []
    for pair in pairs.values():
        predicted = _clipped(predict(_batch(pair.rgb, device)))
        plain.append(psnr(predicted, pair.raw))
        gained.append(psnr(with_true_gains(predicted, pair.raw), pair.raw))
    return {"RAW": float(np.mean(plain)), "RAW after gains": float(np.mean(gained))}


def with_true_gains(predicted: _Array, true: _Array) -> _Array:
    """Packed RAW (4, h, w), each plane times the gain that brings it closest to the true one."""
    products = (predicted * true).sum(axis=(1, 2), dtype=np.float64)
    squares = np.square(predicted).sum(axis=(1, 2), dtype=np.float64)
    gains = products / np.maximum(squares, np.finfo(np.float64).tiny)
    gained: _Array = predicted * gains[:, None, None].astype(np.float32)
    return np.clip(gained, 0, 1)


def srgb_quality(
    predict: Callable[[Tensor, Tensor], Tensor],
    pairs: Mapping[str, CameraPair],
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Mean PSNR in dB of rendered sRGB, and the error of its mean colours in codes of 255.

    Args:
        predict: (1, 4, h, w) RAW and (1, 3, 2h, 2w) sRGB, which tells the colours, to sRGB.
        pairs: what it is judged by.
        device: on which ``predict`` takes its tensors.
    """
    found, colors = [], []
    for pair in pairs.values():
        predicted = _clipped(predict(_batch(pair.raw, device), _batch(pair.rgb, device)))
        found.append(psnr(predicted, pair.rgb))
        colors.append(np.square((predicted - pair.rgb).mean(axis=(1, 2))).mean())
    return {
        "sRGB": float(np.mean(found)),
        "sRGB mean colour error of 255": 255 * float(np.sqrt(np.mean(colors))),
    }


def _batch(array: _Array, device: torch.device | str) -> Tensor:
    return torch.from_numpy(array)[None].to(device)


def _clipped(output: Tensor) -> _Array:
    clipped: _Array = output[0].float().clamp(0, 1).cpu().numpy()
    return clipped
