"""Pairs of sRGB from the clean pictures of SIDD and the true noise of its phones.

S. W. Zamir et al. fine-tune on SIDD so; the paper's text was not at hand, this follows
summaries of it: RGB2RAW of the clean sRGB, plus the noise of the same crop (noisy RAW minus clean
RAW), then RAW2RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from cycleisp.data.flips import flipped, pack_flipped
from cycleisp.data.sidd import SiddFiles, SiddPair, read_sidd_pair
from cycleisp.synthesis.cycle import SrgbSynthesis
from cycleisp.synthesis.raw_noise import NoiseLevel
from cycleisp.synthesis.scene import Scene, rendered_scene

__all__ = ["SrgbOfSidd"]


@dataclass(frozen=True)
class SrgbOfSidd:
    """Pairs of sRGB; mirrored where the phone's mosaic must be, to be RGGB."""

    synthesis: SrgbSynthesis
    device: torch.device

    def load(self, source: SiddFiles) -> SiddPair:
        """The frame."""
        return read_sidd_pair(source)

    def middle(self, frame: SiddPair, side: int) -> SiddPair:
        """Its middle, whole cells."""
        height, width = frame.clean.mosaic.shape
        window = (
            max(0, (height - side) // 4 * 2),
            max(0, (width - side) // 4 * 2),
            min(side, height),
            min(side, width),
        )
        return replace(frame, noisy=frame.noisy.window(*window), clean=frame.clean.window(*window))

    def make(self, frame: SiddPair) -> Scene:
        """The clean picture, and the same with the true noise rendered."""
        phase = frame.clean.phase
        noisy, clean = (pack_flipped(each.mosaic, phase) for each in (frame.noisy, frame.clean))
        picture = flipped(frame.clean.rgb, phase).transpose(2, 0, 1)
        rgb = np.ascontiguousarray(picture, np.float32) / np.float32(255)
        with torch.inference_mode():
            pairs = self.synthesis.with_sensor_noise(
                torch.from_numpy(rgb)[None].to(self.device),
                torch.from_numpy(noisy - clean)[None].to(self.device),
            )
        return rendered_scene(pairs, NoiseLevel(frame.noise))
