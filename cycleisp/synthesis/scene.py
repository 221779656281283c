"""One picture on its way through the camera: from a photograph, with noise that is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cycleisp.synthesis.cycle import RawSynthesis, SrgbPairs, SrgbSynthesis, as_pictures
from cycleisp.synthesis.photograph import Photograph, PhotographFile, read_photograph
from cycleisp.synthesis.raw_noise import NoiseLevel, RawNoise

__all__ = ["RawOfPhotographs", "Scene", "SrgbOfPhotographs", "rendered_scene"]


@dataclass(frozen=True)
class Scene:
    """All that a picture became; float32 in [0, 1].

    Attributes:
        clean_raw: (4, h, w) packed R, Gr, Gb, B.
        noisy_raw: the same with noise.
        clean_rgb: (3, H, W) sRGB; for pairs of RAW the photograph.
        noisy_rgb: the same with noise; None for pairs of RAW.
        level: the noise of the RAW.
    """

    clean_raw: npt.NDArray[np.float32]
    noisy_raw: npt.NDArray[np.float32]
    clean_rgb: npt.NDArray[np.float32]
    noisy_rgb: npt.NDArray[np.float32] | None
    level: NoiseLevel

    @property
    def pair(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Clean and noisy, as training takes them: sRGB where there is noisy sRGB, else RAW."""
        if self.noisy_rgb is None:
            return self.clean_raw, self.noisy_raw
        return self.clean_rgb, self.noisy_rgb


def rendered_scene(pairs: SrgbPairs, level: NoiseLevel) -> Scene:
    """The only picture of a batch."""
    return Scene(
        as_pictures(pairs.raw.clean)[0],
        as_pictures(pairs.raw.noisy)[0],
        as_pictures(pairs.clean)[0],
        as_pictures(pairs.noisy)[0],
        level,
    )


@dataclass(frozen=True)
class _OfPhotographs:
    """What photographs need whatever becomes of them."""

    noise: RawNoise
    seed: int
    device: torch.device

    def load(self, source: PhotographFile) -> Photograph:
        """The photograph."""
        return read_photograph(source.path)

    def middle(self, photograph: Photograph, side: int) -> Photograph:
        """Its middle."""
        height, width = photograph.rgb.shape[1:]
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        return replace(
            photograph, rgb=photograph.rgb[:, top : top + side, left : left + side].copy()
        )

    def _drawn_from(
        self, photograph: Photograph
    ) -> tuple[Tensor, RawNoise, list[np.random.Generator]]:
        """Arguments of a synthesis."""
        batch = torch.from_numpy(photograph.rgb)[None].to(self.device)
        return batch, self.noise, [photograph.rng(self.seed)]


@dataclass(frozen=True)
class RawOfPhotographs(_OfPhotographs):
    """Pairs of RAW."""

    synthesis: RawSynthesis

    def make(self, photograph: Photograph) -> Scene:
        """Its RAW without and with noise."""
        with torch.inference_mode():
            pairs = self.synthesis.pairs(*self._drawn_from(photograph))
        clean, noisy = as_pictures(pairs.clean)[0], as_pictures(pairs.noisy)[0]
        return Scene(clean, noisy, photograph.rgb, None, pairs.levels[0])


@dataclass(frozen=True)
class SrgbOfPhotographs(_OfPhotographs):
    """Pairs of sRGB."""

    synthesis: SrgbSynthesis

    def make(self, photograph: Photograph) -> Scene:
        """It without and with noise."""
        with torch.inference_mode():
            pairs = self.synthesis.pairs(*self._drawn_from(photograph))
        return rendered_scene(pairs, pairs.raw.levels[0])
