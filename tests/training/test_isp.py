"""CycleISP's camera pipeline against golden vectors."""

from __future__ import annotations

import pytest
import torch

from cycleisp.models.isp import ColorBranch, gaussian_kernel
from tests.training.golden_weights import (
    TOLERANCE,
    golden_network,
    golden_vectors,
    largest_difference,
)

TAGS = pytest.mark.parametrize("tag", ["a", "b"])


@TAGS
def test_rgb2raw_agrees_with_golden(tag: str) -> None:
    golden = golden_vectors("rgb2raw")
    with torch.inference_mode():
        output = golden_network("rgb2raw")(golden[f"in_{tag}"])
    assert largest_difference(output, golden[f"out_{tag}"]) < TOLERANCE


@TAGS
def test_color_branch_agrees_with_golden(tag: str) -> None:
    golden = golden_vectors("color_branch")
    with torch.inference_mode():
        output = golden_network("color_branch")(golden[f"in_{tag}"])
    assert largest_difference(output, golden[f"out_{tag}"]) < TOLERANCE


@TAGS
def test_raw2rgb_agrees_with_golden(tag: str) -> None:
    golden, colors = golden_vectors("raw2rgb"), golden_vectors("color_branch")
    with torch.inference_mode():
        output = golden_network("raw2rgb")(golden[f"in_{tag}"], colors[f"out_{tag}"])
    assert largest_difference(output, golden[f"out_{tag}"]) < TOLERANCE


@pytest.mark.parametrize(("side", "sigma"), [(21, 12), (5, 1)])
def test_kernels_are_golden(side: int, sigma: int) -> None:
    golden = golden_vectors("blur")[f"kernel_{side}_sigma{sigma}"]
    # One rounding to float32 on each side, of values up to 0.17.
    assert largest_difference(gaussian_kernel(side, sigma), golden) < 2e-8


def _what_the_head_sees(branch: ColorBranch, picture: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    branch.head.register_forward_pre_hook(lambda _module, inputs: seen.append(*inputs))
    with torch.inference_mode():
        branch(picture)
    return seen[0]


def test_the_color_branch_sees_a_blurred_picture() -> None:
    golden = golden_vectors("blur")
    blurred = _what_the_head_sees(ColorBranch(channels=8), golden["in_b"])
    assert largest_difference(blurred, golden["blur_21_sigma12_b"]) < TOLERANCE


def test_the_blur_is_not_rounded_in_mixed_precision() -> None:
    golden = golden_vectors("blur")
    with torch.autocast("cpu", torch.bfloat16):
        blurred = _what_the_head_sees(ColorBranch(channels=8), golden["in_b"])
    assert largest_difference(blurred, golden["blur_21_sigma12_b"]) < TOLERANCE


@TAGS
def test_the_synthesis_path_agrees_with_golden(tag: str) -> None:
    golden = {
        name.removesuffix(f"_{tag}"): value for name, value in golden_vectors("synthesis").items()
    }
    rgb, shot, read = golden["rgb"], golden["shot"], golden["read"]
    with torch.inference_mode():
        raw_clean = golden_network("rgb2raw")(rgb).clamp(0, 1)
        deviation = (shot * raw_clean + read).sqrt()
        raw_noisy = (raw_clean + deviation * golden["z"]).clamp(0, 1)
        raw2rgb, colors = golden_network("raw2rgb"), golden_network("color_branch")(rgb)
        found = {
            "raw_clean": raw_clean,
            "raw_noisy": raw_noisy,
            "variance": shot * raw_noisy + read,
            "rgb_noisy": raw2rgb(raw_noisy, colors).clamp(0, 1),
            "rgb_roundtrip": raw2rgb(raw_clean, colors),
        }
    for name, value in found.items():
        assert largest_difference(value, golden[name]) < TOLERANCE, name
