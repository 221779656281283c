"""The paper's denoisers and their blocks against golden vectors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cycleisp.models.attention import (
    ChannelAttention,
    DualAttentionBlock,
    RecursiveResidualGroup,
    SpatialAttention,
)
from tests.training.golden_weights import (
    TOLERANCE,
    fill_with_golden_weights,
    golden_network,
    golden_vectors,
    largest_difference,
)


@pytest.mark.parametrize(("channels", "reduction"), [(64, 16), (96, 8)])
@pytest.mark.parametrize("block", ["ca", "sa", "dab", "rrg"])
def test_blocks_agree_with_golden(block: str, channels: int, reduction: int) -> None:
    activation = nn.PReLU(channels)
    build: dict[str, Callable[[], nn.Module]] = {
        "ca": lambda: ChannelAttention(channels, reduction),
        "sa": SpatialAttention,
        "dab": lambda: DualAttentionBlock(channels, reduction, activation),
        "rrg": lambda: RecursiveResidualGroup(channels, reduction, activation, blocks=2),
    }
    module = build[block]()
    fill_with_golden_weights(module)
    golden = golden_vectors("blocks")
    output = module(golden[f"in_c{channels}"])
    assert largest_difference(output, golden[f"{block}_c{channels}"]) < TOLERANCE


@pytest.mark.parametrize("tag", ["a", "b"])
def test_raw_denoiser_agrees_with_golden(tag: str) -> None:
    golden = golden_vectors("denoise_raw")
    with torch.inference_mode():
        output = golden_network("raw_denoiser")(golden[f"in_{tag}"], golden[f"var_{tag}"])
    assert largest_difference(output, golden[f"out_{tag}"]) < TOLERANCE


@pytest.mark.parametrize("tag", ["a", "b"])
def test_srgb_denoiser_agrees_with_golden(tag: str) -> None:
    golden = golden_vectors("denoise_rgb")
    with torch.inference_mode():
        output = golden_network("srgb_denoiser")(golden[f"in_{tag}"])
    assert largest_difference(output, golden[f"out_{tag}"]) < TOLERANCE
