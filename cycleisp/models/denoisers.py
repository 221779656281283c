"""CycleISP's two denoisers: one trunk, for packed RAW with its variance map or for sRGB alone.

S. W. Zamir et al., CVPR 2020, section 3.4 and figure 4. Channel attention pools over the frame, so
every output sample depends on the full extent of the input: tiles are an approximation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cycleisp.models.attention import conv3x3, residual_trunk
from cycleisp.models.edge import EdgeDenoiser

__all__ = ["RawDenoiser", "SrgbDenoiser", "denoise_raw"]


class _ResidualDenoiser(nn.Module):
    """Head, residual groups, tail: the noise to be taken off."""

    def __init__(
        self, inputs: int, outputs: int, channels: int, reduction: int, groups: int, blocks: int
    ) -> None:
        super().__init__()
        activation = nn.PReLU(channels)
        self.head = nn.Sequential(conv3x3(inputs, channels))
        self.body = residual_trunk(channels, reduction, activation, groups, blocks)
        self.tail = nn.Sequential(conv3x3(channels, outputs))

    def correction(self, inputs: Tensor) -> Tensor:
        """What is added to the noisy image."""
        out: Tensor = self.tail(self.body(self.head(inputs)))
        return out


class RawDenoiser(_ResidualDenoiser):
    """Denoised packed RAW from noisy packed RAW and its variance map."""

    def __init__(
        self, channels: int = 64, reduction: int = 16, groups: int = 4, blocks: int = 8
    ) -> None:
        super().__init__(8, 4, channels, reduction, groups, blocks)

    def forward(self, noisy: Tensor, variance: Tensor) -> Tensor:
        """(N, 4, h, w) normalised R, Gr, Gb, B, not clipped.

        Args:
            noisy: (N, 4, h, w) float32, normalised, clipped to [0, 1].
            variance: (N, 4, h, w) float32, variance (not deviation) of the noisy samples.
        """
        return self.correction(torch.cat([noisy, variance], dim=1)) + noisy


class SrgbDenoiser(_ResidualDenoiser):
    """Denoised sRGB from noisy sRGB, blind to the noise level."""

    def __init__(
        self, channels: int = 64, reduction: int = 16, groups: int = 4, blocks: int = 8
    ) -> None:
        super().__init__(3, 3, channels, reduction, groups, blocks)

    def forward(self, noisy: Tensor) -> Tensor:
        """(N, 3, H, W) sRGB in [0, 1] to the same shape, not clipped."""
        return self.correction(noisy) + noisy


def denoise_raw(network: nn.Module, noisy: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
    """Denoised packed RAW (N, 4, h, w), float32, not clipped, by a RAW denoiser of any size.

    Args:
        network: a ``RawDenoiser``, which takes clipped samples, or an ``EdgeDenoiser``.
        noisy: (N, 4, h, w) float32, normalised.
        variance: (N, 4, h, w) float32, its variance map.
        scale: (N, 1, 1, 1) float32, the noise scale of each frame.
    """
    edge = isinstance(network, EdgeDenoiser)
    inputs = (noisy, variance, scale) if edge else (noisy.clamp(0, 1), variance)
    denoised: Tensor = network(*inputs)
    return denoised.float()
