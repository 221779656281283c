"""The blocks of CycleISP: channel and spatial attention in parallel, inside residual groups.

S. W. Zamir et al., "CycleISP: Real Image Restoration via Improved Data Synthesis", CVPR 2020,
sections 3.1 and 3.4. Attribute names give the parameter names of the published checkpoints
(``body.0.SA.spatial.conv.weight`` ...), so that a user's own download can be loaded.

One PReLU serves a whole network: each block holds the same module, which makes it one parameter
under many names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = [
    "ChannelAttention",
    "DualAttentionBlock",
    "RecursiveResidualGroup",
    "SpatialAttention",
    "conv3x3",
    "residual_trunk",
]


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution with bias that keeps the size by zero padding."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ChannelAttention(nn.Module):
    """The input times one gate per channel, computed from the mean over the whole frame."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        gates: Tensor = self.conv_du(self.avg_pool(features))
        return features * gates


class _PooledConv(nn.Module):
    """Holds the one convolution of ``SpatialAttention`` under its published name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)


class SpatialAttention(nn.Module):
    """The input times one gate per pixel, computed from maximum and mean over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = _PooledConv()

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        pooled = torch.cat(
            [features.amax(dim=1, keepdim=True), features.mean(dim=1, keepdim=True)], dim=1
        )
        return features * torch.sigmoid(self.spatial.conv(pooled))


class DualAttentionBlock(nn.Module):
    """Two convolutions, both attentions side by side, a 1x1 convolution, plus the input."""

    def __init__(self, channels: int, reduction: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.SA = SpatialAttention()
        self.CA = ChannelAttention(channels, reduction)
        self.body = nn.Sequential(
            conv3x3(channels, channels), activation, conv3x3(channels, channels)
        )
        self.conv1x1 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        inner = self.body(features)
        out: Tensor = self.conv1x1(torch.cat([self.SA(inner), self.CA(inner)], dim=1)) + features
        return out


class RecursiveResidualGroup(nn.Module):
    """Dual attention blocks in series and a convolution, plus the input."""

    def __init__(self, channels: int, reduction: int, activation: nn.PReLU, blocks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(DualAttentionBlock(channels, reduction, activation) for _ in range(blocks)),
            conv3x3(channels, channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        out: Tensor = self.body(features) + features
        return out


def residual_trunk(
    channels: int, reduction: int, activation: nn.PReLU, groups: int, blocks: int
) -> nn.Sequential:
    """Residual groups in series, a convolution and the network's activation."""
    return nn.Sequential(
        *(RecursiveResidualGroup(channels, reduction, activation, blocks) for _ in range(groups)),
        conv3x3(channels, channels),
        activation,
    )
