"""How well a denoiser does on photographs that it was not trained on, at the three noise levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cycleisp.data.inverse_pipeline import mosaic_planes
from cycleisp.evaluation.metrics import psnr
from cycleisp.models.denoisers import denoise_raw
from cycleisp.noise import LEVELS, noisy_samples, variance_map

__all__ = ["validate", "validation_planes"]


def validation_planes(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Clean packed planes (4, h, w) float32, normalised, of at most 512x512 samples.

    The middle of the picture, (H, W, 3) sRGB codes, with gamma 2.2 and white-balance gains of 2 and
    1.6 undone. h and w are even.
    """
    side = min(512, *(extent // 4 * 4 for extent in picture.shape[:2]))
    top, left = ((extent - side) // 2 for extent in picture.shape[:2])
    codes = picture[top : top + side, left : left + side].astype(np.float32) / np.float32(255)
    gains = np.array([2.0, 1.0, 1.6], np.float32)
    return mosaic_planes(np.divide(np.power(codes, 2.2), gains))


def validate(model: nn.Module, clean_frames: Sequence[npt.NDArray[np.float32]]) -> dict[str, float]:
    """Mean PSNR in dB per level, output clipped to [0, 1]; "LEVEL noisy" is that of the input.

    Args:
        model: a RAW denoiser of any size.
        clean_frames: packed planes (4, h, w) float32 each, normalised, h and w even.
    """
    device = next(model.parameters()).device
    quality: dict[str, float] = {}
    for level, (shot, read) in LEVELS.items():
        before, after = [], []
        for index, clean in enumerate(clean_frames):
            noisy = noisy_samples(clean, shot, read, np.random.default_rng(index))
            variance = variance_map(noisy, shot, read)
            scale = np.sqrt(variance.mean()).reshape(1, 1, 1, 1)
            with torch.inference_mode():
                output = denoise_raw(
                    model,
                    *(
                        torch.from_numpy(array).to(device)
                        for array in (noisy[None], variance[None], scale)
                    ),
                )
            before.append(psnr(np.clip(noisy, 0, 1), clean))
            after.append(psnr(np.clip(output[0].numpy(force=True), 0, 1), clean))
        quality[f"{level} noisy"] = float(np.mean(before))
        quality[level] = float(np.mean(after))
    return quality
