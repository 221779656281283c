"""``cycleisp stream`` on recordings: what it writes, says and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.cli import main
from cycleisp_runtime.readers import DumpLayout, read_frame
from cycleisp_runtime.sources.files import packed_frames
from tests.helpers import RAW

LAYOUT = "width=64,height=48,cfa=GBRG,packing=u16le,bits=10,black=64"
NOISE = ("--noise", "1e-3,1e-5")
QUICK = ("--backend", "identity", *NOISE)
LIMIT_S = 100
"""Seconds that nothing here takes, on the slowest machine."""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Five frames of 10 bits."""
    samples = np.random.default_rng(0).integers(0, 1024, (5, 48, 64)).astype("<u2")
    samples.tofile(tmp_path / "in.bin")
    return tmp_path / "in.bin"


def stream(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["stream", *map(str, arguments)])


def test_a_recording_becomes_a_recording(tmp_path: Path, recording: Path) -> None:
    output = tmp_path / "out.raw"
    done = stream(recording, "-o", output, "--layout", LAYOUT, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["statistics"]["frames"] == 5
    assert (summary["backend"], summary["error"]) == ("identity", None)
    assert summary["noise"] == {
        "source": "given",
        "shot": pytest.approx(1e-3),
        "read": pytest.approx(1e-5),
    }
    written = packed_frames(output, DumpLayout.parse(summary["layout"]))
    given = packed_frames(recording, DumpLayout.parse(LAYOUT))
    for result, frame in zip(written, given, strict=True):
        np.testing.assert_array_equal(result.samples, frame.samples * 64)


def test_a_folder_becomes_dngs_until_enough(tmp_path: Path, recording: Path) -> None:
    done = stream(
        recording, "-o", tmp_path / "out", "--layout", LAYOUT, *QUICK, "--frames", "2",
        "--keep-levels", "--policy", "block", "--depth", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{recording} -> {tmp_path / 'out'}: 2 frames, ")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["frame_000000.dng", "frame_000001.dng"]
    assert read_frame(files[0]).white == 1023


def test_raw_files_need_no_layout() -> None:
    done = stream(RAW / "d750_gbrg_8b.dng", "-o", "none", "--model", "tiny", "--threads", "1")
    assert done.exit_code == 0, done.output
    assert "1 frames" in done.stdout


def test_an_end_in_the_middle_keeps_what_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.raw").write_bytes(np.full(64 * 48, 500, "<u2").tobytes())
    (folder / "b.raw").write_bytes(b"cut off")
    arguments: list[str | Path] = [folder, "--layout", LAYOUT, *QUICK, "--json", "-o"]
    done = stream(*arguments, tmp_path / "out.raw")
    assert done.exit_code == 1
    assert "b.raw: the file is too small" in json.loads(done.stdout)["error"]
    assert "error: " in done.stderr
    assert (tmp_path / "out.raw").stat().st_size == 2 * 64 * 48
    (folder / "a.raw").unlink()
    done = stream(*arguments, tmp_path / "none.raw")
    assert done.exit_code == 1
    assert not (tmp_path / "none.raw").exists()


def test_a_recording_that_was_cut_off_is_said(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:-1])
    done = stream(recording, "-o", "none", "--layout", LAYOUT, *QUICK)
    assert done.exit_code == 0
    assert "behind 4 frames of 6144 bytes, 6143 are ignored" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["/dev/null", "-o", "none", "--layout", LAYOUT], 1, "this is no video device"),
        (["/dev/null", "-o", "none"], 1, "do not describe themselves"),
        (["missing.bin", "-o", "none", "--layout", LAYOUT], 1, "No such file"),
        (["missing.bin", "-o", "none", "--layout", "width=1"], 2, "--layout"),
        (["missing.bin"], 2, "--output"),
    ],
)
def test_what_cannot_be_streamed_is_one_line(
    arguments: list[str], status: int, problem: str
) -> None:
    done = stream(*arguments, "--backend", "identity")
    assert done.exit_code == status
    assert problem in done.stderr


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_and_leaves_a_whole_file_and_no_process(
    tmp_path: Path, ending: signal.Signals
) -> None:
    recording = tmp_path / "in.bin"
    recording.touch()
    os.truncate(recording, 20_000 * 2 * 64 * 48)
    program = [sys.executable, "-c", "from cycleisp_runtime.cli import main; main()", "stream"]
    arguments: list[str | Path] = [
        recording,
        "-o",
        tmp_path / "out.raw",
        "--layout",
        LAYOUT,
        *QUICK,
    ]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        command = subprocess.Popen(
            [*program, *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            # A shell that runs the tests in its background has them ignore the interrupt.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
    try:
        deadline = time.monotonic() + LIMIT_S
        while not any(each.stat().st_size for each in tmp_path.glob(".cycleisp-*.part")):
            assert command.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(command.pid, ending)
        said, _ = command.communicate(timeout=LIMIT_S)
        assert command.returncode == 130, log.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(command.pid, 0)
    finally:
        command.kill()
        command.wait()
    assert "interrupted" in log.read_text()
    frames = int(said.decode().partition(": ")[2].partition(" frames")[0])
    assert 0 < frames < 20_000
    whole, rest = divmod((tmp_path / "out.raw").stat().st_size, 2 * 64 * 48)
    assert (whole in {frames - 1, frames}, rest) == (True, 0)
    assert list(tmp_path.glob(".cycleisp-*")) == []
