"""Measured sensor profiles: what is read, what is refused, and what lies between the levels."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cycleisp.sensor_profile import SensorNoise, SensorProfile, read_sensor_profile
from cycleisp_runtime.errors import CalibrationError, CycleISPError, InputError, SettingsError
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import ROOT, shared

PROFILES = ROOT / "tests" / "data" / "noise_profiles"

RENO = read_sensor_profile(PROFILES / "pmrid_reno10x.json")
A7S2 = read_sensor_profile(PROFILES / "pmn_sony_a7s2.json")

START = b'{"schema": "noise-profile/1", "name": "test", "levels": '
LEVEL = {"iso": 100, "shot": 1e-4, "read": 1e-7, "channel": "all"}
DOUBLE = {"iso": 200, "shot": 2e-4, "read": 3e-7, "channel": "all"}


def written(folder: Path, *levels: dict[str, object], **changes: object) -> Path:
    """A profile file with these levels."""
    path = folder / "profile.json"
    profile = {"schema": "noise-profile/1", "name": "test", "levels": levels, **changes}
    path.write_text(json.dumps(profile), encoding="utf-8")
    return path


def complaint_about(path: Path) -> str | None:
    """Why a profile is refused, where it is."""
    try:
        read_sensor_profile(path)
    except CycleISPError as error:
        return error.problem.partition(":")[0]
    return None


def everything(noise: SensorNoise) -> tuple[float, ...]:
    return (*noise.pixel.shot, *noise.pixel.read, noise.row)


@pytest.mark.parametrize("name", ["pmrid_reno10x", "pmn_sony_a7s2"])
def test_measured_levels_come_back_as_they_are(name: str) -> None:
    path = PROFILES / f"{name}.json"
    profile, table = read_sensor_profile(path), json.loads(path.read_text("utf-8"))
    assert profile.name == table["name"]
    assert len(profile.levels) == len(table["levels"])
    for level in table["levels"]:
        expected = (*[level["shot"]] * 4, *[level["read"]] * 4, level.get("row", 0.0))
        # Powers of one and zero times a logarithm: the last bits of float64.
        assert everything(profile.at(level["iso"])) == pytest.approx(expected, rel=1e-12)


def test_planes_may_differ() -> None:
    (level,) = read_sensor_profile(PROFILES / "adobe_nikon_d500_iso400.json").levels
    green_shot, green_read = 8.8962e-05, 1.4566e-08
    assert level.iso == 400
    assert level.pixel == NoiseModel(
        (0.00010388, green_shot, green_shot, 9.7462e-05),
        (1.6972e-08, green_read, green_read, 1.4834e-08),
    )


def test_levels_come_in_any_order(tmp_path: Path) -> None:
    profile = read_sensor_profile(written(tmp_path, DOUBLE, LEVEL))
    assert [level.iso for level in profile.levels] == [100, 200]


def test_half_way_is_the_geometric_mean() -> None:
    for low, high in pairwise(A7S2.levels):
        middle = everything(A7S2.at(math.sqrt(low.iso * high.iso)))
        expected = np.sqrt(np.multiply(everything(low), everything(high)))
        assert middle == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(isos=st.lists(st.floats(60, 12_800), min_size=2, max_size=2))
def test_more_iso_is_more_noise(isos: list[float]) -> None:
    less, more = (everything(RENO.at(iso)) for iso in sorted(isos))
    assert np.greater_equal(more, less).all()


def test_a_variance_of_zero_is_passed_linearly(tmp_path: Path) -> None:
    profile = read_sensor_profile(written(tmp_path, {**LEVEL, "read": 0}, DOUBLE))
    assert profile.at(100).pixel.mean_read == 0
    assert profile.at(100 * math.sqrt(2)).pixel.mean_read == pytest.approx(1.5e-7, rel=1e-12)
    assert profile.at(50).pixel.mean_read == 0


@pytest.mark.parametrize("iso", [10, 25, 51_200])
def test_outside_gain_acts_on_everything(iso: float) -> None:
    nearest = A7S2.levels[0] if iso < 50 else A7S2.levels[-1]
    gain = iso / nearest.iso
    found = A7S2.at(iso)
    assert found.pixel.shot == pytest.approx([gain * s for s in nearest.pixel.shot], rel=1e-12)
    assert found.pixel.read == pytest.approx([gain**2 * r for r in nearest.pixel.read], rel=1e-12)
    assert found.row == pytest.approx(gain**2 * nearest.row, rel=1e-12)


@pytest.mark.parametrize("iso", [1e-320, 1e9, 1e300])
def test_noise_beyond_the_signal_is_refused(iso: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        A7S2.at(iso)


@pytest.mark.parametrize("iso", [0, -100, math.inf, math.nan])
def test_what_is_no_iso_is_refused(iso: float) -> None:
    with pytest.raises(SettingsError, match="not an ISO value"):
        RENO.at(iso)


def test_draws_cover_the_measured_range_evenly() -> None:
    rng = np.random.default_rng(0)
    drawn = [RENO.draw(rng) for _ in range(4000)]
    octaves = np.log2([noise.iso / 100 for noise in drawn])
    assert -1e-9 < octaves.min() < 0.1
    assert 5.9 < octaves.max() < 6 + 1e-9
    # Four standard errors of a uniform variable of width 6.
    assert octaves.mean() == pytest.approx(3, abs=4 * 6 / math.sqrt(12 * len(drawn)))
    assert drawn[0] == RENO.at(drawn[0].iso)
    assert drawn[0] == RENO.draw(np.random.default_rng(0))


def test_one_level_is_always_drawn() -> None:
    profile = SensorProfile("one", (RENO.levels[3],))
    drawn = profile.draw(np.random.default_rng(0))
    assert drawn.iso == pytest.approx(800)
    assert everything(drawn) == pytest.approx(everything(RENO.levels[3]), rel=1e-12)


@pytest.mark.parametrize("poisson", [False, True])
def test_samples_have_the_variance_that_is_claimed(poisson: bool) -> None:
    shot, read = (1e-3, 2e-3, 3e-3, 4e-3), (4e-5, 3e-5, 2e-5, 1e-5)
    noise = SensorNoise(800, NoiseModel(shot, read), row=2e-4)
    clean = np.full((4, 2000, 50), 0.2, np.float32)
    noisy = noise.samples(clean, np.random.default_rng(1), poisson=poisson)
    assert noisy.dtype == np.float32
    deviations = noisy.astype(np.float64) - clean
    within_rows = deviations.var(axis=2, ddof=1).mean(axis=1)
    expected = np.multiply(shot, 0.2) + read
    # Four standard errors: 2000 rows of 49 degrees of freedom; the count's kurtosis is negligible.
    np.testing.assert_allclose(within_rows, expected, rtol=4 * math.sqrt(2 / (2000 * 49)))
    between_rows = deviations.mean(axis=2).var(axis=1) - expected / 50
    np.testing.assert_allclose(between_rows, 2e-4, rtol=5 * math.sqrt(2 / 2000))
    np.testing.assert_allclose(noise.variance(clean)[:, 0, 0], expected + 2e-4, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shot": 0}, r"> 0\.0.*levels\[0\]\.shot"),
        ({"shot": 1}, r"< 1\.0.*levels\[0\]\.shot"),
        ({"read": -1e-9}, r">= 0\.0.*levels\[0\]\.read"),
        ({"row": -1e-9}, r">= 0\.0.*levels\[0\]\.row"),
        ({"iso": 0}, r"> 0\.0.*levels\[0\]\.iso"),
        ({"read": "1e-7"}, r"Expected `float`.*levels\[0\]\.read"),
        ({"channel": "cyan"}, r"'cyan'.*levels\[0\]\.channel"),
    ],
)
def test_impossible_values_are_refused(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    path = written(tmp_path, {**LEVEL, **change})
    with pytest.raises(InputError, match=complaint) as refusal:
        read_sensor_profile(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"schema": "noise-profile/1", "name": "x"}',
        b'{"schema": "noise-profile-set/1", "name": "x", "levels": []}',
        START + b'[{"iso": 1, "shot": NaN, "read": 0}]}',
        START + b'[{"iso": 1, "shot": 1e-3, "read": 1e999}]}',
        START + b'[], "law": ' + b"[" * 100_000,
    ],
    ids=["empty", "binary", "list", "no levels", "set", "nan", "infinite", "deep"],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, encoded: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(encoded)
    with pytest.raises(InputError, match="not a noise profile"):
        read_sensor_profile(path)


def test_a_file_of_a_megabyte_is_not_parsed(tmp_path: Path) -> None:
    path = written(tmp_path, LEVEL)
    path.write_bytes(path.read_bytes().ljust((1 << 20) + 1))
    with pytest.raises(InputError, match="too large"):
        read_sensor_profile(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_sensor_profile(path)


@pytest.mark.parametrize(
    ("levels", "complaint"),
    [
        ([], "no levels"),
        ([{**LEVEL, "iso": None}], "no ISO"),
        ([LEVEL, LEVEL], r"plane R at ISO 100 is not determined \(met 2 levels"),
        ([{**LEVEL, "channel": "R"}], r"plane Gr at ISO 100 is not determined \(met 0 levels"),
        ([LEVEL, {**LEVEL, "iso": 1600}], "placeholder"),
    ],
)
def test_levels_that_determine_nothing_are_refused(
    tmp_path: Path, levels: list[dict[str, object]], complaint: str
) -> None:
    with pytest.raises(CalibrationError, match=complaint):
        read_sensor_profile(written(tmp_path, *levels))


def test_the_profiles_of_the_reference_material_are_told_apart() -> None:
    paths = shared("data", "noise_profiles").glob("*.json")
    complaints = {path.stem: complaint_about(path) for path in paths}
    assert {name: complaint for name, complaint in complaints.items() if complaint} == {
        "darktable_set": "not a noise profile",
        "law_cycleisp_dnd": "the profile has no levels",
        "law_cycleisp_sidd": "the profile has no levels",
        "law_unprocessing": "the profile has no levels",
        "pmn_crvd": "a level has no ISO",
        "raspberrypi_set": "not a noise profile",
        "sidd_ip": "shot does not grow with ISO",
    }
