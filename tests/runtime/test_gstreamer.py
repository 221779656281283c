"""GStreamer in and out, each test in a process of its own: the bindings are the system Python's."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cycleisp_runtime import SettingsError
from cycleisp_runtime.gstreamer import bayer_caps
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.sources.gstreamer import GStreamerSource
from tests.helpers import ROOT

LIMIT_S = 100
"""Seconds that nothing here takes, on the slowest machine."""

PRELUDE = """
import json, sys, threading, time
sys.path.append("/usr/lib/python3/dist-packages")  # where Debian keeps gi
import numpy as np
from cycleisp_runtime import Area, CycleISPError, Phase, RawFrame
from cycleisp_runtime.denoised import unchanged
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.sinks.choice import open_sink
from cycleisp_runtime.sinks.gstreamer import gstreamer_pipeline
from cycleisp_runtime.sources.gstreamer import GStreamerSource

def layout(width, height, **more):
    return DumpLayout(width, height, Phase.GRBG, black=0, **more)

def refusal(work):
    try:
        work()
    except CycleISPError as error:
        return f"{type(error).__name__}: {error}"
"""


def in_a_child(program: str, *arguments: Path) -> object:
    """What the program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def gstreamer() -> None:
    """Skips where the bindings or the Bayer elements are missing."""
    program = """
        from cycleisp_runtime.gstreamer import load_gstreamer
        try:
            found = load_gstreamer().ElementFactory.find("rgb2bayer") is not None
        except CycleISPError:
            found = False
        print(json.dumps(found))
    """
    if not in_a_child(program):
        pytest.skip(
            "needs python3-gi for this Python, gir1.2-gst-plugins-base-1.0 and "
            "gstreamer1.0-plugins-bad"
        )


def test_caps_say_phase_and_bits() -> None:
    layout = DumpLayout.parse("width=6,height=4,cfa=BGGR,packing=high16le,bits=12,black=0")
    caps = bayer_caps(layout.cfa, layout.value_bits, layout.width, layout.height)
    assert caps == "video/x-bayer,format=bggr12le,width=6,height=4"
    packed = DumpLayout.parse("width=6,height=4,cfa=BGGR,packing=mipi12,black=0")
    with pytest.raises(SettingsError, match=r"no such Bayer format .*met packing mipi12"):
        GStreamerSource("fakesrc", packed)


@pytest.mark.parametrize("width", [64, 61])
def test_16_bits_go_through_two_pipelines_unchanged(tmp_path: Path, width: int) -> None:
    program = f"""
        frames = np.random.default_rng(0).integers(0, 65536, (4, 46, {width}), np.uint16)
        caps = "video/x-bayer,format=grbg16le,width={width},height=46"
        with gstreamer_pipeline(f"{{caps}} ! filesink location={{sys.argv[1]}}") as write:
            for samples in frames:
                stored = np.pad(samples, ((3, 1), (2, 5)))  # a masked border
                area = Area(3, 2, 46, {width})
                write(unchanged(RawFrame(stored, Phase.GRBG, (0,) * 4, 65535, area)))
        stride = ({width} * 2 + 3) // 4 * 4
        source = GStreamerSource(
            f"filesrc location={{sys.argv[1]}} blocksize={{stride * 46}} ! "
            f"{{caps}},framerate=30/1",
            layout({width}, 46, packing="u16le"),
        )
        read = [frame.samples for frame in source]
        print(json.dumps([len(read), bool(np.array_equal(read, frames))]))
    """
    assert in_a_child(program, tmp_path / "frames.raw") == [4, True]


def test_8_bits_of_an_odd_width_have_padded_rows() -> None:
    # rgb2bayer makes rows of 640 bytes of these; read at 637 the grey bars would lean over.
    program = """
        source = GStreamerSource(
            "videotestsrc pattern=solid-color foreground-color=0xff204060 num-buffers=3 ! "
            "video/x-raw,format=ARGB,width=637,height=48 ! rgb2bayer",
            layout(637, 48, packing="u8"),
        )
        read = [frame.samples for frame in source]
        cells = [sorted(set(frame[r::2, c::2].ravel().tolist())) for frame in read
                 for r in (0, 1) for c in (0, 1)]
        print(json.dumps([len(read), cells[:4], cells[:4] * 3 == cells]))
    """
    assert in_a_child(program) == [3, [[0x40], [0x20], [0x60], [0x40]], True]


def test_whatever_fails_in_a_source_is_one_line() -> None:
    program = """
        def lines(pipeline, **options):
            source = GStreamerSource(pipeline, layout(64, 48, packing="u16le"), **options)
            return refusal(lambda: list(source))
        print(json.dumps([
            lines("nosuchelement"),
            lines("videotestsrc"),
            lines("filesrc location=/nonexistent"),
            lines("appsrc", timeout_s=0.3),
        ]))
    """
    met = in_a_child(program)
    assert isinstance(met, list)
    missing, wrong, absent, stalled = met
    assert missing.startswith("SettingsError: nosuchelement")
    assert 'no element "nosuchelement"' in missing
    assert "SettingsError" in wrong
    assert "could not link" in wrong
    assert "InputError: filesrc location=/nonexistent: filesrc0: Resource not found" in absent
    assert "the pipeline stalls (met no whole frame for 0.3 s, 0 lost so far)" in stalled


def test_frames_that_are_too_short_are_counted() -> None:
    program = """
        source = GStreamerSource(
            "fakesrc num-buffers=3 sizetype=fixed sizemax=99 ! "
            "capsfilter caps=video/x-bayer,format=grbg16le,width=64,height=48",
            layout(64, 48, packing="u16le"))
        print(json.dumps([refusal(lambda: list(source)), source.lost]))
    """
    assert in_a_child(program) == [None, 3]


def test_stop_ends_a_wait_and_leaves_no_thread() -> None:
    program = """
        before = threading.active_count()
        source = GStreamerSource("appsrc", layout(64, 48, packing="u16le"), timeout_s=60)
        thread = threading.Thread(target=lambda: list(source))
        thread.start()
        time.sleep(0.3)
        source.stop()
        thread.join(10)
        print(json.dumps([thread.is_alive(), threading.active_count() - before]))
    """
    assert in_a_child(program) == [False, 0]


def test_whatever_fails_in_a_sink_is_one_line() -> None:
    program = """
        frame = RawFrame(np.ones((48, 64), np.uint16), Phase.RGGB, (0,) * 4, 65535,
                         Area(0, 0, 48, 64))
        def lines(pipeline, count=9):
            def work():
                with open_sink(f"gst:{pipeline}", source="camera", force=False) as write:
                    for _ in range(count):
                        write(unchanged(frame))
            return refusal(work)
        print(json.dumps([
            lines("nosuchelement"),
            lines("filesink location=/nonexistent/x"),
            lines("capsfilter caps=video/x-raw ! fakesink"),
            lines("identity error-after=1 ! fakesink", count=1),
        ]))
    """
    met = in_a_child(program)
    assert isinstance(met, list)
    missing, unwritable, unfit, at_the_end = met
    assert missing.startswith("SettingsError: appsrc name=frames ")
    assert " ! nosuchelement: not a GStreamer pipeline" in missing
    assert "OutputError: filesink location=/nonexistent/x: filesink0: Could not open" in unwritable
    assert unfit.startswith(("OutputError: ", "SettingsError: "))
    assert at_the_end.startswith("OutputError: identity error-after=1 ! fakesink: ")


def test_a_sink_that_takes_no_more_frames_is_an_error_in_time() -> None:
    program = """
        from cycleisp_runtime.sinks import gstreamer
        gstreamer._PATIENCE_S = 0.3
        frame = RawFrame(np.ones((48, 64), np.uint16), Phase.RGGB, (0,) * 4, 65535,
                         Area(0, 0, 48, 64))
        written = 0
        def work():
            global written
            with gstreamer_pipeline("identity sleep-time=1000000 ! fakesink") as write:
                for _ in range(99):
                    write(unchanged(frame))
                    written += 1
        print(json.dumps([refusal(work), written]))
    """
    met = in_a_child(program)
    assert isinstance(met, list)
    line, written = met
    assert line.endswith(": the pipeline stalls")
    assert written < 9


def test_the_example_denoises_a_recording_of_16_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    clean = np.linspace(4096, 40000, 64) + np.zeros((3, 48, 1))
    noisy = np.rint(clean + random.normal(0, 400, clean.shape)).clip(0, 65535).astype("<u2")
    noisy.tofile(tmp_path / "in.raw")
    program = f"""
        import runpy
        folder = sys.argv[1]
        sys.argv = ["bayer16.py", "width=64,height=48,cfa=RGGB,packing=u16le,black=4096",
            f"filesrc location={{folder}}/in.raw blocksize=6144 ! "
            "video/x-bayer,format=rggb16le,width=64,height=48,framerate=30/1",
            f"filesink location={{folder}}/out.raw"]
        from contextlib import redirect_stdout
        with redirect_stdout(sys.stderr):
            runpy.run_path({str(ROOT / "examples/gstreamer/bayer16.py")!r}, run_name="__main__")
        print(json.dumps(True))
    """
    assert in_a_child(program, tmp_path)
    denoised = np.fromfile(tmp_path / "out.raw", "<u2").reshape(clean.shape)
    assert np.std(denoised - clean) < 0.8 * np.std(noisy - clean)
