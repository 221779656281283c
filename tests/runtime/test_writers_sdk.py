"""Adobe's own DNG SDK as the judge of our files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.dng import Tag
from cycleisp_runtime.frame import Area, Camera, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.writers import write_frame
from tests.helpers import RAW
from tests.runtime.dng_builder import BYTE, Item, a_dng
from tests.runtime.libraw_view import corpus_frame

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("dngpy") is None,
    reason="needs Adobe's DNG SDK: pip install dngpy==0.1.3",
)

READ = """
import sys, dngpy, numpy
numpy.save(sys.argv[2], dngpy.Dng(sys.argv[1]).raw_pixels)
"""


def assert_the_sdk_agrees(path: Path, frame: RawFrame) -> None:
    """It opens the file, finds no error, and reads these samples."""
    pixels = path.with_suffix(".npy")
    done = subprocess.run(
        [sys.executable, "-c", READ, path, pixels], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "*** Error" not in done.stderr
    assert np.array_equal(np.load(pixels)[:, :, 0], frame.samples)


@pytest.mark.parametrize("name", [path.name for path in sorted(RAW.glob("*.dng"))])
def test_rewritten_files(name: str, tmp_path: Path) -> None:
    frame, out = corpus_frame(RAW / name), tmp_path / "out.dng"
    write_frame(
        frame,
        out,
        level_scale=1,
        noise_reduction=1,
        residual_noise=NoiseModel.uniform(1e-4, 1e-6),
    )
    assert_the_sdk_agrees(out, frame)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", [Tag.RawImageDigest, Tag.NewRawImageDigest])
def test_digests(tag: Tag, order: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(3).integers(600, 9000, (300, 521), np.uint16)
    stale = [Item(tag, BYTE, range(16))]
    source, out = tmp_path / "in.dng", tmp_path / "out.dng"
    source.write_bytes(a_dng(samples, order=order, place="second SubIFD", main=stale))
    area = Area(0, 0, *samples.shape)
    frame = RawFrame(samples, Phase.RGGB, (600.0,) * 4, 15520.0, area, source=source)
    write_frame(frame, out, level_scale=1, noise_reduction=0, residual_noise=None)
    with pytest.raises(AssertionError):
        assert_the_sdk_agrees(source, frame)  # it does check them
    assert_the_sdk_agrees(out, frame)


def test_new_files(tmp_path: Path) -> None:
    frame = replace(corpus_frame(RAW / "rewrapped_d750.nef"), camera=Camera("Acme", "One"))
    out = tmp_path / "out.dng"
    write_frame(
        frame,
        out,
        level_scale=1,
        noise_reduction=1,
        residual_noise=NoiseModel((1e-4, 2e-4, 3e-4, 4e-4), (1e-6,) * 4),
    )
    assert_the_sdk_agrees(out, frame)
