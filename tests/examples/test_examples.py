"""The camera apps run as their READMEs say, on recordings made for the test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp_runtime import Denoiser, NoiseModel, Phase, RawFrame
from cycleisp_runtime.frame import Area
from tests.helpers import RAW, ROOT

EXAMPLES = ROOT / "examples"
WIDTH, HEIGHT, COUNT = 64, 48, 5
LIMIT_S = 100
"""Seconds that nothing here takes, on the slowest machine."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.fixture
def recording(tmp_path: Path) -> npt.NDArray[np.uint16]:
    """Frames of 10 bits about a gradient, in in.raw."""
    random = np.random.default_rng(0)
    clean = np.linspace(64, 700, WIDTH) + np.zeros((COUNT, HEIGHT, 1))
    noisy = np.rint(clean + random.normal(0, 5, clean.shape)).clip(0, 1023).astype("<u2")
    noisy.tofile(tmp_path / "in.raw")
    return noisy


def test_a_live_view_of_a_recording_that_loops() -> None:
    layout = "width=432,height=288,cfa=RGGB,packing=mipi12,black=150,white=3880"
    done = run(
        EXAMPLES / "v4l2_stream" / "live.py",
        RAW / "d750_rggb_432x288_mipi_raw12.raw",
        layout,
        *("--fps", "20", "--frames", "4"),
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"(\d+) frames, [\d.]+ fps, latency \d+ ms, \d+ dropped", done.stderr)
    assert lines == ["1", "2", "3", "4"]


def test_a_live_view_ends_at_an_interrupt() -> None:
    layout = "width=432,height=288,cfa=RGGB,packing=mipi12,black=150,white=3880"
    app = subprocess.Popen(
        [
            sys.executable,
            EXAMPLES / "v4l2_stream" / "live.py",
            RAW / "d750_rggb_432x288_mipi_raw12.raw",
            layout,
        ],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert app.stderr is not None
    try:
        os.set_blocking(app.stderr.fileno(), False)
        deadline = time.monotonic() + LIMIT_S
        seen = b""
        while b"2 frames" not in seen:
            seen += app.stderr.read() or b""
            assert app.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        app.send_signal(signal.SIGINT)
        assert app.wait(LIMIT_S) == 130
    finally:
        app.kill()
        app.communicate()


@pytest.mark.parametrize(
    ("output", "height", "problem"),
    [
        ("in.raw", HEIGHT, "File exists"),
        ("out.raw", HEIGHT + 1, "cannot reshape"),
        ("none/out.raw", HEIGHT, "No such file"),
    ],
)
@pytest.mark.usefixtures("recording")
def test_in_place_keeps_what_is_there(
    tmp_path: Path, output: str, height: int, problem: str
) -> None:
    before = (tmp_path / "in.raw").read_bytes()
    size = (str(WIDTH), str(height))
    done = run(
        EXAMPLES / "embedding" / "in_place.py", tmp_path / "in.raw", tmp_path / output, *size
    )
    assert done.returncode == 1
    assert done.stderr.startswith("in_place.py: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "in.raw").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.raw"]


def test_buffers_of_a_program_are_denoised_where_they_lie(
    tmp_path: Path, recording: npt.NDArray[np.uint16]
) -> None:
    size = (str(WIDTH), str(HEIGHT))
    done = run(
        EXAMPLES / "embedding" / "in_place.py", tmp_path / "in.raw", tmp_path / "out.raw", *size
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{COUNT} frames, levels x64\n"
    written = np.fromfile(tmp_path / "out.raw", "<u2").reshape(recording.shape)
    with Denoiser.load("tiny") as denoiser:
        for samples, result in zip(recording, written, strict=True):
            frame = RawFrame(samples, Phase.RGGB, (64,) * 4, 1023, Area(0, 0, HEIGHT, WIDTH))
            expected = denoiser(frame, noise=NoiseModel.uniform(1e-3, 1e-5)).frame.samples
            np.testing.assert_array_equal(result, expected)
