"""Pairs of noisy and clean RAW or sRGB, made of clean photographs by the networks of CycleISP.

S. W. Zamir et al., "CycleISP: Real Image Restoration via Improved Data Synthesis", CVPR 2020,
section 4, and the authors' published scripts where the paper leaves a choice. Noise is added where
a sensor adds it, to RAW; RAW2RGB then renders it as a camera does: coloured, correlated, stronger
in shadows.

    photograph -> prefiltered -> RGB2RAW -> clean RAW -> + noise -> noisy RAW -> RAW2RGB -> sRGB
                       |                                                           ^
                       +------> colour branch ---- map ----------------------------+

All of it works on batches on the fly, on whole pictures of any size, and on any device. Sides that
are odd are completed by reflection for the networks: sRGB comes out in the photograph's size, RAW
in (H + 1) // 2 x (W + 1) // 2 cells. The scripts crop to multiples of 16 instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cycleisp.models.isp import gaussian_kernel
from cycleisp.synthesis.raw_noise import NoiseLevel, RawNoise
from cycleisp.synthesis.tiles import TILE, in_tiles
from cycleisp_runtime.errors import BackendError

__all__ = [
    "TARGETS",
    "RawPairs",
    "RawSynthesis",
    "SrgbPairs",
    "SrgbSynthesis",
    "Target",
    "as_pictures",
    "prefiltered",
]

Target = Literal["blurred", "round-trip", "residual"]
"""What a noisy sRGB picture is paired with.

    blurred     the prefiltered photograph (the paper's). Noisy and clean then differ by the error
                of the two networks, too, and the clean side is softer than photographs are.
    round-trip  RAW2RGB of the clean RAW: the pair differs by noise alone.
    residual    the sharp photograph itself; noisy is the photograph plus what the noise changed in
                the rendering, so a pair differs by noise alone and is as sharp as a photograph.
"""

TARGETS: tuple[Target, ...] = get_args(Target)

_BLUR_SIDE, _BLUR_SIGMA = 5, 1.0
"""Pixels; of the authors' scripts."""


@dataclass(frozen=True)
class RawPairs:
    """A batch of clean RAW and the same with noise.

    Attributes:
        clean: (N, 4, h, w) R, Gr, Gb, B, normalised, in [0, 1].
        noisy: the same with noise, in [0, 1].
        levels: the noise of each picture, where it was drawn; else empty.
    """

    clean: Tensor
    noisy: Tensor
    levels: tuple[NoiseLevel, ...] = ()

    @property
    def variance(self) -> Tensor:
        """(N, 4, h, w), shot * noisy + read, as the RAW denoiser is told it."""
        maps = [
            level.variance(picture.numpy(force=True))
            for level, picture in zip(self.levels, self.noisy, strict=True)
        ]
        return torch.from_numpy(np.stack(maps)).to(self.noisy.device)


@dataclass(frozen=True)
class SrgbPairs:
    """A batch of clean sRGB and the same with noise as a camera renders it.

    Attributes:
        clean: (N, 3, H, W) sRGB in [0, 1], which of the targets was asked for.
        noisy: (N, 3, H, W) sRGB in [0, 1].
        raw: what was rendered.
    """

    clean: Tensor
    noisy: Tensor
    raw: RawPairs


def prefiltered(rgb: Tensor) -> Tensor:
    """The photograph without its own noise and JPEG artefacts: a 5x5 Gaussian of sigma 1.

    Borders are reflected without repeating the edge. (N, 3, H, W) sRGB to the same; H and W at
    least 3.
    """
    line = gaussian_kernel(_BLUR_SIDE, _BLUR_SIGMA).to(rgb).sum(0)
    margin = _BLUR_SIDE // 2
    padded = functional.pad(rgb, [margin] * 4, mode="reflect")
    across = functional.conv2d(padded, line.view(1, 1, 1, -1).repeat(3, 1, 1, 1), groups=3)
    return functional.conv2d(across, line.view(1, 1, -1, 1).repeat(3, 1, 1, 1), groups=3)


@dataclass(frozen=True)
class RawSynthesis:
    """Pairs of RAW.

    Attributes:
        rgb2raw: the network.
        tile: longest side in pixels that it is given at once.
    """

    rgb2raw: nn.Module
    tile: int = TILE

    def pairs(
        self, photographs: Tensor, noise: RawNoise, rngs: Sequence[np.random.Generator]
    ) -> RawPairs:
        """Clean and noisy RAW of photographs.

        Args:
            photographs: (N, 3, H, W) sRGB in [0, 1]; H and W at least 12.
            noise: which noise to draw.
            rngs: one per photograph: its noise depends on nothing else.

        Raises:
            BackendError: where the network gives no finite numbers.
        """
        return self.with_noise(prefiltered(photographs), noise, rngs)

    def with_noise(
        self, rgb: Tensor, noise: RawNoise, rngs: Sequence[np.random.Generator]
    ) -> RawPairs:
        """As ``pairs``, of pictures that are prefiltered already."""
        clean = self.clean_raw(rgb)
        levels, noisy = [], []
        for picture, rng in zip(as_pictures(clean), rngs, strict=True):
            levels.append(noise.level(rng))
            noisy.append(torch.from_numpy(noise.samples(picture, levels[-1], rng)))
        return RawPairs(clean, torch.stack(noisy).to(clean.device), tuple(levels))

    def clean_raw(self, rgb: Tensor) -> Tensor:
        """(N, 4, h, w) in [0, 1]: the RAW of (N, 3, H, W) sRGB that is free of noise."""
        rgb = _even(rgb)
        return in_tiles(self.rgb2raw, (rgb,), _cells(rgb), self.tile).clamp(0, 1)


@dataclass(frozen=True)
class SrgbSynthesis:
    """Pairs of sRGB.

    Attributes:
        raw: makes RAW; its tiles hold for the other networks, too.
        color_branch: the network that sees the clean picture.
        raw2rgb: the network that renders.
        target: what a noisy picture is paired with.
    """

    raw: RawSynthesis
    color_branch: nn.Module
    raw2rgb: nn.Module
    target: Target

    def pairs(
        self, photographs: Tensor, noise: RawNoise, rngs: Sequence[np.random.Generator]
    ) -> SrgbPairs:
        """Clean and noisy sRGB of photographs.

        Arguments as for ``RawSynthesis.pairs``.
        """
        seen = prefiltered(photographs)
        return self._rendered(photographs, seen, self.raw.with_noise(seen, noise, rngs))

    def with_sensor_noise(self, clean: Tensor, residual: Tensor) -> SrgbPairs:
        """Clean sRGB that the noise of a real sensor is added to, as for fine-tuning on SIDD.

        What is free of noise already is not prefiltered; ``clean`` itself takes the place of the
        target ``blurred``.

        Args:
            clean: (N, 3, 2h, 2w) sRGB in [0, 1], free of noise.
            residual: (N, 4, h, w), noisy minus clean packed RAW of the same place, normalised.
        """
        raw = self.raw.clean_raw(clean)
        return self._rendered(clean, clean, RawPairs(raw, (raw + residual).clamp(0, 1)))

    def render(self, raw: Tensor, seen: Tensor) -> Tensor:
        """(N, m * 3, H, W) sRGB, not clipped, of RAW (N, m * 4, h, w) coloured as ``seen`` is.

        With m frames of one scene, one after the other, the map of colours is computed once.
        """
        height, width = seen.shape[-2:]
        seen = _even(seen)
        rgb = in_tiles(self._render_tile, (raw, seen), _cells(seen), self.raw.tile)
        return rgb[..., :height, :width]

    def _render_tile(self, raw: Tensor, seen: Tensor) -> Tensor:
        colors = self.color_branch(seen)
        frames = torch.chunk(raw, raw.shape[1] // 4, dim=1)
        return torch.cat([self.raw2rgb(frame, colors) for frame in frames], dim=1)

    def _rendered(self, sharp: Tensor, seen: Tensor, raw: RawPairs) -> SrgbPairs:
        if self.target == "blurred":
            return SrgbPairs(seen, self.render(raw.noisy, seen).clamp(0, 1), raw)
        both = self.render(torch.cat([raw.noisy, raw.clean], dim=1), seen).clamp(0, 1)
        noisy, clean = both[:, :3], both[:, 3:]
        if self.target == "round-trip":
            return SrgbPairs(clean, noisy, raw)
        return SrgbPairs(sharp, (sharp + (noisy - clean)).clamp(0, 1), raw)


def as_pictures(batch: Tensor) -> npt.NDArray[np.float32]:
    """The batch as an array.

    Raises:
        BackendError: where it holds numbers that are not finite.
    """
    pictures: npt.NDArray[np.float32] = batch.numpy(force=True)
    if not np.isfinite(pictures).all():
        raise BackendError("the networks' output is no picture", met="NaN", hint="train them again")
    return pictures


def _even(rgb: Tensor) -> Tensor:
    """The picture with sides completed to even ones by reflection at the bottom and right."""
    height, width = rgb.shape[-2:]
    if height % 2 == width % 2 == 0:
        return rgb
    return functional.pad(rgb, [0, width % 2, 0, height % 2], mode="reflect")


def _cells(rgb: Tensor) -> tuple[int, int]:
    height, width = rgb.shape[-2:]
    return height // 2, width // 2
