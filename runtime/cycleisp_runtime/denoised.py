"""What comes out of a denoiser: samples, and how they came about."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bundle import Quality
from cycleisp_runtime.frame import Area, FloatFrame, RawFrame
from cycleisp_runtime.levels import choose_level_scale, copy_scaled
from cycleisp_runtime.noise import NoiseModel

__all__ = ["Denoised", "Denoising", "residual_noise", "unchanged", "untouched", "with_frame"]


@dataclass(frozen=True)
class Denoising:
    """How denoised samples came about.

    Attributes:
        level_scale: a power of two, by which samples and levels were multiplied.
        strength: share of the model's output in the frame: what was asked for, times ``trust``.
        trust: share of the model's correction that is expected to help this frame, 0..1; 1 where
            too few samples say anything.
        expected_gain_db: PSNR that the frame is expected to have gained; None where not known.
        residual: noise that is left, in normalised units; None where samples are unchanged, so
            that what was known of their noise still holds.
        seconds: by step.
        warnings: what was not done as asked or may disappoint, one sentence each.
    """

    level_scale: int
    strength: float
    trust: float
    expected_gain_db: float | None
    residual: NoiseModel | None
    seconds: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Denoised(Denoising):
    """A denoised frame, and how it came about.

    Attributes:
        frame: samples and levels already multiplied by ``level_scale``.
    """

    frame: RawFrame


def with_frame(
    denoising: Denoising, before: RawFrame | FloatFrame, samples: npt.NDArray[np.uint16]
) -> Denoised:
    """The frame of these denoised samples, whose levels are ``before``'s by the level scale."""
    scale = denoising.level_scale
    if isinstance(before, RawFrame):
        frame = before.with_samples(samples, scale=scale)
    else:
        a, b, c, d = (black * scale for black in before.black)
        frame = RawFrame(
            samples, before.cfa, (a, b, c, d), before.white * scale, Area(0, 0, *samples.shape)
        )
    return Denoised(**vars(denoising), frame=frame)


def unchanged(frame: RawFrame, *, keep_levels: bool = False) -> Denoised:
    """A copy of the frame at the output's levels, nothing denoised.

    The levels are those of 16 bits, or the frame's own where ``keep_levels`` asks for it.
    """
    scale, warnings = (1, []) if keep_levels else choose_level_scale(frame)
    samples = np.empty_like(frame.samples)
    copy_scaled(frame.samples, scale, samples)
    return with_frame(untouched(scale, warnings), frame, samples)


def untouched(level_scale: int, warnings: list[str]) -> Denoising:
    """How samples came about that no network saw."""
    return Denoising(
        level_scale,
        strength=0.0,
        trust=1.0,
        expected_gain_db=None,
        residual=None,
        seconds={},
        warnings=tuple(warnings),
    )


def residual_noise(quality: tuple[Quality, ...], noise: NoiseModel, strength: float) -> NoiseModel:
    """What is left of ``noise``, by the bundle's own measurements: for frames that say too little.

    The mean squared error falls by the ratio r = 10^(-gain / 10), with the gain in dB interpolated
    over log shot; mixing in a share s of the output leaves (1 - s)^2 + (1 - (1 - s)^2) r of it.
    """
    levels = sorted(
        (level.shot, level.denoised_db - level.noisy_db)
        for level in quality
        if level.shot is not None
    )
    shots, gains = zip(*levels, strict=True)
    gain = float(np.interp(math.log(noise.mean_shot), np.log(shots), gains))
    ratio = min(10 ** (-gain / 10), 1.0)
    kept = (1 - strength) ** 2
    return noise.scaled(kept + (1 - kept) * ratio)
