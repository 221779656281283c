"""The synthesis of pairs: golden values, what each target is, sizes, seams, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cycleisp.models.attention import ChannelAttention
from cycleisp.noise import CYCLEISP_DND, NoiseLaw
from cycleisp.sensor_profile import read_sensor_profile
from cycleisp.synthesis.cycle import (
    TARGETS,
    RawSynthesis,
    SrgbSynthesis,
    Target,
    as_pictures,
    prefiltered,
)
from cycleisp.synthesis.raw_noise import NoiseLevel, RawNoise
from cycleisp.synthesis.tiles import TILE
from cycleisp_runtime.errors import BackendError, SettingsError
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import ROOT
from tests.training.golden_weights import (
    TOLERANCE,
    golden_network,
    golden_vectors,
    largest_difference,
)
from tests.training.synthesis_networks import NAMES, small_networks

NOISE = RawNoise(CYCLEISP_DND)


class FixedNormals(np.random.Generator):
    """A generator whose normal numbers are given."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        super().__init__(np.random.PCG64(0))
        self._values = values.ravel()

    def standard_normal(self, size, dtype=np.float64, out=None):  # type: ignore[no-untyped-def,override]  # noqa: ANN001, ANN201, ARG002
        count = math.prod(size)
        values, self._values = self._values[:count], self._values[count:]
        return values.reshape(size)


def one_level(shot: float, read: float) -> RawNoise:
    return RawNoise(NoiseLaw(shot, shot, spread=0.0, slope=0.0, intercept=math.log(read)))


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(index) for index in range(count)]


def photographs(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def small_synthesis(target: Target, tile: int = TILE) -> SrgbSynthesis:
    to_raw, branch, to_rgb = small_networks()
    return SrgbSynthesis(RawSynthesis(to_raw, tile), branch, to_rgb, target)


@pytest.mark.parametrize("tag", ["a", "b"])
def test_the_path_is_golden(tag: str) -> None:
    golden = {
        name.removesuffix(f"_{tag}"): value for name, value in golden_vectors("synthesis").items()
    }
    to_raw, branch, to_rgb = (golden_network(name) for name in NAMES)
    synthesis = SrgbSynthesis(RawSynthesis(to_raw), branch, to_rgb, "blurred")
    noise = one_level(golden["shot"].item(), golden["read"].item())
    rngs = [FixedNormals(z.numpy()) for z in golden["z"]]
    with torch.inference_mode():
        raw = synthesis.raw.with_noise(golden["rgb"], noise, rngs)
        found = {
            "raw_clean": raw.clean,
            "raw_noisy": raw.noisy,
            "variance": raw.variance,
            "rgb_noisy": synthesis.render(raw.noisy, golden["rgb"]).clamp(0, 1),
            "rgb_roundtrip": synthesis.render(raw.clean, golden["rgb"]),
        }
    for name, value in found.items():
        assert largest_difference(value, golden[name]) < TOLERANCE, name


def test_the_prefilter_is_golden() -> None:
    golden = golden_vectors("blur")
    assert largest_difference(prefiltered(golden["in_b"]), golden["blur_5_sigma1_b"]) < TOLERANCE


def test_raw_is_made_of_the_prefiltered_photograph() -> None:
    synthesis, rgb = small_synthesis("blurred").raw, photographs(1, 3, 24, 32)
    with torch.inference_mode():
        clean = synthesis.pairs(rgb, NOISE, generators(1)).clean
        assert torch.equal(clean, synthesis.rgb2raw(prefiltered(rgb)).clamp(0, 1))
        assert not torch.equal(clean, synthesis.rgb2raw(rgb).clamp(0, 1))


def test_each_target_is_what_it_is_called() -> None:
    rgb = photographs(2, 3, 24, 32)
    seen = prefiltered(rgb)
    with torch.inference_mode():
        pairs = {
            target: small_synthesis(target).pairs(rgb, one_level(0.01, 1e-3), generators(2))
            for target in TARGETS
        }
        raw = pairs["blurred"].raw
        render = small_synthesis("blurred").render
        noisy, clean = (render(each, seen).clamp(0, 1) for each in (raw.noisy, raw.clean))
    assert all(torch.equal(raw.noisy, each.raw.noisy) for each in pairs.values())
    assert torch.equal(pairs["blurred"].clean, seen)
    assert torch.equal(pairs["round-trip"].clean, clean)
    assert torch.equal(pairs["residual"].clean, rgb)
    assert torch.equal(pairs["blurred"].noisy, noisy)
    assert torch.equal(pairs["round-trip"].noisy, noisy)
    assert torch.equal(pairs["residual"].noisy, (rgb + (noisy - clean)).clamp(0, 1))
    assert not torch.equal(noisy, clean)


@pytest.mark.parametrize("target", TARGETS)
def test_without_noise_only_the_blurred_target_differs_from_its_pair(target: Target) -> None:
    with torch.inference_mode():
        pairs = small_synthesis(target).pairs(
            photographs(1, 3, 24, 32), one_level(1e-30, 1e-30), generators(1)
        )
    assert torch.allclose(pairs.noisy, pairs.clean, rtol=0, atol=1e-6) == (target != "blurred")


@settings(deadline=None, max_examples=20)
@given(st.integers(12, 41), st.integers(12, 41), st.sampled_from(TARGETS))
def test_every_size_comes_out_as_it_went_in(height: int, width: int, target: Target) -> None:
    with torch.inference_mode():
        pairs = small_synthesis(target).pairs(
            photographs(1, 3, height, width), NOISE, generators(1)
        )
    assert pairs.clean.shape == pairs.noisy.shape == (1, 3, height, width)
    assert pairs.raw.clean.shape == pairs.raw.noisy.shape == (1, 4, -(-height // 2), -(-width // 2))
    assert 0 <= pairs.noisy.min() <= pairs.noisy.max() <= 1


def test_noise_depends_on_the_pictures_generator_alone() -> None:
    synthesis, rgb = small_synthesis("round-trip"), photographs(2, 3, 20, 20)
    with torch.inference_mode():
        both = synthesis.pairs(rgb, NOISE, generators(2))
        second = synthesis.pairs(rgb[1:], NOISE, generators(2)[1:])
    assert both.raw.levels[1] == second.raw.levels[0]
    # Batches are summed in another order: some ulps of values below 1.
    assert largest_difference(both.raw.noisy[1:], second.raw.noisy) < 1e-5
    assert largest_difference(both.noisy[1:], second.noisy) < 1e-5


def test_gradients_reach_all_networks() -> None:
    synthesis = small_synthesis("blurred")
    pairs = synthesis.with_sensor_noise(photographs(1, 3, 24, 24), 0.01 * photographs(1, 4, 12, 12))
    torch.autograd.backward(pairs.noisy.sum())
    for network in (synthesis.raw.rgb2raw, synthesis.color_branch, synthesis.raw2rgb):
        head = next(network.parameters())
        assert head.grad is not None
        assert head.grad.abs().sum() > 0


def test_the_sensors_own_noise_is_rendered() -> None:
    synthesis, clean = small_synthesis("blurred"), photographs(1, 3, 24, 32)
    residual = 0.1 * (photographs(1, 4, 12, 16) - 0.5)
    with torch.inference_mode():
        pairs = synthesis.with_sensor_noise(clean, residual)
        raw = synthesis.raw.rgb2raw(clean).clamp(0, 1)
        wanted = synthesis.render((raw + residual).clamp(0, 1), clean).clamp(0, 1)
    assert torch.equal(pairs.clean, clean)
    assert torch.equal(pairs.noisy, wanted)


def without_pooling(networks: Sequence[nn.Module]) -> None:
    """Let every gate of channel attention be 1/2, whatever the picture."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, ChannelAttention):
                last = module.conv_du[2]
                assert isinstance(last, nn.Conv2d)
                nn.init.zeros_(last.weight)
                assert last.bias is not None
                nn.init.zeros_(last.bias)


def tiled_and_whole(synthesis: SrgbSynthesis, tile: int) -> tuple[list[Tensor], list[Tensor]]:
    rgb = photographs(1, 3, 150, 243)
    tiled = SrgbSynthesis(
        RawSynthesis(synthesis.raw.rgb2raw, tile),
        synthesis.color_branch,
        synthesis.raw2rgb,
        synthesis.target,
    )
    results = []
    with torch.inference_mode():
        for each in (tiled, synthesis):
            raw = each.raw.clean_raw(rgb)
            results.append([raw, each.render(raw, rgb)])
    return results[0], results[1]


def test_tiles_leave_no_seam_where_nothing_pools() -> None:
    synthesis = small_synthesis("blurred")
    without_pooling([synthesis.raw.rgb2raw, synthesis.color_branch, synthesis.raw2rgb])
    # Other sizes are convolved by other kernels: some ulps of values below 1.
    for tiled, whole in zip(*tiled_and_whole(synthesis, 128), strict=True):
        assert largest_difference(tiled, whole) < 1e-5


def test_pooling_over_a_tile_costs_little() -> None:
    for tiled, whole in zip(*tiled_and_whole(small_synthesis("blurred"), 128), strict=True):
        error = (tiled - whole).square().mean().item()
        # 74 dB and more were seen with fresh networks of this size.
        assert error < 10**-6


def test_a_network_that_gives_nan_is_refused() -> None:
    synthesis = small_synthesis("blurred").raw
    nn.init.constant_(next(synthesis.rgb2raw.parameters()), math.nan)
    with torch.inference_mode(), pytest.raises(BackendError, match="no picture"):
        synthesis.pairs(photographs(1, 3, 24, 24), NOISE, generators(1))
    with pytest.raises(BackendError):
        as_pictures(torch.full((1, 3, 2, 2), math.inf))


FLAT = np.full((4, 200, 200), 0.25, np.float32)


@pytest.mark.parametrize("poisson", [False, True])
def test_noise_has_the_variance_that_its_level_says(poisson: bool) -> None:
    rng = np.random.default_rng(0)
    level = NoiseLevel(NoiseModel((1e-3, 2e-3, 3e-3, 4e-3), (1e-5, 2e-5, 3e-5, 4e-5)))
    noise = RawNoise(CYCLEISP_DND, poisson=poisson).samples(FLAT, level, rng) - FLAT
    expected = level.variance(FLAT)[:, 0, 0]
    # 40,000 samples: the variance's own deviation is 0.7 %.
    np.testing.assert_allclose(noise.var(axis=(1, 2)), expected, rtol=0.04)


def test_row_noise_comes_on_top_and_is_told() -> None:
    noise = RawNoise(CYCLEISP_DND, row=50.0)
    level = noise.level(np.random.default_rng(3))
    assert level.row == pytest.approx(50 * level.pixel.mean_read)
    drawn = noise.samples(FLAT, level, np.random.default_rng(4)) - FLAT
    rows = drawn[:2].mean(axis=(0, 2))
    # 200 rows: 10 % of deviation, and what 400 samples leave of the pixels' own noise.
    assert rows.var() == pytest.approx(level.row + level.variance(FLAT).mean() / 400, rel=0.4)


def test_defects_are_as_many_as_asked_for() -> None:
    noise = RawNoise(CYCLEISP_DND, hot=0.02, dead=0.01)
    rng = np.random.default_rng(0)
    drawn = noise.samples(FLAT, NoiseLevel(NoiseModel.uniform(1e-4, 1e-6)), rng)
    assert (drawn == 1).mean() == pytest.approx(0.02, rel=0.1)
    assert (drawn == 0).mean() == pytest.approx(0.01, rel=0.1)


def test_a_measured_sensor_gives_its_own_levels() -> None:
    profile = read_sensor_profile(ROOT / "tests/data/noise_profiles/pmn_sony_a7s2.json")
    level = RawNoise(profile).level(np.random.default_rng(0))
    shots = [measured.pixel.mean_shot for measured in profile.levels]
    assert min(shots) <= level.pixel.mean_shot <= max(shots)


@pytest.mark.parametrize("wrong", [{"row": -1.0}, {"hot": 1.5}, {"hot": 0.6, "dead": 0.6}])
def test_noise_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="out of range"):
        RawNoise(CYCLEISP_DND, **wrong)  # type: ignore[arg-type]
