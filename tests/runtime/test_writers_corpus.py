"""Every DNG of the corpus, rewritten: what differs, what must not, what other programs see."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from benchmarks.tag_listing import tag_differences
from cycleisp_runtime.denoised import unchanged
from cycleisp_runtime.readers import read_frame
from tests.helpers import DEMO, RAW, shared
from tests.runtime.libraw_view import corpus_frame, libraw_view
from tests.runtime.rewriting import (
    assert_sound_structure,
    changed_old_bytes,
    mosaic_of,
    rewritten,
)

STORAGE = {
    "BitsPerSample",
    "Compression",
    "StripOffsets",
    "RowsPerStrip",
    "StripByteCounts",
    "TileWidth",
    "TileLength",
    "TileOffsets",
    "TileByteCounts",
    "LinearizationTable",
    "SubIFDs",
}
"""Tags that say where and how samples are stored: they differ, the others must not."""

ALSO_DIFFERENT = {
    "pidng_gbrg_10b_no_levels.dng": {"WhiteLevel", "DNGVersion#2", "DNGBackwardVersion#2"}
}
"""No WhiteLevel, whose default depends on the bits; two tags that stand twice."""

SHIPPED_DNGS = [*sorted(RAW.glob("*.dng")), *sorted(DEMO.glob("*.dng"))]
SHARED_DNGS = [
    "bmpcc4k_rggb_12b_ljpeg.dng",
    "canon_kissx4_rggb_14b_packed.dng",
    "demo_sony_a7r3_iso3200_noiseprofile_ljpeg_tiles.dng",
    "pidng_gbrg_10b_no_levels.dng",
    "rpi_imx296_bggr_10b_dark_crop.dng",
    "rpi_imx296_bggr_10b_flat.dng",
]


@pytest.fixture(params=[path.name for path in SHIPPED_DNGS] + SHARED_DNGS)
def dng(request: pytest.FixtureRequest) -> Path:
    """Every DNG of the corpus."""
    shipped = {path.name: path for path in SHIPPED_DNGS}
    return shipped.get(request.param) or shared("data", "raw", request.param)


def test_unchanged_samples_come_back_and_nothing_else_differs(dng: Path, tmp_path: Path) -> None:
    out = rewritten(corpus_frame(dng), tmp_path)
    old, new = libraw_view(dng), libraw_view(out)
    assert np.array_equal(new.samples, old.samples)
    assert (new.black, new.white) == (old.black, old.white)
    assert new.about_samples == old.about_samples
    differing = {path.rsplit(".", 1)[1] for path in tag_differences(dng, out)}
    assert differing <= STORAGE | ALSO_DIFFERENT.get(dng.name, set())
    assert_sound_structure(out)


def test_old_bytes_stay_but_for_one_pointer(dng: Path, tmp_path: Path) -> None:
    frame = corpus_frame(dng)
    out = rewritten(frame, tmp_path)
    _, old_mosaic = mosaic_of(dng)
    pointer = range(old_mosaic.pointer_offset, old_mosaic.pointer_offset + 4)
    assert set(changed_old_bytes(dng, out)) <= set(pointer)
    _, mosaic = mosaic_of(out)
    added = out.stat().st_size - dng.stat().st_size - frame.samples.nbytes
    assert added < 12 * len(mosaic.entries) + 32, "samples, one directory and some padding"


def test_scaled_samples_come_with_scaled_levels(dng: Path, tmp_path: Path) -> None:
    scaled = unchanged(corpus_frame(dng))
    scale = scaled.level_scale
    out = rewritten(corpus_frame(dng), tmp_path, scale=scale)
    old, new = libraw_view(dng), libraw_view(out)
    assert np.array_equal(new.samples, old.samples * np.uint16(scale))
    assert new.black == [scale * level for level in old.black]
    assert new.white == scale * old.white
    assert new.about_samples == old.about_samples
    again = read_frame(out)
    for name in ("cfa", "black", "white", "area", "white_balance", "orientation", "exposure"):
        assert getattr(again, name) == getattr(scaled.frame, name), name
    for name in ("black_rows", "black_columns", "color_matrix"):
        assert np.array_equal(getattr(again, name), getattr(scaled.frame, name)), name


def test_tifffile_reads_the_same_samples(dng: Path, tmp_path: Path) -> None:
    frame = corpus_frame(dng)
    out = rewritten(frame, tmp_path)
    _, mosaic = mosaic_of(out)
    with tifffile.TiffFile(out) as file:
        pages = [page for first in file.pages for page in (first, *(first.pages or ()))]
        (page,) = [page for page in pages if page.offset == mosaic.offset]
        assert np.array_equal(page.asarray(), frame.samples)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_lists_the_same_tags_and_no_new_warning(dng: Path, tmp_path: Path) -> None:
    def listing(path: Path) -> dict[str, Any]:
        command = ["exiftool", "-j", "-G1", "-a", "-u", "-ee3", "-validate", "-warning", "-error"]
        done = subprocess.run([*command, "-all", path], capture_output=True, check=True)
        (tags,) = json.loads(done.stdout)
        return {
            name: value
            for name, value in tags.items()
            if name.split(":")[0] not in {"SourceFile", "System", "File"}
        }

    before, after = listing(dng), listing(rewritten(corpus_frame(dng), tmp_path))
    old_complaints = {text for name, text in before.items() if name.startswith("ExifTool:")}
    new_complaints = {text for name, text in after.items() if name.startswith("ExifTool:")}
    assert {text for text in new_complaints - old_complaints if text != "OK"} == set()
    differing = {
        name.split(":")[1]
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name) and not name.startswith("ExifTool:")
    }
    # Of a tag that stands twice it shows one.
    allowed = STORAGE | {name.split("#")[0] for name in ALSO_DIFFERENT.get(dng.name, ())}
    assert differing <= allowed


@pytest.mark.skipif(shutil.which("dcraw") is None, reason="dcraw is not installed")
def test_dcraw_sees_the_same_picture(dng: Path, tmp_path: Path) -> None:
    view = libraw_view(dng)
    _, _, top, left, height, width = view.sizes
    if dng.name.startswith("d750_odd"):
        pytest.skip("dcraw and LibRaw cut odd borders differently")
    out = rewritten(corpus_frame(dng), tmp_path)
    done = subprocess.run(
        ["dcraw", "-D", "-4", "-T", "-t", "0", "-c", out], capture_output=True, check=True
    )
    picture = tmp_path / "dcraw.tif"
    picture.write_bytes(done.stdout)
    visible = view.samples[top : top + height, left : left + width]
    assert np.array_equal(tifffile.imread(picture), visible)
