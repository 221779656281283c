"""Laws of the edge denoisers: what an output sample depends on, and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from tests.training.golden_weights import fill_with_golden_weights

SIZES = ["tiny", "edge"]


def network(size: str) -> EdgeDenoiser:
    """A network whose every weight and bias does something."""
    model = create_model("raw_denoiser", size)
    assert isinstance(model, EdgeDenoiser)
    fill_with_golden_weights(model, frozenset({"tail.weight"}))
    return model.eval()


def frame(height: int, width: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy samples, variance map and noise scale of random frames, each with its own noise."""
    rng = np.random.default_rng(seed)
    shot = torch.from_numpy(rng.uniform(1e-4, 1e-2, (batch, 1, 1, 1))).float()
    clean = torch.from_numpy(rng.uniform(0, 1, (batch, 4, height, width))).float()
    normal = torch.from_numpy(rng.standard_normal((batch, 4, height, width))).float()
    noisy = clean + (shot * clean + shot**2).sqrt() * normal
    variance = shot * noisy.clamp(min=0) + shot**2
    return noisy, variance, variance.mean(dim=(1, 2, 3), keepdim=True).sqrt()


def denoised(model: nn.Module, noisy: Tensor, variance: Tensor, noise_scale: Tensor) -> Tensor:
    with torch.inference_mode():
        output: Tensor = model(noisy, variance, noise_scale)
    return output


@pytest.mark.parametrize("size", SIZES)
def test_nothing_beyond_the_halo_changes_a_core(size: str) -> None:
    model = network(size)
    start, stop = model.halo + 4, model.halo + 10
    side = stop + start
    noisy, variance, scale = frame(side, side)
    seen = torch.zeros(side, side, dtype=torch.bool)
    seen[start - model.halo : stop + model.halo, start - model.halo : stop + model.halo] = True
    other_noisy, other_variance, _ = frame(side, side, seed=1)

    core = denoised(model, noisy, variance, scale)[..., start:stop, start:stop]
    changed = denoised(
        model,
        torch.where(seen, noisy, 100 * other_noisy),
        torch.where(seen, variance, 100 * other_variance),
        scale,
    )[..., start:stop, start:stop]
    assert torch.equal(changed, core)


@pytest.mark.parametrize("size", SIZES)
def test_a_core_depends_on_its_halo_to_the_last_sample(size: str) -> None:
    model = network(size).double()
    start, stop = model.halo + 4, model.halo + 6
    inputs = [array.double() for array in frame(stop + start, stop + start)]
    inputs[0].requires_grad_()
    model(*inputs)[..., start:stop, start:stop].sum().backward()
    assert inputs[0].grad is not None
    influence = inputs[0].grad.abs().sum(dim=(0, 1))
    for extent in (influence.sum(dim=0), influence.sum(dim=1)):
        first, last = extent.nonzero().min().item(), extent.nonzero().max().item()
        assert (first, last) == (start - model.halo, stop - 1 + model.halo)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [2.0**-7, 2.0**5])
def test_exposure_scales_the_output(size: str, factor: float) -> None:
    model = network(size)
    noisy, variance, scale = frame(26, 34)
    scaled = denoised(model, factor * noisy, factor**2 * variance, factor * scale)
    # A power of two changes no mantissa, so not even rounding may differ.
    assert torch.equal(scaled, factor * denoised(model, noisy, variance, scale))


@settings(max_examples=12)
@given(st.floats(1e-2, 1e2), st.sampled_from(SIZES))
def test_any_exposure_scales_the_output(factor: float, size: str) -> None:
    model = network(size)
    noisy, variance, scale = frame(16, 16)
    scaled = denoised(model, factor * noisy, factor**2 * variance, factor * scale)
    expected = factor * denoised(model, noisy, variance, scale)
    # Rounding of float32 through 16 convolutions, in units of the noise.
    assert ((scaled - expected) / (factor * scale)).abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_an_offset_passes_through(size: str) -> None:
    model = network(size)
    noisy, variance, scale = frame(24, 30)
    shifted = denoised(model, noisy + 0.5, variance, scale) - 0.5
    # The offset costs bits: float32 has steps of 1.2e-7 at 1.5, some 1e-6 of the noise.
    apart = (shifted - denoised(model, noisy, variance, scale)) / scale
    assert apart.abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_frames_of_a_batch_do_not_meet(size: str) -> None:
    model = network(size)
    together = frame(32, 20, batch=3)
    output = denoised(model, *together)
    for index in range(3):
        alone = denoised(model, *(array[index : index + 1] for array in together))
        # Another batch size may make the convolutions sum in another order.
        assert ((output[index] - alone[0]) / together[2][index]).abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 64), (10, 6), (34, 18)])
def test_any_even_size_keeps_its_shape(size: str, height: int, width: int) -> None:
    noisy, variance, scale = frame(height, width)
    output = denoised(network(size), noisy, variance, scale)
    assert output.shape == noisy.shape
    assert output.dtype == torch.float32
    assert output.isfinite().all()


def test_bfloat16_convolutions_still_give_float32() -> None:
    noisy, variance, scale = frame(16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = denoised(network("tiny"), noisy, variance, scale)
    assert output.dtype == torch.float32
    # bfloat16 keeps 8 bits of the residual, the noisy samples keep all theirs.
    exact = denoised(network("tiny"), noisy, variance, scale)
    assert ((output - exact) / scale).abs().max() < 0.1


@pytest.mark.parametrize(
    ("size", "parameters", "kmac"), [("tiny", 106_352, 6.62), ("edge", 311_776, 19.44)]
)
def test_cost_is_as_stated(size: str, parameters: int, kmac: float) -> None:
    model = network(size)
    multiplications: list[int] = []

    def count(conv: nn.Module, _inputs: object, output: Tensor) -> None:
        per_output = math.prod(conv.get_parameter("weight").shape[1:])
        multiplications.append(per_output * output.numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    noisy, variance, scale = frame(32, 48)
    denoised(model, noisy, variance, scale)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(multiplications) / noisy.numel() / 1000 == pytest.approx(kmac, abs=0.005)
