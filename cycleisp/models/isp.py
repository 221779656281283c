"""CycleISP's camera pipeline in both directions: sRGB to RAW, colour, RAW to sRGB.

S. W. Zamir et al., CVPR 2020, sections 3.1 to 3.3 and figures 2 and 3. Where the paper's figure and
its published networks differ the networks are followed, because checkpoints fit them: RAW2RGB has
no residual group behind the colour attention, and holds one convolution that is never used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cycleisp.models.attention import conv3x3, residual_trunk

__all__ = ["ColorBranch", "Raw2Rgb", "Rgb2Raw", "gaussian_kernel"]


def gaussian_kernel(side: int, sigma: float) -> Tensor:
    """(side, side) float32 samples of a Gaussian about the middle, summing to 1."""
    offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-offset.square() / (2 * sigma * sigma))
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).float()


class Rgb2Raw(nn.Module):
    """Packed RAW from sRGB."""

    def __init__(
        self, channels: int = 96, reduction: int = 8, groups: int = 3, blocks: int = 5
    ) -> None:
        super().__init__()
        activation = nn.PReLU(channels)
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = residual_trunk(channels, reduction, activation, groups, blocks)
        self.tail = nn.Sequential(conv3x3(channels, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, 4, H/2, W/2) R, Gr, Gb, B, not clipped, of (N, 3, H, W) sRGB in [0, 1]; H, W even."""
        camera: Tensor = self.tail(self.body(self.head(rgb)))
        red, green, blue = camera.unbind(1)
        return torch.stack(
            [
                red[:, 0::2, 0::2],
                green[:, 0::2, 1::2],
                green[:, 1::2, 0::2],
                blue[:, 1::2, 1::2],
            ],
            dim=1,
        )


class ColorBranch(nn.Module):
    """The colours of a picture without its detail, as a map that steers RAW2RGB."""

    BLUR_SIDE = 21
    """Pixels; of the published networks, so that the window ends at 0.83 sigma."""

    BLUR_SIGMA = 12.0
    """Pixels; the paper's."""

    def __init__(
        self, channels: int = 96, reduction: int = 8, groups: int = 2, blocks: int = 2
    ) -> None:
        super().__init__()
        activation = nn.PReLU(channels)
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = residual_trunk(channels, reduction, activation, groups, blocks)
        self.tail = nn.Sequential(conv3x3(channels, channels), nn.Sigmoid())
        self.blur = nn.Conv2d(3, 3, self.BLUR_SIDE, groups=3, bias=False)
        kernel = gaussian_kernel(self.BLUR_SIDE, self.BLUR_SIGMA)
        self.blur.weight = nn.Parameter(kernel.repeat(3, 1, 1, 1), requires_grad=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, C, H/2, W/2) in (0, 1) of (N, 3, H, W) sRGB in [0, 1]; H and W at least 11."""
        features = functional.max_pool2d(self.head(self._blurred(rgb)), 2)
        out: Tensor = self.tail(self.body(features))
        return out

    def _blurred(self, rgb: Tensor) -> Tensor:
        margin = self.BLUR_SIDE // 2
        # Never in bfloat16: it would round the colours, and the CPU kernel of torch 2.13 does not
        # come back from a channels-last picture.
        with torch.autocast(rgb.device.type, enabled=False):
            padded = functional.pad(rgb.to(self.blur.weight.dtype), [margin] * 4, mode="reflect")
            out: Tensor = self.blur(padded)
        return out


class Raw2Rgb(nn.Module):
    """sRGB from packed RAW, coloured by the map of the colour branch."""

    def __init__(
        self, channels: int = 96, reduction: int = 8, groups: int = 3, blocks: int = 5
    ) -> None:
        super().__init__()
        activation = nn.PReLU(channels)
        self.head = nn.Sequential(conv3x3(4, channels))
        self.body = residual_trunk(channels, reduction, activation, groups, blocks)
        self.tail = nn.Sequential(conv3x3(channels, channels), activation)
        self.tail_rgb = nn.Sequential(nn.Conv2d(channels, 12, 1))
        # Never used, in the published checkpoints all the same; frozen, so that distributed
        # training does not wait for a gradient that never comes.
        self.conv1x1 = nn.Sequential(nn.Conv2d(2 * channels, channels, 1)).requires_grad_(False)

    def forward(self, raw: Tensor, colors: Tensor) -> Tensor:
        """(N, 3, 2h, 2w) sRGB, not clipped.

        Args:
            raw: (N, 4, h, w) R, Gr, Gb, B in [0, 1].
            colors: (N, C, h, w), output of the colour branch for the clean picture.
        """
        features = self.body[:-1](self.head(raw))
        features = self.body[-1](features * colors + features)
        return functional.pixel_shuffle(self.tail_rgb(self.tail(features)), 2)
