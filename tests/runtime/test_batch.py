"""What becomes of a file: its report, what it is refused for, and what passes unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.batch import BatchSettings, denoise_file
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW, RAW_BAD, a_bundle

FRAME = RAW / "d750_subifd_preview_grbg_ljpeg.dng"
"""It carries a NoiseProfile: shot 1.9e-4, read 3e-7."""

WITHOUT_PROFILE = RAW / "d750_orient6_ljpeg14.dng"


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(a_bundle(), IdentityBackend())


def test_a_report_says_what_was_read_and_written(tmp_path: Path, denoiser: Denoiser) -> None:
    job = Job(FRAME, tmp_path / "new" / "out.dng")
    outcome = denoise_file(job, denoiser, BatchSettings())
    assert outcome.error is None
    assert (outcome.input, outcome.output) == (str(FRAME), str(job.output))
    assert (outcome.camera, outcome.cfa, outcome.size) == ("NIKON D750", "GRBG", (256, 192))
    assert (outcome.black, outcome.white) == ((600, 600, 600, 600), 15520)
    assert (outcome.model, outcome.model_sha256) == ("testnet", "0" * 64)
    assert outcome.level_scale == 4
    assert outcome.noise is not None
    assert outcome.noise.source == "profile"
    assert outcome.noise.shot == pytest.approx(1.9e-4)
    assert list(outcome.seconds) == [
        "read", "noise", "levels", "noise scale", "risk", "cut", "network", "stitch", "write",
    ]  # fmt: skip
    np.testing.assert_array_equal(
        read_frame(job.output).samples, read_frame(FRAME).samples.astype(int) * 4
    )


def test_given_noise_comes_first(tmp_path: Path, denoiser: Denoiser) -> None:
    settings = BatchSettings(noise=NoiseModel.uniform(1e-3, 1e-6))
    outcome = denoise_file(Job(FRAME, tmp_path / "out.dng"), denoiser, settings)
    assert outcome.noise is not None
    assert (outcome.noise.source, outcome.noise.shot) == ("given", 1e-3)


def test_noise_is_estimated_where_nobody_says_it(tmp_path: Path, denoiser: Denoiser) -> None:
    outcome = denoise_file(Job(WITHOUT_PROFILE, tmp_path / "a.dng"), denoiser, BatchSettings())
    assert outcome.noise is not None
    assert outcome.noise.source == "estimate"
    assert outcome.noise.confidence is not None


@pytest.mark.parametrize("name", ["empty.dng", "xtrans_6x6.dng", "text.cr2", "missing.dng"])
def test_a_bad_file_is_one_line_and_nothing_is_written(
    tmp_path: Path, denoiser: Denoiser, name: str
) -> None:
    outcome = denoise_file(Job(RAW_BAD / name, tmp_path / "out/a.dng"), denoiser, BatchSettings())
    assert outcome.output is None
    assert outcome.error is not None
    assert outcome.error.startswith(f"{RAW_BAD / name}: ")
    assert "\n" not in outcome.error
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_never_overwritten(tmp_path: Path, denoiser: Denoiser) -> None:
    source = tmp_path / "a.dng"
    shutil.copy(FRAME, source)
    (tmp_path / "link.dng").symlink_to(source)
    for output in (source, tmp_path / "link.dng"):
        outcome = denoise_file(Job(source, output), denoiser, BatchSettings(force=True))
        assert outcome.error is not None
        assert "would overwrite its input" in outcome.error
    assert source.read_bytes() == FRAME.read_bytes()


def test_an_existing_output_needs_force(tmp_path: Path, denoiser: Denoiser) -> None:
    output = tmp_path / "out.dng"
    output.write_bytes(b"precious")
    outcome = denoise_file(Job(FRAME, output), denoiser, BatchSettings())
    assert outcome.error is not None
    assert "already exists" in outcome.error
    assert "read" not in outcome.seconds
    assert output.read_bytes() == b"precious"
    assert denoise_file(Job(FRAME, output), denoiser, BatchSettings(force=True)).error is None


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path: Path, denoiser: Denoiser) -> None:
    (tmp_path / "out").touch()
    outcome = denoise_file(Job(FRAME, tmp_path / "out/a.dng"), denoiser, BatchSettings())
    assert outcome.error is not None
    assert "the folder cannot be made (met File exists)" in outcome.error


@pytest.mark.parametrize(
    ("name", "why"),
    [("all_white_frame.dng", "saturated"), ("linearization_short.dng", "equal")],
)
def test_a_frame_without_a_picture_passes_unchanged_and_says_so(
    tmp_path: Path, denoiser: Denoiser, name: str, why: str
) -> None:
    source = RAW_BAD / name
    outcome = denoise_file(Job(source, tmp_path / "out.dng"), denoiser, BatchSettings())
    assert outcome.error is None
    assert f"every sample is {why}: nothing to denoise" in outcome.warnings
    assert outcome.noise is not None
    assert (outcome.noise.source, outcome.noise.shot) == ("none", None)
    before, after = read_frame(source), read_frame(tmp_path / "out.dng")
    np.testing.assert_array_equal(
        after.samples, before.samples.astype(int) * (outcome.level_scale or 0)
    )


def test_a_tile_that_no_frame_fits_stops_the_batch(tmp_path: Path, denoiser: Denoiser) -> None:
    with pytest.raises(SettingsError, match="too small for the model's halo"):
        denoise_file(Job(FRAME, tmp_path / "out.dng"), denoiser, BatchSettings(tile=4))
