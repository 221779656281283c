"""Laws of the denoiser: what must not change does not, and tiles do not show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bayer import Phase, pack, packed_size, unpack
from cycleisp_runtime.bundle import Bundle, Halo
from cycleisp_runtime.denoised import residual_noise, unchanged
from cycleisp_runtime.denoiser import DEFAULT_TILE, Denoiser
from cycleisp_runtime.errors import BackendError, BundleError, SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW, a_bundle, a_record, write_bundle
from tests.networks import residual_network
from tests.strategies import frames, noise_models

NOISE = NoiseModel.uniform(1e-3, 1e-6)


class MeanOfThree(Backend):
    """Averages three neighbours of a row, which takes fine texture for noise."""

    name = "mean"
    precision = "fp32"

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        noisy = inputs["noisy"]
        padded = np.pad(noisy, [(0, 0)] * 3 + [(1, 1)], mode="edge")
        total: npt.NDArray[np.float32] = padded[..., :-2] + noisy + padded[..., 2:]
        return total * np.float32(1 / 3)


class ConstantBackend(Backend):
    """Puts out one value everywhere."""

    name = "constant"
    precision = "fp32"

    def __init__(self, value: float) -> None:
        self.value = value
        self.scales: list[float] = []
        self.closed = False

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.scales.append(float(inputs["noise_scale"][0, 0, 0, 0]))
        return np.full_like(inputs["noisy"], self.value)

    def close(self) -> None:
        self.closed = True


def a_frame(height: int = 30, width: int = 41, *, white: int = 1023, seed: int = 0) -> RawFrame:
    """A masked border, phase GBRG, black levels per position."""
    samples = np.random.default_rng(seed).integers(0, white + 1, (height + 3, width + 5), np.uint16)
    return RawFrame(samples, Phase.GBRG, (60, 61, 62, 63), white, Area(1, 2, height, width))


@given(
    frame=frames(),
    noise=noise_models,
    strength=st.sampled_from([0.0, 0.3, 1.0]),
    tile=st.sampled_from([10, 12, 16, 22, 512]),
    keep_levels=st.booleans(),
)
def test_identity_gives_the_input_back(
    frame: RawFrame, noise: NoiseModel, strength: float, tile: int, keep_levels: bool
) -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    result = denoiser(frame, noise=noise, strength=strength, tile=tile, keep_levels=keep_levels)
    scale = result.level_scale
    np.testing.assert_array_equal(result.frame.samples, frame.samples.astype(int) * scale)
    assert result.frame.cfa == frame.cfa
    assert result.frame.area == frame.area
    assert result.frame.white == frame.white * scale
    assert result.frame.black == tuple(black * scale for black in frame.black)


@given(frame=frames(), keep_levels=st.booleans())
def test_levels_fill_16_bits_with_a_power_of_two(frame: RawFrame, keep_levels: bool) -> None:
    before = frame.samples.copy()
    scale = unchanged(frame, keep_levels=keep_levels).level_scale
    highest = max(frame.white, int(frame.samples.max()))
    if keep_levels or frame.reserved_dn is not None:
        assert scale == 1
    else:
        assert math.log2(scale).is_integer()
        assert highest * scale <= 65535 or scale == 1
        assert highest * scale * 2 > 65535
    np.testing.assert_array_equal(frame.samples, before)


def test_kept_levels_that_nobody_asked_for_are_said() -> None:
    frame = RawFrame(
        np.full((4, 4), 9, np.uint16), Phase.RGGB, (0,) * 4, 99, Area(0, 0, 4, 4), reserved_dn=9
    )
    assert "marks defective samples by the value 9" in unchanged(frame).warnings[0]
    assert unchanged(frame, keep_levels=True).warnings == ()


@given(frame=frames(), value=st.floats(-0.5, 1.5), tile=st.sampled_from([10, 512]))
def test_only_visible_samples_without_a_mark_change(
    frame: RawFrame, value: float, tile: int
) -> None:
    result = Denoiser(a_bundle(), ConstantBackend(value))(frame, noise=NOISE, tile=tile)
    scale, rows, columns = result.level_scale, *np.indices(frame.visible.shape)
    black = np.array(frame.black)[rows % 2 * 2 + columns % 2]
    expected = black + value * (frame.white - black)
    if frame.black_rows is not None:
        expected = expected + frame.black_rows[:, None]
    if frame.black_columns is not None:
        expected = expected + frame.black_columns
    expected = np.clip(expected * scale, 0, 65535)
    if frame.reserved_dn is not None:
        marked = frame.visible == frame.reserved_dn
        np.testing.assert_array_equal(result.frame.visible == frame.reserved_dn, marked)
        expected[marked] = frame.reserved_dn
    # half a DN of rounding, float32 of 65535, and one DN of way round a reserved value
    tolerance = 0.51 + (frame.reserved_dn is not None)
    np.testing.assert_allclose(result.frame.visible, expected, atol=tolerance, rtol=0)
    masked = np.ones(frame.samples.shape, bool)
    masked[frame.area.slices] = False
    np.testing.assert_array_equal(
        result.frame.samples[masked], frame.samples[masked].astype(int) * scale
    )


def test_strength_mixes_linearly() -> None:
    frame = a_frame()
    outputs = [
        Denoiser(a_bundle(), ConstantBackend(0.5))(
            frame, noise=NOISE, strength=strength
        ).frame.visible.astype(float)
        for strength in (0.0, 0.25, 1.0)
    ]
    mixed = 0.75 * outputs[0] + 0.25 * outputs[2]
    np.testing.assert_allclose(outputs[1], mixed, atol=1.0)  # two roundings of half a DN


def test_strength_0_runs_no_network() -> None:
    backend = ConstantBackend(math.nan)
    result = Denoiser(a_bundle(), backend)(a_frame(), noise=NOISE, strength=0.0)
    assert backend.scales == []
    assert result.residual is None


def a_striped_frame(contrast: float, noise: NoiseModel) -> tuple[RawFrame, npt.NDArray[np.float64]]:
    """300x400 samples, stripes four samples wide, and their clean DN."""
    stripes = np.where(np.arange(400) % 8 < 4, contrast, -contrast)
    clean = np.broadcast_to(0.4 + stripes, (300, 400))
    deviation = np.sqrt(noise.mean_shot * clean + noise.mean_read)
    noisy = clean + deviation * np.random.default_rng(3).standard_normal(clean.shape)
    samples = np.rint(500 + 60000 * noisy).clip(0, 65535).astype(np.uint16)
    return RawFrame(samples, Phase.RGGB, (500,) * 4, 60500, Area(0, 0, 300, 400)), (
        500 + 60000 * clean
    )


@pytest.mark.parametrize("contrast", [0.0, 0.01, 0.02, 0.05])
def test_a_model_that_harms_texture_never_makes_a_frame_worse(contrast: float) -> None:
    frame, clean = a_striped_frame(contrast, NOISE)
    denoiser = Denoiser(a_bundle(), MeanOfThree())
    result = denoiser(frame, noise=NOISE)
    before, after = (np.square(x - clean).mean() for x in (frame.samples, result.frame.samples))
    gain = 10 * math.log10(before / after)
    assert gain > -0.01
    assert result.expected_gain_db == pytest.approx(gain, abs=0.15)  # 120,000 samples
    assert result.residual is not None
    assert result.residual.mean_shot / NOISE.mean_shot == pytest.approx(after / before, rel=0.04)
    warned = any("of the model's correction was used" in text for text in result.warnings)
    assert warned == (result.trust < 0.5)


def test_half_the_strength_is_half_of_what_is_trusted() -> None:
    frame, _ = a_striped_frame(0.02, NOISE)
    denoiser = Denoiser(a_bundle(), MeanOfThree())
    whole, half = (denoiser(frame, noise=NOISE, strength=strength) for strength in (1.0, 0.5))
    assert half.trust == whole.trust == whole.strength == 2 * half.strength
    assert half.expected_gain_db is not None
    assert whole.expected_gain_db is not None
    assert 0 < half.expected_gain_db < whole.expected_gain_db


def test_trust_does_not_depend_on_tiles_and_differs_from_frame_to_frame(network: Path) -> None:
    found = []
    for contrast in (0.0, 0.05):
        frame, _ = a_striped_frame(contrast, NOISE)
        with Denoiser.load(network, threads=1) as denoiser:
            results = [denoiser(frame, noise=NOISE, tile=tile) for tile in (24, 64, 512)]
        # the noise scale is a sum over tiles
        assert [r.trust for r in results] == pytest.approx([results[0].trust] * 3, rel=1e-6)
        found.append(results[0].trust)
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_the_noise_scale_is_one_number_per_frame() -> None:
    backend, frame = ConstantBackend(0.1), a_frame(90, 70)
    Denoiser(a_bundle(), backend)(frame, noise=NOISE, tile=16)
    assert len(backend.scales) > 20
    assert len(set(backend.scales)) == 1
    normalised = (frame.visible - 61.5) / (1023 - 61.5)
    estimate = math.sqrt(1e-3 * np.maximum(normalised, 0).mean() + 1e-6)
    assert backend.scales[0] == pytest.approx(estimate, rel=0.01)  # blacks differ by +-1.5 DN


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "net.bundle"
    return write_bundle(folder, residual_network().SerializeToString())


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(("height", "width"), [(96, 130), (61, 83), (2, 150), (151, 2)])
def test_tiles_agree_bit_by_bit_with_the_whole_frame(
    network: Path, phase: Phase, height: int, width: int
) -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (height, width), np.uint16)
    frame = RawFrame(samples, phase, (512, 500, 520, 510), 65535, Area(0, 0, height, width))
    noise = NoiseModel.uniform(1e-2, 1e-4)
    with Denoiser.load(network, threads=1) as denoiser:
        whole = denoiser(frame, noise=noise, tile=1024).frame.samples
        assert np.abs(whole.astype(int) - samples).max() > 100
        for tile in (18, 24, 32, 64, 128):
            tiled = denoiser(frame, noise=noise, tile=tile).frame.samples
            np.testing.assert_array_equal(tiled, whole)


def test_the_frame_is_what_the_network_says_of_the_mirrored_frame(network: Path) -> None:
    """The same picture by another way: numpy's padding, one run, plain arithmetic in float64."""
    frame, margin = a_frame(95, 112, white=65535), 12
    (height, width), (row, column) = frame.visible.shape, np.indices(frame.visible.shape)
    black = np.array(frame.black)[row % 2 * 2 + column % 2]
    span = 65535 - black
    normalised = np.pad((frame.visible - black) / span, margin, mode="reflect")
    packed = pack(normalised, frame.cfa).astype(np.float32)[None]
    variance = NOISE.variance(packed)
    rows, columns = packed_size(height, width, frame.cfa)
    inner = (slice(None), slice(None), slice(6, 6 + rows), slice(6, 6 + columns))
    noise_scale = math.sqrt(variance[inner].mean())
    with OnnxRuntimeBackend(Bundle.load(network), threads=1) as backend:
        known = backend.run(a_record().tensors.fill(packed, variance, noise_scale))
        denoised = known[inner][0]
    with Denoiser.load(network, threads=1) as denoiser:
        result = denoiser(frame, noise=NOISE)
    assert 0.01 < result.trust < 0.99
    corrected = unpack(denoised, frame.cfa, height, width) * span + black
    expected = frame.visible + result.trust * (corrected - frame.visible)
    # rounding, in float32 and in float64
    np.testing.assert_allclose(result.frame.visible, np.rint(expected).clip(0, 65535), atol=1)


@pytest.mark.parametrize("tile", [60, 128])
@pytest.mark.parametrize("name", ["edge", "tiny"])
def test_shipped_models_leave_no_seams(name: str, tile: int) -> None:
    frame, noise = read_frame(RAW / "d750_orient6_ljpeg14.dng"), NoiseModel.uniform(1.2e-2, 1e-4)
    with Denoiser.load(name, threads=1) as denoiser:
        whole, tiled = (
            denoiser(frame, noise=noise, tile=side).frame for side in (DEFAULT_TILE, tile)
        )
    error = (whole.visible.astype(float) - tiled.visible) / (whole.white - whole.black[0])
    assert -10 * math.log10((error**2).mean()) >= 90  # what the smaller halo promises


def test_small_tiles_use_the_smaller_halo_and_say_so() -> None:
    bundle = a_bundle(halo=Halo(for_90_db=4, for_120_db=20, exact=None))
    denoiser = Denoiser(bundle, IdentityBackend())
    assert denoiser(a_frame(), noise=NOISE, tile=80).warnings == ()
    assert "halo of 4 only" in denoiser(a_frame(), noise=NOISE, tile=78).warnings[0]
    with pytest.raises(SettingsError, match=r"tile: .*met 8, wanted at least 10"):
        denoiser(a_frame(), noise=NOISE, tile=8)


def test_noise_that_training_never_saw_is_said() -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    result = denoiser(a_frame(), noise=NoiseModel.uniform(0.05, 1e-3))
    assert result.warnings == (
        "shot noise 0.05 is outside of the model's training range, shot 1e-05 to 0.03",
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_no_picture_is_named(value: float) -> None:
    with pytest.raises(BackendError, match=r"testnet on constant: .*'denoised'.* NaN or infinity"):
        Denoiser(a_bundle(), ConstantBackend(value))(a_frame(), noise=NOISE)


def test_closing_the_denoiser_closes_the_backend() -> None:
    backend = ConstantBackend(0.0)
    with Denoiser(a_bundle(), backend):
        assert not backend.closed
    assert backend.closed


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strengths_outside_0_to_1_are_refused(strength: float) -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    with pytest.raises(SettingsError, match=r"strength: .*wanted 0\.\.1"):
        denoiser(a_frame(), noise=NOISE, strength=strength)


def test_models_for_pictures_are_refused() -> None:
    with pytest.raises(BundleError, match="task srgb, 3 channels"):
        Denoiser(a_bundle(task="srgb", channels=3), IdentityBackend())


def test_progress_counts_every_tile() -> None:
    seen: list[tuple[int, int]] = []
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    result = denoiser(
        a_frame(), noise=NOISE, tile=16, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 6) for done in range(1, 7)]
    assert list(result.seconds) == ["levels", "noise scale", "risk", "cut", "network", "stitch"]
    assert all(seconds >= 0 for seconds in result.seconds.values())


def test_residual_noise_follows_the_quality_table() -> None:
    """The table of the record gains 5 dB at shot 1e-4 and 10 dB at 1e-2."""
    quality = a_record().quality
    for shot, gain in ((1e-5, 5.0), (1e-4, 5.0), (1e-3, 7.5), (1e-2, 10.0), (1e-1, 10.0)):
        noise = NoiseModel.uniform(shot, shot / 100)
        left = residual_noise(quality, noise, 1.0)
        assert left.mean_shot == pytest.approx(shot * 10 ** (-gain / 10))
        assert left.mean_read == pytest.approx(shot / 100 * 10 ** (-gain / 10))


def test_half_the_strength_leaves_a_quarter_of_the_noise_and_a_share_of_the_rest() -> None:
    left = residual_noise(a_record().quality, NoiseModel.uniform(1e-2, 1e-4), 0.5)
    assert left.mean_shot == pytest.approx(1e-2 * (0.25 + 0.75 * 0.1))  # 10 dB gained


@given(noise=noise_models, strengths=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_more_strength_never_leaves_more_noise(
    noise: NoiseModel, strengths: tuple[float, float]
) -> None:
    weak, strong = (residual_noise(a_record().quality, noise, s) for s in sorted(strengths))
    assert noise.mean_shot >= weak.mean_shot >= strong.mean_shot > 0
