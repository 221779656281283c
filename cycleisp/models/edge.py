"""Small denoisers for the edge: one more pixel-unshuffle, plain residual groups, no attention.

Without pooling over the frame an output sample depends on a bounded neighbourhood only, so tiles
agree with the whole frame exactly. The RAW input is brought to units of noise: the local mean is
taken off and the rest divided by the frame's noise scale, so that one network serves every noise
level and its activations keep one range (which is also what lets INT8 work). Rendered pictures come
without a noise model; their network sees detail and local mean apart, for the same range.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cycleisp.models.attention import conv3x3

__all__ = ["DETAIL_GAIN", "MEAN_WINDOW", "SIGNAL_RANGE", "EdgeDenoiser", "SrgbEdgeDenoiser"]

MEAN_WINDOW = 9
"""Side of the square, in packed samples, whose mean is taken off the input."""

SIGNAL_RANGE = 4.0
"""The mean-free input is divided by this many noise scales and clamped to +-this value."""

DETAIL_GAIN = 4.0
"""Of the mean-free rendered input, which is ten times smaller than the mean."""


class ResidualBlock(nn.Module):
    """conv -> ReLU -> conv, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, channels), nn.ReLU(inplace=True), conv3x3(channels, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        out: Tensor = self.body(features) + features
        return out


class ResidualGroup(nn.Module):
    """Residual blocks in series and one conv, plus the input."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(blocks)),
            conv3x3(channels, channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        out: Tensor = self.body(features) + features
        return out


class _EdgeTrunk(nn.Module):
    """Head, residual groups with a long skip, tail: from cells of 2x2 samples to cells.

    Args:
        inputs: planes of a cell that goes in.
        outputs: planes of a cell that comes out.
        channels: features; a multiple of 16 runs best.
        groups: residual groups.
        blocks: residual blocks in each group.
    """

    def __init__(self, inputs: int, outputs: int, channels: int, groups: int, blocks: int) -> None:
        super().__init__()
        self.groups = groups
        self.blocks = blocks
        self.head = conv3x3(inputs, channels)
        self.body = nn.Sequential(*(ResidualGroup(channels, blocks) for _ in range(groups)))
        self.tail = conv3x3(channels, outputs)
        self._initialise()

    def _initialise(self) -> None:
        """K. He et al., "Delving Deep into Rectifiers", ICCV 2015, eq. 10; biases 0.

        The last conv of every residual branch is scaled down to 0.3, so that the sum over many
        branches starts near the head's output.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.get_parameter("bias"))
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, (ResidualBlock, ResidualGroup)):
                    module.body[-1].get_parameter("weight").mul_(0.3)
            self.tail.weight.mul_(0.1)

    @property
    def halo(self) -> int:
        """Samples on each side of a tile's core beyond which nothing influences the core.

        The core starts and ends on multiples of 2, as the cells of the pixel-unshuffle do.
        """
        convs = 2 + self.groups * (2 * self.blocks + 1)
        return 2 * convs + MEAN_WINDOW // 2

    def residual(self, planes: Tensor) -> Tensor:
        """(N, outputs / 4, h, w) float32 from (N, inputs / 4, h, w); h and w even."""
        features = self.head(functional.pixel_unshuffle(planes, 2))
        features = self.body(features) + features
        return functional.pixel_shuffle(self.tail(features), 2).float()


def _local_mean(planes: Tensor) -> Tensor:
    """(N, C, h, w): the mean of the square around each sample, of what of it is in the frame."""
    return functional.avg_pool2d(
        planes, MEAN_WINDOW, stride=1, padding=MEAN_WINDOW // 2, count_include_pad=False
    )


class EdgeDenoiser(_EdgeTrunk):
    """Denoised packed RAW from noisy packed RAW, its variance map and the frame's noise scale.

    Args:
        channels: features at half of the packed resolution.
        groups: residual groups.
        blocks: residual blocks in each group.
    """

    def __init__(self, channels: int, groups: int, blocks: int) -> None:
        super().__init__(32, 16, channels, groups, blocks)

    def forward(self, noisy: Tensor, variance: Tensor, noise_scale: Tensor) -> Tensor:
        """Denoised frame (N, 4, h, w), normalised, not clipped; h and w even.

        Args:
            noisy: (N, 4, h, w) float32, normalised, R, Gr, Gb, B.
            variance: (N, 4, h, w) float32, variance map of the same.
            noise_scale: (N, 1, 1, 1) float32, sqrt of the mean of the frame's variance map.
        """
        signal = (noisy - _local_mean(noisy)) / (SIGNAL_RANGE * noise_scale)
        signal = signal.clamp(-SIGNAL_RANGE, SIGNAL_RANGE)
        deviation = variance.sqrt() / noise_scale
        return noisy + noise_scale * self.residual(torch.cat([signal, deviation], 1))


class SrgbEdgeDenoiser(_EdgeTrunk):
    """Denoised sRGB from noisy sRGB, blind to the noise level.

    Args:
        channels: features at half of the resolution.
        groups: residual groups.
        blocks: residual blocks in each group.
    """

    def __init__(self, channels: int, groups: int, blocks: int) -> None:
        super().__init__(24, 12, channels, groups, blocks)

    def forward(self, noisy: Tensor) -> Tensor:
        """(N, 3, H, W) sRGB in [0, 1] to the same shape, not clipped; H and W even."""
        mean = _local_mean(noisy)
        return noisy + self.residual(torch.cat([DETAIL_GAIN * (noisy - mean), mean], 1))
