"""``cycleisp calibrate set`` on files of the repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cycleisp_calibration.set_file import load_calibration_set
from cycleisp_runtime.cli import main
from tests.helpers import RAW, RAW_BAD


def calibrate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["calibrate", "set", *map(str, arguments)])


def test_photographs_become_a_raw_set(photographs: tuple[Path, ...], tmp_path: Path) -> None:
    output = tmp_path / "set.npz"
    result = calibrate(*photographs, "-o", output, "--tiles", "30")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{output}: 30 tiles of 256x256 from 16 files, ")
    assert result.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"set.npz", "set.json", "set.png"}
    loaded = load_calibration_set(output, task="raw")
    assert loaded.arrays["noisy"].shape == (30, 4, 128, 128)
    with Image.open(tmp_path / "set.png") as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width == 24 * 64


def test_raw_files_and_a_pattern(photographs: tuple[Path, ...], tmp_path: Path) -> None:
    pattern = photographs[0].parent / "s*.jpg"
    output = tmp_path / "set.npz"
    result = calibrate(RAW, pattern, "-o", output, "--tile", "128", "--tiles", "60", "--json")
    assert result.exit_code == 1  # a dump without a header is among the RAW files
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "set.json").read_text("utf-8"))
    assert {source["kind"] for source in record["sources"]} == {"raw", "picture"}
    assert {tile["noise"]["source"] for tile in record["tiles"]} >= {"given", "estimate"}
    (skipped,) = record["skipped"]
    assert skipped.startswith("d750_rggb_432x288_mipi_raw12.raw: ")
    assert f"cycleisp: error: {RAW}/{skipped}\n" in result.stderr
    load_calibration_set(output, task="raw")


def test_a_set_for_srgb_with_noise(photographs: tuple[Path, ...], tmp_path: Path) -> None:
    output = tmp_path / "set.npz"
    levels = ("--noise", "1e-4,1e-7", "--noise", "1e-2,1e-4")
    result = calibrate(
        *photographs[:2], "-o", output, "--task", "srgb", "--tile", "128", "--tiles", "20", *levels
    )
    assert result.exit_code == 0, result.stderr
    loaded = load_calibration_set(output, task="srgb")
    shots = {tile.noise.shot[0] for tile in loaded.record.tiles if tile.noise is not None}
    assert shots == {1e-4, 1e-2}


def test_outputs_that_exist_are_kept(photographs: tuple[Path, ...], tmp_path: Path) -> None:
    output = tmp_path / "set.npz"
    (tmp_path / "set.png").write_bytes(b"mine")
    arguments = (photographs[0], "-o", output, "--tile", "128", "--tiles", "5")
    result = calibrate(*arguments)
    assert result.exit_code == 1
    assert result.stderr == (
        f"cycleisp: error: {tmp_path / 'set.png'}: the output already exists; "
        "--force overwrites it\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["set.png"]
    assert calibrate(*arguments, "--force").exit_code == 0
    load_calibration_set(output, task="raw")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((RAW_BAD / "xtrans_6x6.dng", "-o", "set.npz"), "no usable tile of 256x256"),
        ((RAW, "-o", "set.npz", "--task", "srgb"), "no usable tile of 256x256"),
        (("frame.dng", "-o", "set.npy"), "a calibration set is one file"),
        (("frame.dng", "-o", "set.npz", "--tile", "100"), "not a side that tiles can have"),
        (("frame.dng", "-o", "set.npz", "--tiles", "100000"), "tiles: out of range"),
        (("frame.dng", "-o", "set.npz", "--noise", "much"), "is not two numbers"),
        (("frame.dng", "-o", "set.npz", "--noise", "2,0"), "coefficients are out of range"),
        (("frame.dng", "-o", "no/where/set.npz"), "the folder does not exist"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str | Path, ...],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = calibrate(*arguments)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_needs_no_torch() -> None:
    code = "import sys, cycleisp_calibration.sets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
