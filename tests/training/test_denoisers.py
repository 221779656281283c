"""The paper's denoisers and their blocks against golden vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from cycleisp.models import create_model
from cycleisp.models.attention import (
    ChannelAttention,
    DualAttentionBlock,
    RecursiveResidualGroup,
    SpatialAttention,
)
from cycleisp_runtime.errors import SettingsError
from tests.training.golden_weights import fill_with_golden_weights

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

TOLERANCE = 1e-5
"""The golden values are float64 results; float32 alone differs by up to 2.1e-6."""

OUTPUT_CONV = frozenset({"tail.0.weight"})


def _largest_difference(output: torch.Tensor, golden: npt.NDArray[np.float32]) -> float:
    return float(np.abs(output.detach().numpy() - golden).max())


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
    with np.load(GOLDEN / "blocks.npz") as golden:
        output = module(torch.from_numpy(golden[f"in_c{channels}"]))
        assert _largest_difference(output, golden[f"{block}_c{channels}"]) < TOLERANCE


@pytest.mark.parametrize("tag", ["a", "b"])
def test_raw_denoiser_agrees_with_golden(tag: str) -> None:
    model = create_model("raw_denoiser", "full")
    fill_with_golden_weights(model, OUTPUT_CONV)
    with np.load(GOLDEN / "denoise_raw.npz") as golden, torch.inference_mode():
        noisy, variance = (torch.from_numpy(golden[f"{name}_{tag}"]) for name in ("in", "var"))
        assert _largest_difference(model(noisy, variance), golden[f"out_{tag}"]) < TOLERANCE


@pytest.mark.parametrize("tag", ["a", "b"])
def test_srgb_denoiser_agrees_with_golden(tag: str) -> None:
    model = create_model("srgb_denoiser", "full")
    fill_with_golden_weights(model, OUTPUT_CONV)
    with np.load(GOLDEN / "denoise_rgb.npz") as golden, torch.inference_mode():
        output = model(torch.from_numpy(golden[f"in_{tag}"]))
        assert _largest_difference(output, golden[f"out_{tag}"]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "parameters"), [("raw_denoiser", 2_838_404), ("srgb_denoiser", 2_834_947)]
)
def test_full_denoisers_have_the_published_layout(name: str, parameters: int) -> None:
    model = create_model(name, "full")
    assert sum(p.numel() for p in model.parameters()) == parameters
    names = [key for key in model.state_dict() if key.endswith("body.1.weight")]
    slopes = {model.state_dict()[key].data_ptr() for key in names}
    assert len(model.state_dict()) == 399
    assert len(slopes) == 1, "one PReLU serves the whole network"


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="raw_denoiser edge"):
        create_model("raw_denoiser", "huge")
