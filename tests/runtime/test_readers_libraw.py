"""The process that decodes: nothing that it does reaches the program that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers import libraw
from cycleisp_runtime.readers.libraw import Decoded, decode
from cycleisp_runtime.readers.limits import Limits
from tests.helpers import RAW, RAW_BAD

FRAME = RAW / "d750_orient3_u16_be.dng"
REAL_CHILD = Path(libraw.__file__).with_name("libraw_child.py")


def decode_file(path: Path, **limits: float) -> Decoded:
    with path.open("rb") as file:
        return decode(file, path, Limits(**limits))  # type: ignore[arg-type]


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The child's program, to be written by the test."""
    path = tmp_path / "child.py"
    monkeypatch.setattr(libraw, "_CHILD", path)
    return path


def test_it_gives_the_stored_frame_and_the_facts() -> None:
    samples, facts = decode_file(FRAME)
    assert samples.dtype == np.uint16
    assert samples.shape == (192, 256)
    assert facts.flat
    assert (facts.colors, facts.color_count, facts.pattern_sides) == ("RGBG", 3, (2, 2))
    assert facts.area_colors == (0, 1, 3, 2)
    assert (facts.black, facts.white, facts.flip) == ((600,) * 4, 15520, 3)
    assert any(facts.xyz_to_camera)


def test_where_there_is_no_mosaic_it_gives_no_samples() -> None:
    samples, facts = decode_file(RAW_BAD / "linear_rgb_34892.dng")
    assert not facts.flat
    assert samples.size == 0


def test_libraw_says_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("trunc_uncompressed_50.dng", "ljpeg_corrupt_bits.dng", "text.cr2"):
        with pytest.raises(InputError) as refusal:
            decode_file(RAW_BAD / name)
        assert "Input/output error" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_takes_minutes_is_stopped() -> None:
    # Left alone, LibRaw takes more than two minutes for this one.
    with pytest.raises(InputError, match="stopped after 1 s"):
        decode_file(RAW_BAD / "bomb_ljpeg_sof_65500.dng", seconds=1)


def test_a_frame_beyond_the_limit_is_not_unpacked() -> None:
    with pytest.raises(InputError, match="too large for a file of this size"):
        decode_file(FRAME, max_samples=192 * 256 - 1)
    assert decode_file(FRAME, max_samples=192 * 256).samples.size == 192 * 256


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "decoding crashed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "stopped by the system"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "stopped after 8 s"),
        ("raise ValueError('no such thing')", "decoder failed .*ValueError: no such thing"),
        ("print('not json')", "no answer"),
        ('print(\'{"failure": 3, "facts": null}\')', "no answer"),
        ("print('{' * 200000)", "no answer"),
        ('print(\'{"failure": "LibRawDataError", "facts": null}\')', "data are damaged"),
        ('print(\'{"failure": "Whatever", "facts": null}\')', "cannot decode"),
    ],
)
def test_whatever_becomes_of_it_is_one_line(child: Path, program: str, problem: str) -> None:
    child.write_text(program)
    with pytest.raises(InputError, match=problem) as refusal:
        decode_file(FRAME)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"{FRAME}: ")


def test_a_complaint_without_a_failure_is_a_failure(child: Path) -> None:
    child.write_text(
        "import runpy, sys\n"
        "print('unknown file: data corrupted at 636', file=sys.stderr, flush=True)\n"
        f"runpy.run_path({str(REAL_CHILD)!r}, run_name='__main__')\n"
    )
    with pytest.raises(InputError, match="damaged or incomplete"):
        decode_file(FRAME)


def test_an_incomplete_answer_is_refused(child: Path) -> None:
    child.write_text(f"import runpy; runpy.run_path({str(REAL_CHILD)!r}, run_name='__main__')")
    _, facts = decode_file(FRAME)
    header = msgspec.json.encode({"failure": None, "facts": facts}).decode()
    child.write_text(f"print({header!r} + chr(10) + 'too few samples')")
    with pytest.raises(InputError, match="incomplete frame"):
        decode_file(FRAME)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_memory_is_limited(child: Path) -> None:
    child.write_text(
        "import runpy, sys\n"
        f"limit = runpy.run_path({str(REAL_CHILD)!r})['_limit_resources']\n"
        "limit(int(sys.argv[1]), int(sys.argv[2]), 1 << 20)\n"
        "bytearray(int(sys.argv[2]))\n"
    )
    with pytest.raises(InputError, match="MemoryError"):
        decode_file(FRAME)


def test_it_does_not_outlive_an_interrupt(tmp_path: Path) -> None:
    sleeper, pid_file = tmp_path / "sleeper.py", tmp_path / "pid"
    sleeper.write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"open({str(pid_file)!r} + '~', 'w').write(str(os.getpid()))\n"
        f"os.rename({str(pid_file)!r} + '~', {str(pid_file)!r})\n"
        "time.sleep(60)\n"
    )
    program = textwrap.dedent(f"""
        from pathlib import Path
        from cycleisp_runtime.readers import libraw
        from cycleisp_runtime.readers.limits import Limits
        libraw._CHILD = Path({str(sleeper)!r})
        path = Path({str(FRAME)!r})
        libraw.decode(path.open("rb"), path, Limits(seconds=60))
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, env=environment
    )
    while not pid_file.exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    _, traceback = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in traceback
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
