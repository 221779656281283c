"""Training pairs from a prepared folder: aligned, held apart, and refused where damaged."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp.data.augmentation import MosaicPair
from cycleisp.data.camera_pairs import CameraPair, PairSource
from cycleisp.data.pairs_folder import Manifest, PairRecord, open_manifest, read_manifest, save_pair
from cycleisp.data.prepare import PairsWriter
from cycleisp.data.prepared_pairs import PreparedPairs
from cycleisp_runtime.errors import InputError, SettingsError
from tests.helpers import RAW


def save_frame(folder: Path, index: int, height: int = 40, width: int = 60) -> None:
    """A frame whose picture has no two equal neighbours, and whose RAW is 257 times its codes."""
    rgb = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
    mosaic = np.empty((height, width), np.uint16)
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        mosaic[row::2, column::2] = 257 * rgb[row::2, column::2, channel].astype(np.uint16)
    record = PairRecord(
        stem=f"frame_{index}",
        source=f"frame_{index}.dng",
        source_sha256=f"{(7 * index) % 10}" * 64,
        camera="",
        cfa="RGGB",
        black=(0.0, 0.0, 0.0, 0.0),
        white=65535.0,
        height=height,
        width=width,
    )
    save_pair(folder, open_manifest(folder, "levels"), record, MosaicPair(mosaic, rgb))


@pytest.fixture(name="folder")
def five_frames(tmp_path: Path) -> Path:
    for index in range(5):
        save_frame(tmp_path / "pairs", index)
    return tmp_path / "pairs"


def assert_pair(pair: CameraPair, height: int, width: int) -> None:
    """Every packed sample is the value of its channel at its place in the picture."""
    assert pair.raw.shape == (4, height, width)
    assert pair.rgb.shape == (3, 2 * height, 2 * width)
    assert pair.raw.dtype == pair.rgb.dtype == np.float32
    places = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))
    for plane, (channel, row, column) in zip(pair.raw, places, strict=True):
        # 257 c / 65535 and c / 255, each rounded once.
        np.testing.assert_allclose(plane, pair.rgb[channel, row::2, column::2], rtol=3e-7)


def test_patches_are_aligned_and_a_function_of_the_generator(folder: Path) -> None:
    source: PairSource = PreparedPairs(folder, 8, held_out=2)
    for seed in range(50):
        pair = source.draw(np.random.default_rng(seed))
        assert_pair(pair, 8, 8)
        again = source.draw(np.random.default_rng(seed))
        np.testing.assert_array_equal(pair.raw, again.raw)
        np.testing.assert_array_equal(pair.rgb, again.rgb)


def test_held_out_frames_are_fixed_and_never_drawn(folder: Path) -> None:
    source = PreparedPairs(folder, 20, held_out=2)
    held_out = source.held_out()
    assert list(held_out) == ["frame_0", "frame_3"]  # whose hashes are 000... and 111...
    for pair in held_out.values():
        assert_pair(pair, 20, 30)
    rng = np.random.default_rng(0)
    # As high as the frame, a patch is not flipped vertically: it is known by its set of codes.
    drawn = {np.sort(source.draw(rng).rgb[0, :, 30]).tobytes() for _ in range(60)}
    for pair in held_out.values():
        columns = {np.sort(column).tobytes() for column in pair.rgb[0].T}
        assert not drawn & columns


def test_a_new_frame_does_not_turn_a_held_out_one_into_a_training_one(folder: Path) -> None:
    before = set(PreparedPairs(folder, 8, held_out=2).held_out())
    save_frame(folder, 7)  # its hash is 999...
    assert set(PreparedPairs(folder, 8, held_out=2).held_out()) == before


def test_the_manifest_says_what_is_trained_on(folder: Path) -> None:
    assert PreparedPairs(folder, 8, held_out=2).manifest() == {
        "normalisation": "levels",
        "trained_on": {"frame_1": "7" * 64, "frame_2": "4" * 64, "frame_4": "8" * 64},
        "held_out": {"frame_0": "0" * 64, "frame_3": "1" * 64},
    }


def test_large_frames_are_held_out_by_their_middle(tmp_path: Path) -> None:
    save_frame(tmp_path, 0, 203, 410)
    save_frame(tmp_path, 1)
    (pair,) = PreparedPairs(tmp_path, 8, held_out=1).held_out().values()
    assert_pair(pair, 80, 80)
    rgb = np.load(tmp_path / "frame_0.rgb.npy")
    np.testing.assert_array_equal(np.rint(255 * pair.rgb.transpose(1, 2, 0)), rgb[20:180, 124:284])


def test_every_frame_is_drawn_whatever_its_size(tmp_path: Path) -> None:
    for index in range(3):
        save_frame(tmp_path, index, 20 * 4**index, 20)
        rgb = np.full((20 * 4**index, 20, 3), index, np.uint8)
        np.save(tmp_path / f"frame_{index}.rgb.npy", rgb)
    source, rng = PreparedPairs(tmp_path, 8, held_out=0), np.random.default_rng(0)
    drawn = [int(np.rint(255 * source.draw(rng).rgb[0, 0, 0])) for _ in range(300)]
    # 100 each; six deviations of 8.2 is 49.
    assert np.bincount(drawn, minlength=3).min() > 51


def test_it_travels_to_workers(folder: Path) -> None:
    source = PreparedPairs(folder, 8, held_out=2)
    sent = pickle.dumps(source)
    assert len(sent) < 5000
    np.testing.assert_array_equal(
        pickle.loads(sent).draw(np.random.default_rng(1)).raw,  # noqa: S301  our own
        source.draw(np.random.default_rng(1)).raw,
    )


def test_real_frames_become_training_pairs(tmp_path: Path) -> None:
    writer = PairsWriter(tmp_path, "levels")
    for name in ("d750_bggr_tile_overhang.dng", "d750_odd_active_area.dng", "d750_gbrg_8b.dng"):
        assert writer.add(RAW / name).error is None
    source, rng = PreparedPairs(tmp_path, 32, held_out=1), np.random.default_rng(0)
    for pair in (source.draw(rng), *source.held_out().values()):
        assert 0 <= pair.raw.min() < pair.raw.max() <= 1
        # A red rose: red above green and blue, in the RAW and in the picture.
        assert pair.raw[0].mean() > max(pair.raw[plane].mean() for plane in (1, 2, 3))
        assert pair.rgb[0].mean() > max(pair.rgb[1].mean(), pair.rgb[2].mean())


def rewrite_manifest(**changes: object) -> Callable[[Path], object]:
    """A step that changes fields of the first record, or of the list."""

    def rewrite(folder: Path) -> None:
        path = folder / "pairs.json"
        manifest = json.loads(path.read_text())
        for name, value in changes.items():
            target = manifest if name in Manifest.__struct_fields__ else manifest["pairs"][0]
            target[name] = value
        path.write_text(json.dumps(manifest))

    return rewrite


def replace_array(array: npt.ArrayLike) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / "frame_0.raw.npy", np.asarray(array))


def cut_short(folder: Path) -> None:
    path = folder / "frame_0.rgb.npy"
    path.write_bytes(path.read_bytes()[:-1])


def link_outside(folder: Path) -> None:
    path = folder / "frame_0.raw.npy"
    path.rename(folder.parent / "elsewhere.npy")
    path.symlink_to(folder.parent / "elsewhere.npy")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        pytest.param(
            lambda folder: (folder / "frame_0.rgb.npy").unlink(),
            r"frame_0.rgb.npy: a file of the prepared pairs is missing",
            id="no sRGB partner",
        ),
        pytest.param(
            lambda folder: (folder / "frame_0.raw.npy").unlink(),
            r"frame_0.raw.npy: a file of the prepared pairs is missing",
            id="no RAW partner",
        ),
        pytest.param(cut_short, r"frame_0.rgb.npy: damaged.*wanted uint8 \(40, 60, 3\)", id="cut"),
        pytest.param(
            lambda folder: (folder / "frame_0.raw.npy").write_bytes(b""), "damaged", id="empty file"
        ),
        pytest.param(replace_array(np.zeros((40, 58), np.uint16)), "damaged", id="mixed sizes"),
        pytest.param(replace_array(np.zeros((40, 60), np.int16)), "damaged", id="dtype"),
        pytest.param(replace_array(np.zeros((60, 40), np.uint16).T), "damaged", id="order"),
        pytest.param(
            lambda folder: np.save(
                folder / "frame_0.raw.npy", np.array([[{}]], object), allow_pickle=True
            ),
            "damaged",
            id="pickle",
        ),
        pytest.param(link_outside, "not a plain file", id="link"),
        pytest.param(
            lambda folder: (folder / "pairs.json").unlink(),
            "pairs.json: a file of the prepared pairs is missing",
            id="no list",
        ),
        pytest.param(rewrite_manifest(pairs=[]), "no pairs in this folder", id="no pairs"),
        pytest.param(rewrite_manifest(format="cycleisp-pairs/9"), "not a list of", id="format"),
        pytest.param(rewrite_manifest(normalisation="other"), "not a list of", id="normalisation"),
        pytest.param(rewrite_manifest(stem="../frame_0"), "not a list of", id="climbs out"),
        pytest.param(rewrite_manifest(stem="/frame_0"), "not a list of", id="absolute"),
        pytest.param(rewrite_manifest(stem="FRAME_1"), "two pairs .* same stem", id="stem twice"),
        pytest.param(
            rewrite_manifest(source_sha256="7" * 64), "same source_sha256", id="source twice"
        ),
        pytest.param(rewrite_manifest(height=10**9), "not a list of", id="too high"),
        pytest.param(
            rewrite_manifest(height=65535, width=65535), "more than 268435456 samples", id="bomb"
        ),
        pytest.param(rewrite_manifest(extra=1), "unknown field", id="unknown field"),
    ],
)
def test_a_harmed_folder_is_refused(
    folder: Path, harm: Callable[[Path], object], problem: str
) -> None:
    harm(folder)
    with pytest.raises(InputError, match=problem):
        PreparedPairs(folder, 8, held_out=2)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.*cycleisp data prepare` makes it"):
        PreparedPairs(tmp_path / "absent", 8, held_out=1)


def test_a_list_that_is_too_large_is_not_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycleisp.data.pairs_folder._MAX_MANIFEST_BYTES", 100)
    with pytest.raises(InputError, match=r"too large .*100 bytes"):
        read_manifest(folder)


def test_a_frame_smaller_than_a_patch_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"frame_\d is smaller than a patch \(met 60x40 samples"):
        PreparedPairs(folder, 21, held_out=2)


def test_something_must_be_left_to_train_on(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"met 5 pairs, 5 held out"):
        PreparedPairs(folder, 8, held_out=5)
