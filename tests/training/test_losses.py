"""The losses against golden values, and where their gradients go."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cycleisp.losses import (
    harm_penalty,
    joint_loss,
    noise_normalised_loss,
    raw2rgb_loss,
    rgb2raw_loss,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

TOLERANCE = 1e-6
"""Relative. The golden values are float64 results for float32 inputs."""


@pytest.fixture(name="golden")
def _golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "losses.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]).double() for name in arrays}


def test_rgb2raw_is_golden(golden: dict[str, Tensor]) -> None:
    predicted, true, eps = golden["raw_pred"], golden["raw_gt"], float(golden["eps"])
    assert predicted.min() < 0, "a clamp before the plain term would go unseen"
    both = rgb2raw_loss(predicted, true, eps=eps)
    plain = rgb2raw_loss(predicted, true, eps=eps, log_weight=0)
    assert both.item() == pytest.approx(golden["rgb2raw"].item(), rel=TOLERANCE)
    assert plain.item() == pytest.approx(golden["raw_l1"].item(), rel=TOLERANCE)
    assert (both - plain).item() == pytest.approx(golden["raw_log_l1"].item(), rel=TOLERANCE)
    assert rgb2raw_loss(predicted, true) == both


def test_raw2rgb_and_joint_are_golden(golden: dict[str, Tensor]) -> None:
    raw2rgb = raw2rgb_loss(golden["rgb_pred"], golden["rgb_gt"])
    assert raw2rgb.item() == pytest.approx(golden["raw2rgb"].item(), rel=TOLERANCE)
    rgb2raw = rgb2raw_loss(golden["raw_pred"], golden["raw_gt"])
    joint = joint_loss(rgb2raw=rgb2raw, raw2rgb=raw2rgb)
    assert joint.item() == pytest.approx(golden["joint_beta_0p5"].item(), rel=TOLERANCE)
    unequal = joint_loss(rgb2raw=torch.tensor(3.0), raw2rgb=torch.tensor(7.0), beta=0.25)
    assert unequal.item() == 6.0


def test_the_log_term_weighs_relative_errors() -> None:
    for signal in (0.01, 0.1, 0.8):
        true = torch.full((1, 4, 2, 2), signal, dtype=torch.float64)
        loss = rgb2raw_loss(1.1 * true, true) - rgb2raw_loss(1.1 * true, true, log_weight=0)
        assert loss.item() == pytest.approx(math.log(1.1), rel=1e-9)


def test_below_eps_only_the_plain_term_pulls() -> None:
    true = torch.full((1, 4, 1, 1), 0.5)
    for value, slope in ((-0.2, -1.0), (5e-4, -1.0), (0.1, -1.0 - 1 / 0.1)):
        predicted = torch.full((1, 4, 1, 1), value, requires_grad=True)
        rgb2raw_loss(predicted, true).backward()  # type: ignore[no-untyped-call]
        assert predicted.grad is not None
        # A mean over four samples.
        np.testing.assert_allclose(predicted.grad.numpy(), slope / 4, rtol=1e-5)


def test_out_of_range_predictions_have_a_gradient() -> None:
    predicted = torch.tensor([-0.5, 1.5], requires_grad=True)
    raw2rgb_loss(predicted, torch.tensor([0.0, 1.0])).backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    np.testing.assert_array_equal(predicted.grad.numpy(), [-0.5, 0.5])


def test_the_joint_loss_reaches_both_networks() -> None:
    raw_side, rgb_side = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
    raw = raw_side * torch.full((1, 4, 2, 2), 0.2)
    rgb = rgb_side * raw.mean().expand(1, 3, 4, 4)
    end = raw2rgb_loss(rgb, torch.ones(1, 3, 4, 4))
    start = rgb2raw_loss(raw, raw.detach())
    joint_loss(rgb2raw=start, raw2rgb=end).backward()  # type: ignore[no-untyped-call]
    assert raw_side.grad is not None
    assert rgb_side.grad is not None
    # |1 - 0.2 a b| / 2 in each of the factors; the perfect start adds nothing.
    assert raw_side.grad.item() == pytest.approx(-0.1)
    assert rgb_side.grad.item() == pytest.approx(-0.1)


def test_a_mean_does_not_depend_on_the_batch(golden: dict[str, Tensor]) -> None:
    predicted, true = golden["raw_pred"], golden["raw_gt"]
    doubled = rgb2raw_loss(torch.cat([predicted, predicted]), torch.cat([true, true]))
    assert doubled.item() == pytest.approx(rgb2raw_loss(predicted, true).item(), rel=1e-12)


def test_every_noise_level_weighs_the_same() -> None:
    rng = np.random.default_rng(0)
    clean = torch.zeros(2, 4, 50, 50, dtype=torch.float64)
    scale = torch.tensor([0.01, 0.1], dtype=torch.float64).reshape(2, 1, 1, 1)
    residual = scale * torch.from_numpy(rng.standard_normal((2, 4, 50, 50)))
    losses = [noise_normalised_loss(residual[[i]], clean[[i]], scale[[i]]).item() for i in range(2)]
    # Residuals as large as the noise: 1, known to four standard errors of 10,000 squares.
    assert losses == pytest.approx([1, 1], abs=4 * math.sqrt(2 / 10_000))
    both = noise_normalised_loss(residual, clean, scale).item()
    assert both == pytest.approx(sum(losses) / 2, rel=1e-12)


def test_harm_is_what_a_patch_lost_and_nothing_where_it_gained() -> None:
    rng = np.random.default_rng(1)
    noise = torch.from_numpy(rng.standard_normal((2, 4, 8, 8)))
    clean = torch.zeros_like(noise)
    scale = torch.full((2, 1, 1, 1), 0.1, dtype=torch.float64)
    noisy = scale * noise
    factors = torch.tensor([0.5, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    harm = harm_penalty(factors * noisy, noisy, clean, scale).item()
    # The first patch gained; the second has four times the error, so that it lost three of it.
    assert harm == pytest.approx(3 * noise[1].square().mean().item() / 2, rel=1e-12)
    assert harm_penalty(noisy, noisy, clean, scale).item() == 0
