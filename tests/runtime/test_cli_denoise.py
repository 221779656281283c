"""``cycleisp denoise`` on real files, with a network made for the test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.cli import main
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW, RAW_BAD, write_bundle
from tests.networks import residual_network

FRAME = RAW / "d750_subifd_preview_grbg_ljpeg.dng"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "net.bundle"
    return str(write_bundle(folder, residual_network().SerializeToString()))


def denoise(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["denoise", *map(str, arguments)])


def reports(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_one_file_becomes_the_named_file(tmp_path: Path, model: str) -> None:
    output = tmp_path / "clean.dng"
    result = denoise(FRAME, "-o", output, "--model", model)
    assert result.exit_code == 0
    assert result.stdout.startswith(
        f"{FRAME} -> {output}: NIKON D750, 256x192 GRBG, noise: profile"
    )
    before, after = read_frame(FRAME), read_frame(output)
    assert after.white == 4 * before.white
    assert 4 < np.abs(after.samples - 4.0 * before.samples).max() < 10_000


def test_a_batch_reports_the_bad_file_and_does_the_rest(tmp_path: Path, model: str) -> None:
    inputs = [FRAME, RAW_BAD / "xtrans_6x6.dng", RAW / "rewrapped_d750.nef"]
    result = denoise(*inputs, "-o", tmp_path / "out", "--model", model, "--json")
    assert result.exit_code == 1
    good, bad, other = reports(result.stdout)
    assert [report["input"] for report in (good, bad, other)] == [str(path) for path in inputs]
    assert bad["output"] is None
    assert str(bad["error"]).startswith(f"{inputs[1]}: ")
    assert f"cycleisp: error: {bad['error']}\n" in result.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{FRAME.stem}.dng", "rewrapped_d750.dng"]
    assert good["error"] is None
    assert set(good) == {
        "input", "output", "error", "camera", "cfa", "size", "black", "white", "noise",
        "levels_from", "strength", "trust", "expected_gain_db", "level_scale", "seconds", "backend",
        "backend_reason", "model", "model_sha256", "warnings",
    }  # fmt: skip
    assert good["noise"] == {
        "source": "profile", "shot": pytest.approx(1.9e-4), "read": pytest.approx(3e-7),
        "confidence": good["noise"]["confidence"],  # type: ignore[index]
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["dng", "tif", "png"])
def test_format_chooses_the_files_in_a_folder(tmp_path: Path, model: str, suffix: str) -> None:
    result = denoise(FRAME, "-o", tmp_path, "--format", suffix, "--model", model)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{FRAME.stem}.{suffix}"]


@pytest.mark.parametrize("keep_levels", [True, False])
def test_strength_0_keeps_every_sample(tmp_path: Path, model: str, keep_levels: bool) -> None:
    names = (
        "d750_odd_active_area.dng",
        "d750_black_delta.dng",
        "d750_gbrg_8b.dng",
        "rewrapped_d750.nef",
    )
    sources = [RAW / name for name in names]
    options = ["--strength", "0", "--model", model, *(["--keep-levels"] if keep_levels else [])]
    result = denoise(*sources, "-o", tmp_path / "out", *options, "--json")
    assert result.exit_code == 0, result.stderr
    for source, report in zip(sources, reports(result.stdout), strict=True):
        before, after = read_frame(source), read_frame(Path(str(report["output"])))
        scale = 1 if keep_levels else report["level_scale"]
        assert report["level_scale"] == scale
        np.testing.assert_array_equal(after.visible, before.visible.astype(int) * scale)
        assert after.cfa == before.cfa
        assert after.white == before.white * scale  # type: ignore[operator]


def test_options_reach_the_denoiser(tmp_path: Path, model: str) -> None:
    options = ["--noise", "0.05,1e-4", "--tile", "20", "--threads", "1", "--strength", "0.5"]
    result = denoise(FRAME, "-o", tmp_path / "a.dng", "--model", model, *options, "--json")
    (report,) = reports(result.stdout)
    assert report["noise"] == {"source": "given", "shot": 0.05, "read": 1e-4, "confidence": None}
    assert "outside of the model's training range" in report["warnings"][0]  # type: ignore[index]
    assert f"cycleisp: warning: {FRAME}: shot noise 0.05 is outside" in result.stderr


def test_a_dump_is_read_by_its_layout(tmp_path: Path, model: str) -> None:
    dump = RAW / "d750_rggb_432x288_mipi_raw12.raw"
    layout = "width=432,height=288,cfa=RGGB,packing=mipi12,black=150,white=3880"
    output = tmp_path / "out.dng"
    assert denoise(dump, "-o", output, "--model", model).exit_code == 1
    assert not output.exists()
    result = denoise(dump, "-o", output, "--model", model, "--layout", layout)
    assert result.exit_code == 0, result.stderr
    assert read_frame(output).visible.shape == (288, 432)


@pytest.mark.parametrize("as_json", [True, False])
def test_names_may_be_any_bytes(tmp_path: Path, model: str, as_json: bool) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.dng")
    shutil.copy(FRAME, source)
    bad = tmp_path / os.fsdecode(b"\xff.dng")
    out, options = tmp_path / "out", ["--json"] if as_json else []
    result = denoise(source, bad, "-o", out, "--model", model, *options)
    assert result.exit_code == 1
    assert f"{tmp_path}/\\udcff.dng: No such file" in result.stderr
    assert [path.name for path in out.iterdir()] == [source.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise", "0.1"], "not two numbers"),
        (["--noise", "a,b"], "not two numbers"),
        (["--noise", "2,0"], "noise coefficients are out of range"),
        (["--noise", "nan,0"], "noise coefficients are out of range"),
        (["--strength", "1.5"], "0<=x<=1"),
        (["--strength", "nan"], "strength"),
        (["--layout", "width=3"], "incomplete"),
        (["--tile", "0"], "x>=1"),
        (["--tile", "4"], "too small for the model's halo"),
        (["--format", "png"], "format and suffix disagree"),
    ],
)
def test_impossible_options_are_refused(
    tmp_path: Path, model: str, options: list[str], message: str
) -> None:
    result = denoise(FRAME, "-o", tmp_path / "a.dng", "--model", model, *options)
    assert result.exit_code == (2 if "Usage:" in result.stderr else 1)
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_lists_the_shipped_ones(tmp_path: Path) -> None:
    result = denoise(FRAME, "-o", tmp_path / "a.dng", "--model", "egde")
    assert result.exit_code == 1
    assert result.stderr.startswith("cycleisp: error: egde: no such model (wanted ")


def a_process(arguments: list[str], **streams: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from cycleisp_runtime.cli import main; main()", "denoise"]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [*command, *arguments], start_new_session=True, text=True, **streams
    )


def test_an_interrupt_leaves_whole_files_and_130(tmp_path: Path, model: str) -> None:
    sources = [str(path) for path in sorted(RAW.glob("*.dng"))]
    out = tmp_path / "out"
    arguments = [*sources, "-o", str(out), "--model", model, "--json"]
    with a_process(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("cycleisp: error: interrupted\n")
    written = {str(path) for path in out.iterdir()}
    assert written >= {first["output"]}
    assert len(written) < len(sources)
    assert written >= {report["output"] for report in reports(rest)}
    for path in written:
        read_frame(Path(path))


def test_progress_on_a_terminal_leaves_a_piped_report_alone(tmp_path: Path, model: str) -> None:
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    terminal, child_end = pty.openpty()
    arguments = [str(FRAME), "-o", str(tmp_path / "a.dng"), "--model", model, "--json"]
    with a_process(arguments, stdout=subprocess.PIPE, stderr=child_end) as process:
        os.close(child_end)
        stdout, _ = process.communicate(timeout=60)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:
        pass  # Linux ends a terminal whose other side was closed by EIO
    os.close(terminal)
    (report,) = reports(stdout)
    assert report["error"] is None
    assert FRAME.name.encode() in shown
