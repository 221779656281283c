"""DND's archive: patterns, boxes, noise; and files that describe no such archive."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from cycleisp.data.dnd import read_boxes, read_dnd
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel
from tests.training.matlab_files import PATTERNS, write_dnd

BOXES = [[1, 1, 8, 16], [3, 5, 10, 20]]
NOISE = (1e-3, 1e-6)
IMAGE = np.random.default_rng(0).random((12, 20), np.float32)


def archive(folder: Path, **changes: object) -> Path:
    facts: dict[str, object] = {
        "images": [IMAGE, IMAGE[::-1]],
        "patterns": [PATTERNS[Phase.GRBG], PATTERNS[Phase.BGGR]],
        "boxes": BOXES,
        "noise": [NOISE, (2e-3, 2e-6)],
    }
    return write_dnd(folder / "dnd", **(facts | changes))  # type: ignore[arg-type]


def test_images_are_described_as_the_archive_does(tmp_path: Path) -> None:
    first, second = read_dnd(archive(tmp_path))
    assert (first.number, second.number) == (1, 2)
    assert first.boxes == second.boxes == ((0, 0, 8, 16), (2, 4, 10, 20))
    assert (first.phase, second.phase) == (Phase.GRBG, Phase.BGGR)
    assert (first.noise, second.noise) == (
        NoiseModel.uniform(*NOISE),
        NoiseModel.uniform(2e-3, 2e-6),
    )


def test_the_patterns_axes_are_matlabs(tmp_path: Path) -> None:
    patterns = [PATTERNS[phase] for phase in Phase]
    folder = archive(tmp_path, images=[IMAGE] * 4, patterns=patterns, noise=[NOISE] * 4)
    assert [image.phase for image in read_dnd(folder)] == list(Phase)


def test_published_code_mixes_up_two_phases_and_ignores_the_last(tmp_path: Path) -> None:
    patterns = [PATTERNS[phase] for phase in (Phase.RGGB, Phase.GRBG, Phase.GBRG, Phase.BGGR)]
    folder = archive(tmp_path, images=[IMAGE] * 4, patterns=patterns, noise=[NOISE] * 4)
    assert [image.phase for image in read_dnd(folder, released=True)] == [
        Phase.RGGB,
        Phase.GBRG,
        Phase.GRBG,
        Phase.RGGB,
    ]


def test_boxes_are_cut_where_they_stand(tmp_path: Path) -> None:
    folder = archive(tmp_path)
    first, second = read_dnd(folder)
    for image, samples in ((first, IMAGE), (second, IMAGE[::-1])):
        boxes = list(read_boxes(folder, image, "raw"))
        assert np.array_equal(boxes[0], samples[0:8, 0:16])
        assert np.array_equal(boxes[1], samples[2:10, 4:20])


def test_srgb_boxes_keep_their_channels(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).random((12, 20, 3), np.float32)
    folder = archive(tmp_path, images=[picture, picture])
    boxes = list(read_boxes(folder, read_dnd(folder)[0], "srgb"))
    assert np.array_equal(boxes[1], picture[2:10, 4:20])


def test_files_may_stand_beside_info(tmp_path: Path) -> None:
    folder = archive(tmp_path)
    for path in (folder / "images_raw").iterdir():
        path.rename(folder / path.name)
    (folder / "images_raw").rmdir()
    assert len(list(read_boxes(folder, read_dnd(folder)[0], "raw"))) == 2


def test_samples_are_clipped(tmp_path: Path) -> None:
    folder = archive(tmp_path, images=[3 * IMAGE - 1] * 2)
    box, _ = read_boxes(folder, read_dnd(folder)[0], "raw")
    assert np.array_equal(box, np.clip(3 * IMAGE - 1, 0, 1)[:8, :16])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patterns": [[[1, 1], [2, 3]]] * 2}, "not a Bayer pattern"),
        ({"boxes": [[2, 1, 9, 16]]}, "does not hold whole CFA cells"),
        ({"boxes": [[1, 1, 9, 16]]}, "does not hold whole CFA cells"),
        ({"boxes": [[9, 1, 8, 16]]}, "does not hold whole CFA cells"),
        ({"boxes": [[1, 1, 8, 16384]]}, "does not hold whole CFA cells"),
        ({"boxes": [[1, 1, 8]]}, "not boxes"),
        ({"boxes": [[1, 1, 8, np.nan]]}, "not boxes"),
        ({"noise": [(0.0, 1e-6), NOISE]}, r"info\.mat, image 1: noise coefficients"),
        ({"boxes": [[1, 1, 16, 16]]}, "a box leaves the image"),
        ({"images": [IMAGE * np.float32(np.nan)] * 2}, "not finite"),
    ],
)
def test_what_is_no_archive_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = archive(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        list(read_boxes(folder, read_dnd(folder)[0], "raw"))


def test_missing_files_and_members_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"info\.mat: not a readable MATLAB v7\.3 file"):
        read_dnd(tmp_path)
    folder = archive(tmp_path)
    images = read_dnd(folder)
    (folder / "images_raw" / "0001.mat").unlink()
    with pytest.raises(InputError, match=r"0001\.mat"):
        list(read_boxes(folder, images[0], "raw"))
    with h5py.File(folder / "info.mat", "r+") as file:
        del file["info/nlf"]
    with pytest.raises(InputError, match="there is no nlf"):
        read_dnd(folder)
