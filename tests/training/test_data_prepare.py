"""``cycleisp data prepare``: RAW files become pairs that are aligned, listed and whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import rawpy
from click.testing import CliRunner, Result

from cycleisp.data import pairs_folder
from cycleisp.data.augmentation import MosaicPair
from cycleisp.data.pairs_folder import open_pair, read_manifest
from cycleisp.data.prepare import PairsWriter
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers import read_frame
from tests.helpers import DEMO, RAW, RAW_BAD, shared

OF_EACH_PHASE = {
    "RGGB": RAW / "d750_orient6_ljpeg14.dng",
    "GRBG": RAW / "d750_subifd_preview_grbg_ljpeg.dng",
    "GBRG": RAW / "d750_gbrg_8b.dng",
    "BGGR": RAW / "d750_bggr_tile_overhang.dng",
}
FRAME = OF_EACH_PHASE["BGGR"]


def prepare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["data", "prepare", *map(str, arguments)])


def prepared(source: Path, folder: Path, *, fivek: bool = False) -> MosaicPair:
    outcome = PairsWriter(folder, "fivek" if fivek else "levels").add(source)
    assert outcome.error is None
    assert outcome.pair is not None
    return open_pair(folder, outcome.pair)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def light_of_codes(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1, sRGB codes to linear light in [0, 1]."""
    value = codes / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def unexplained(pair: MosaicPair, down: int, right: int) -> float:
    """Share of the RAW's variance that is no linear mix of the light of the shifted picture.

    Camera colours are such a mix of sRGB's wherever no code is clipped, so that it is next to
    nothing where the two are aligned, whatever the white balance and the camera's matrix.
    """
    height, width = pair.mosaic.shape
    shares = []
    for row, column in Phase.RGGB.plane_offsets:
        rows, columns = np.ix_(
            np.arange(4 + row, height - 5, 2), np.arange(4 + column, width - 5, 2)
        )
        codes = pair.rgb[rows + down, columns + right].reshape(-1, 3)
        inside = ((codes > 0) & (codes < 255)).all(axis=1)
        light = light_of_codes(codes[inside])
        samples = pair.mosaic[rows, columns].ravel()[inside] / 65535
        mix = np.linalg.lstsq(light, samples, rcond=None)[0]
        shares.append(np.square(light @ mix - samples).mean() / samples.var())
    return float(np.mean(shares))


def assert_aligned(pair: MosaicPair) -> None:
    shifts = {
        (down, right): unexplained(pair, down, right)
        for down in (-2, -1, 0, 1, 2)
        for right in (-2, -1, 0, 1, 2)
    }
    there = shifts.pop((0, 0))
    # Codes of 8 bits leave 3e-4 of the darkest frame; one sample aside it is twenty times that.
    assert there < 1e-3
    assert min(shifts.values()) > 10 * there


@pytest.mark.parametrize("phase", OF_EACH_PHASE)
def test_raw_and_rgb_of_every_phase_are_aligned(tmp_path: Path, phase: str) -> None:
    pair = prepared(OF_EACH_PHASE[phase], tmp_path)
    assert_aligned(pair)
    frame = read_frame(OF_EACH_PHASE[phase])
    assert frame.cfa is Phase(phase)
    row, column = frame.cfa.red
    assert pair.mosaic.shape == (frame.area.height - 2 * row, frame.area.width - 2 * column)
    (record,) = read_manifest(tmp_path).pairs
    assert record.cfa == phase


@pytest.mark.parametrize(
    "source",
    [RAW / "d750_odd_active_per_channel_black.dng", RAW_BAD / "odd_63x47.dng"],
    ids=lambda path: path.name,
)
def test_odd_sizes_and_margins_are_aligned(tmp_path: Path, source: Path) -> None:
    pair, frame = prepared(source, tmp_path), read_frame(source)
    row, column = frame.cfa.red
    assert pair.mosaic.shape == (frame.area.height - 2 * row, frame.area.width - 2 * column)
    assert_aligned(pair)


def test_a_real_dark_and_noisy_frame_is_aligned(tmp_path: Path) -> None:
    pair = prepared(DEMO / "bmpcc_gbrg_12b_ljpeg_lintable.dng", tmp_path)
    assert_aligned(pair.window(400, 800, 300, 300))


def normalised(frame: RawFrame) -> npt.NDArray[np.float64]:
    """(DN - black) / (white - black) of the picture, by the definition, position by position."""
    light = np.empty(frame.visible.shape)
    for row, column in np.ndindex(*light.shape):
        black = frame.black[2 * (row % 2) + column % 2]
        zero = black
        if frame.black_rows is not None:
            zero += float(frame.black_rows[row])
        if frame.black_columns is not None:
            zero += float(frame.black_columns[column])
        light[row, column] = (frame.visible[row, column] - zero) / (frame.white - black)
    return np.clip(light, 0, 1)


@pytest.mark.parametrize(
    "name", ["d750_per_channel_black.dng", "d750_black_delta.dng", "d750_bggr_tile_overhang.dng"]
)
def test_samples_are_normalised_by_the_files_levels(tmp_path: Path, name: str) -> None:
    frame = read_frame(RAW / name)
    pair = prepared(RAW / name, tmp_path)
    row, column = frame.cfa.red
    height, width = pair.mosaic.shape
    expected = normalised(frame)[row : row + height, column : column + width]
    # Half a step of 16 bits, and the float32 in which it is reckoned.
    np.testing.assert_allclose(pair.mosaic / 65535, expected, atol=0.51 / 65535)


def test_the_picture_is_srgb_with_white_at_the_white_level(tmp_path: Path) -> None:
    source = RAW / "d750_orient6_ljpeg14.dng"
    with rawpy.imread(str(source)) as raw:
        expected = raw.postprocess(
            use_camera_wb=True,
            user_flip=0,
            no_auto_bright=True,
            output_bps=8,
            gamma=(2.4, 12.92),
            adjust_maximum_thr=0,
        )
    np.testing.assert_array_equal(prepared(source, tmp_path).rgb, expected)


def test_fivek_does_as_the_authors_did(tmp_path: Path) -> None:
    source = RAW / "d750_gbrg_8b.dng"
    with rawpy.imread(str(source)) as raw:
        samples = raw.raw_image_visible.astype(np.float32)
        picture = raw.postprocess(
            use_camera_wb=True, half_size=False, user_flip=0, no_auto_bright=True, output_bps=8
        )
    jpeg = io.BytesIO()
    PIL.Image.fromarray(picture).save(jpeg, "JPEG")
    pair = prepared(source, tmp_path, fivek=True)
    np.testing.assert_array_equal(pair.rgb, np.asarray(PIL.Image.open(jpeg))[1:-1])
    divided = samples / 2 ** np.ceil(np.log2(samples.max()))
    np.testing.assert_allclose(pair.mosaic / 65535, divided[1:-1], atol=0.51 / 65535)
    manifest = read_manifest(tmp_path)
    assert manifest.normalisation == "fivek"
    assert manifest.pairs[0].black == (0, 0, 0, 0)
    assert manifest.pairs[0].white == 256


@pytest.mark.parametrize(("brightest", "white"), [(1, 1), (2, 2), (4095, 4096), (4096, 4096)])
def test_fivek_divides_by_the_power_of_two_at_or_above_the_brightest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brightest: int, white: int
) -> None:
    frame = read_frame(FRAME)
    samples = np.minimum(frame.samples, brightest).astype(np.uint16)
    monkeypatch.setattr(
        "cycleisp.data.prepare.read_frame", lambda _path: frame.with_samples(samples)
    )
    assert prepared(FRAME, tmp_path, fivek=True).mosaic.max() == round(65535 * brightest / white)
    assert read_manifest(tmp_path).pairs[0].white == white


def test_fivek_refuses_a_picture_of_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = read_frame(FRAME)
    dark = frame.with_samples(np.zeros_like(frame.samples))
    monkeypatch.setattr("cycleisp.data.prepare.read_frame", lambda _path: dark)
    outcome = PairsWriter(tmp_path, "fivek").add(FRAME)
    assert "every sample is 0" in str(outcome.error)
    assert contents(tmp_path).keys() == {"pairs.json"}


def test_a_batch_reports_the_bad_files_and_prepares_the_rest(tmp_path: Path) -> None:
    bad = [RAW_BAD / name for name in ("xtrans_6x6.dng", "empty.dng", "trunc_ljpeg_50.dng")]
    inputs = [FRAME, *bad, tmp_path / "absent.dng", OF_EACH_PHASE["GRBG"]]
    result = prepare(*inputs, "-o", tmp_path / "pairs", "--json")
    assert result.exit_code == 1
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["input"] for report in reports] == [str(path) for path in inputs]
    assert [report["error"] is None for report in reports] == [True, *[False] * 4, True]
    for report in reports[1:-1]:
        assert report["error"].startswith(f"{report['input']}: ")
        assert report["pair"] is None
        assert f"cycleisp: error: {report['error']}\n" in result.stderr
    assert result.stderr.endswith("2 prepared, 0 there already, 4 failed\n")
    stems = {FRAME.stem, OF_EACH_PHASE["GRBG"].stem}
    assert {pair.stem for pair in read_manifest(tmp_path / "pairs").pairs} == stems
    assert contents(tmp_path / "pairs").keys() == {
        "pairs.json", *(f"{stem}.{kind}.npy" for stem in stems for kind in ("raw", "rgb"))
    }  # fmt: skip


@pytest.mark.slow
def test_the_corpus_of_bad_files_leaves_whole_pairs_only(tmp_path: Path) -> None:
    result = prepare(RAW_BAD, "-o", tmp_path / "pairs")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    manifest = read_manifest(tmp_path / "pairs")
    assert manifest.pairs
    for record in manifest.pairs:
        open_pair(tmp_path / "pairs", record)
    assert len(contents(tmp_path / "pairs")) == 1 + 2 * len(manifest.pairs)


@pytest.mark.slow
def test_the_reference_frames_are_prepared(tmp_path: Path) -> None:
    result = prepare(shared("data", "raw"), "-o", tmp_path / "pairs")
    assert isinstance(result.exception, SystemExit)
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    assert all(".raw: no known RAW format" in line for line in errors)
    assert len(read_manifest(tmp_path / "pairs").pairs) == 23
    for record in read_manifest(tmp_path / "pairs").pairs:
        open_pair(tmp_path / "pairs", record)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    assert prepare(FRAME, "-o", folder).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    result = prepare(FRAME, OF_EACH_PHASE["GRBG"], "-o", folder)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{FRAME}: there already as {FRAME.stem}\n")
    assert result.stderr.endswith("1 prepared, 1 there already, 0 failed\n")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(read_manifest(folder).pairs) == 2


def test_a_damaged_pair_is_made_again(tmp_path: Path) -> None:
    prepared(FRAME, tmp_path)
    before = contents(tmp_path)
    (tmp_path / f"{FRAME.stem}.rgb.npy").unlink()
    (tmp_path / f"{FRAME.stem}.raw.npy").write_bytes(b"cut short")
    assert PairsWriter(tmp_path, "levels").add(FRAME).existing is False
    assert contents(tmp_path) == before


def test_a_copy_of_a_frame_is_there_already(tmp_path: Path) -> None:
    copy = tmp_path / "copy.dng"
    shutil.copy(FRAME, copy)
    result = prepare(FRAME, copy, "-o", tmp_path / "pairs")
    assert result.stdout.endswith(f"{copy}: there already as {FRAME.stem}\n")


def test_files_of_one_name_keep_apart(tmp_path: Path) -> None:
    for phase, source in OF_EACH_PHASE.items():
        (tmp_path / phase).mkdir()
        shutil.copy(source, tmp_path / phase / ("img_1.dng" if phase == "GBRG" else "IMG_1.dng"))
    inputs = [tmp_path / phase for phase in OF_EACH_PHASE]
    result = prepare(*inputs, "-o", tmp_path / "pairs")
    assert result.exit_code == 0, result.stderr
    manifest = read_manifest(tmp_path / "pairs")
    first, *others = (pair.stem for pair in manifest.pairs)
    assert first == "IMG_1"
    assert [stem.lower() for stem in others] == [
        f"img_1-{pair.source_sha256[:12]}" for pair in manifest.pairs[1:]
    ]
    again = prepare(*inputs, "-o", tmp_path / "pairs")
    assert again.stderr.endswith("0 prepared, 4 there already, 0 failed\n")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("_MG_0001.dng", "MG_0001"),
        ("фото 1.dng", "1"),
        (f"{'x' * 200}.dng", "x" * 80),
        ("...dng", "frame-705e695d95e4"),
        ("a\nb\x1b[31m.dng", "a_b__31m"),
    ],
)
def test_any_name_becomes_a_plain_stem(tmp_path: Path, name: str, stem: str) -> None:
    source = tmp_path / name
    shutil.copy(FRAME, source)
    outcome = PairsWriter(tmp_path / "pairs", "levels").add(source)
    assert outcome.pair is not None
    assert outcome.pair.stem == stem
    assert read_manifest(tmp_path / "pairs").pairs == (outcome.pair,)


def test_two_normalisations_do_not_mix(tmp_path: Path) -> None:
    assert prepare(FRAME, "-o", tmp_path / "pairs").exit_code == 0
    before = contents(tmp_path / "pairs")
    result = prepare(OF_EACH_PHASE["GRBG"], "--fivek", "-o", tmp_path / "pairs")
    assert result.exit_code == 1
    assert "normalised otherwise (met levels, wanted fivek)" in result.stderr
    assert contents(tmp_path / "pairs") == before
    with pytest.raises(SettingsError):
        PairsWriter(tmp_path / "pairs", "fivek")


@pytest.mark.parametrize("fails", ["raw", "rgb"])
def test_a_full_disk_leaves_no_half_of_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    writer = PairsWriter(tmp_path, "levels")
    before = contents(tmp_path)
    save = np.save

    def save_on_full_disk(
        file: io.BufferedRandom, array: npt.NDArray[np.generic], **_: bool
    ) -> None:
        if array.ndim == {"raw": 2, "rgb": 3}[fails]:
            raise OSError(28, "No space left on device")
        save(file, array)

    monkeypatch.setattr(np, "save", save_on_full_disk)
    outcome = writer.add(FRAME)
    assert "no space left on device; free some space" in str(outcome.error)
    assert contents(tmp_path) == before


def test_an_output_that_cannot_be_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "absent" / "pairs"):
        result = prepare(FRAME, OF_EACH_PHASE["GRBG"], "-o", output)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"cycleisp: error: {output}: the folder cannot be made")
        assert result.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_to_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutputError("cannot be written: permission denied", subject=tmp_path)

    monkeypatch.setattr(pairs_folder, "atomic_output", refuse)
    result = prepare(FRAME, OF_EACH_PHASE["GRBG"], "-o", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2", b'{"format": "cycleisp-pairs/2"}'])
def test_a_list_of_another_kind_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pairs.json").write_bytes(content)
    with pytest.raises(InputError, match=r"pairs.json: not a list of prepared pairs"):
        PairsWriter(tmp_path, "levels")
    assert contents(tmp_path) == {"pairs.json": content}


def test_a_rendering_of_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = np.zeros((168, 230, 3), np.uint8)
    monkeypatch.setattr("cycleisp.data.prepare.render", lambda *_, **__: small)
    outcome = PairsWriter(tmp_path, "levels").add(FRAME)
    assert "not of the RAW's size (met 230x168, wanted 230x170)" in str(outcome.error)
    assert contents(tmp_path).keys() == {"pairs.json"}


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    sources = [tmp_path / f"frame_{index}.dng" for index in range(40)]
    for index, source in enumerate(sources):
        source.write_bytes(FRAME.read_bytes() + bytes([index]))  # hashes differ
    command = [
        sys.executable, "-c", "from cycleisp_runtime.cli import main; main()",
        "data", "prepare", *map(str, sources), "-o", str(tmp_path / "pairs"),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
    done = read_manifest(tmp_path / "pairs").pairs
    assert 1 <= len(done) < len(sources)
    for record in done:
        open_pair(tmp_path / "pairs", record)
    result = prepare(*sources[:6], "-o", tmp_path / "pairs")
    assert result.exit_code == 0
    assert f"{min(6, len(done))} there already, 0 failed" in result.stderr
