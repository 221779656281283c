"""V4L2 cameras: what is asked, what is granted, and every way in which a camera lets one down."""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import re
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.sources import v4l2_kernel as v4l2
from cycleisp_runtime.sources.fourcc import fourcc_of
from cycleisp_runtime.sources.v4l2 import V4L2Source
from tests.helpers import a_bundle
from tests.runtime.fake_camera import UNPLUGGED, Event, FakeCamera

LAYOUT = DumpLayout.parse("width=6,height=4,cfa=RGGB,packing=u16le,bits=10,black=64")
SHORT_S = 0.3
"""Patience with a camera that stalls."""

Camera = Callable[..., FakeCamera]


@pytest.fixture(
    scope="module",
    params=[v4l2.VIDEO_CAPTURE, v4l2.VIDEO_CAPTURE_MPLANE],
    ids=["single-planar", "multi-planar"],
)
def a_camera(request: pytest.FixtureRequest) -> Camera:
    """One of each interface."""
    return functools.partial(FakeCamera, interface=request.param)


def samples(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    return np.random.default_rng(seed).integers(0, 1024, (4, 6), np.uint16)


def a_frame(seed: int, **changes: object) -> Event:
    return Event(samples(seed).tobytes(), **changes)  # type: ignore[arg-type]


def source_of(camera: FakeCamera, layout: DumpLayout = LAYOUT) -> V4L2Source:
    return V4L2Source("/dev/video7", layout, timeout_s=SHORT_S, kernel=camera)


def take(camera: FakeCamera, count: int, layout: DumpLayout = LAYOUT) -> list[RawFrame]:
    """The first frames; the camera must be closed behind them."""
    frames = iter(source_of(camera, layout))
    assert isinstance(frames, Iterator)
    taken = list(itertools.islice(frames, count))
    frames.close()  # type: ignore[attr-defined]
    assert camera.all_closed
    return taken


def refusal(camera: FakeCamera) -> str:
    """The one line about why this camera cannot go on; it must be closed behind it."""
    with pytest.raises(InputError) as caught:
        list(source_of(camera))
    assert camera.all_closed
    assert str(caught.value).startswith("/dev/video7: ")
    return str(caught.value)


def test_structures_and_requests_are_the_kernels(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    if not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("needs the kernel's header linux/videodev2.h")
    structures: dict[str, tuple[type[ctypes.Structure], list[str]]] = {
        "v4l2_capability": (v4l2.Capability, ["capabilities", "device_caps"]),
        "v4l2_fmtdesc": (v4l2.FormatDescription, ["pixelformat"]),
        "v4l2_format": (v4l2.Format, ["fmt"]),
        "v4l2_requestbuffers": (v4l2.BufferRequest, ["count", "type", "memory"]),
        "v4l2_buffer": (
            v4l2.Buffer,
            [
                "index",
                "type",
                "bytesused",
                "flags",
                "timestamp",
                "timecode",
                "sequence",
                "memory",
                "m",
                "length",
            ],
        ),
        "v4l2_pix_format": (
            type(v4l2.Format().fmt.pix),
            ["width", "height", "pixelformat", "field", "bytesperline", "sizeimage", "xfer_func"],
        ),
        "v4l2_pix_format_mplane": (
            type(v4l2.Format().fmt.pix_mp),
            ["width", "height", "pixelformat", "field", "plane_fmt", "num_planes", "xfer_func"],
        ),
        "v4l2_plane_pix_format": (
            type(v4l2.Format().fmt.pix_mp.plane_fmt[0]),
            ["sizeimage", "bytesperline"],
        ),
        "v4l2_plane": (v4l2.Plane, ["bytesused", "length", "m", "data_offset"]),
    }
    requests = ["QUERYCAP", "ENUM_FMT", "S_FMT", "REQBUFS", "QUERYBUF"]
    requests += ["QBUF", "DQBUF", "STREAMON", "STREAMOFF"]
    constants = {
        "V4L2_CAP_VIDEO_CAPTURE": v4l2.CAP_VIDEO_CAPTURE,
        "V4L2_CAP_VIDEO_CAPTURE_MPLANE": v4l2.CAP_VIDEO_CAPTURE_MPLANE,
        "V4L2_CAP_STREAMING": v4l2.CAP_STREAMING,
        "V4L2_CAP_DEVICE_CAPS": v4l2.CAP_DEVICE_CAPS,
        "V4L2_BUF_FLAG_ERROR": v4l2.FLAG_ERROR,
        "V4L2_BUF_TYPE_VIDEO_CAPTURE": v4l2.VIDEO_CAPTURE,
        "V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE": v4l2.VIDEO_CAPTURE_MPLANE,
        "V4L2_MEMORY_MMAP": v4l2.MEMORY_MMAP,
        "V4L2_FIELD_NONE": v4l2.FIELD_NONE,
    }
    expected = {f"VIDIOC_{name}": getattr(v4l2, name) for name in requests} | constants
    for name, (structure, fields) in structures.items():
        expected[f"sizeof(struct {name})"] = ctypes.sizeof(structure)
        for field in fields:
            expected[f"offsetof(struct {name}, {field})"] = getattr(structure, field).offset
    lines = "".join(f'printf("%lu\\n", (unsigned long)({each}));' for each in expected)
    program = tmp_path / "sizes.c"
    program.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n"
        f"#include <linux/videodev2.h>\nint main(void) {{ {lines} return 0; }}\n"
    )
    binary = tmp_path / "sizes"
    subprocess.run([compiler, program, "-o", binary], check=True, timeout=60)
    printed = subprocess.run([binary], check=True, capture_output=True, text=True, timeout=10)
    met = dict(zip(expected, map(int, printed.stdout.split()), strict=True))
    assert met == expected


@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=9), padding=st.integers(0, 70))
def test_frames_come_whole_in_order_and_in_memory_of_their_own(
    a_camera: Camera, seeds: list[int], padding: int
) -> None:
    stride = 12 + padding
    script = [
        Event(b"".join(row.tobytes() + b"\xee" * padding for row in samples(seed)))
        for seed in seeds
    ]
    frames = take(a_camera(script, stride=stride), len(seeds))
    for frame, seed in zip(frames, seeds, strict=True):
        np.testing.assert_array_equal(frame.samples, samples(seed))
        assert frame.samples.flags.writeable
    assert [frames[0].cfa, frames[0].black, frames[0].white] == [LAYOUT.cfa, (64,) * 4, 1023]


def test_requests_come_in_the_order_that_drivers_demand(a_camera: Camera) -> None:
    camera = a_camera([a_frame(0), a_frame(1)], buffers=2)
    take(camera, 1)
    opening = "QUERYCAP S_FMT REQBUFS QUERYBUF QUERYBUF QBUF QBUF STREAMON"
    assert " ".join(camera.log) == f"{opening} DQBUF QBUF STREAMOFF REQBUFS"
    assert camera.asked == (6, 4, "RG10", v4l2.FIELD_NONE)


@given(data_offset=st.integers(0, 99), trailing=st.integers(0, 9))
def test_a_frame_starts_where_its_plane_says(data_offset: int, trailing: int) -> None:
    camera = FakeCamera(
        [a_frame(1), a_frame(2)],
        interface=v4l2.VIDEO_CAPTURE_MPLANE,
        data_offset=data_offset,
        length=data_offset + 48 + trailing,
    )
    for seed, frame in enumerate(take(camera, 2), 1):
        np.testing.assert_array_equal(frame.samples, samples(seed))


@pytest.mark.parametrize("planes", [0, 2, 255])
def test_a_frame_in_several_planes_is_refused(planes: int) -> None:
    camera = FakeCamera(interface=v4l2.VIDEO_CAPTURE_MPLANE, planes=planes)
    assert f"one piece of memory (met {planes} planes, wanted 1)" in refusal(camera)
    assert "REQBUFS" not in camera.log


@pytest.mark.parametrize("data_offset", [1, 48, 2**32 - 1])
def test_a_frame_that_would_leave_its_buffer_is_lost(data_offset: int) -> None:
    camera = FakeCamera(
        [Event(bytes(48), bytesused=2**32 - 1)] * 2,
        interface=v4l2.VIDEO_CAPTURE_MPLANE,
        length=48,
    )
    camera.data_offset = data_offset
    assert "stalls (met no whole frame for 0.3 s, 2 lost" in refusal(camera)


def test_a_jetson_says_low_and_means_high(a_camera: Camera) -> None:
    layout = DumpLayout.parse("width=6,height=4,cfa=RGGB,packing=high16le,bits=10,black=64")
    assert fourcc_of(layout) == "RG10"
    words = samples(0) << 6 | samples(0) >> 4
    (frame,) = take(a_camera([Event(words.tobytes())]), 1, layout)
    np.testing.assert_array_equal(frame.samples, samples(0))


def test_mipi_rows_with_padding(a_camera: Camera) -> None:
    layout = DumpLayout.parse("width=6,height=4,cfa=GBRG,packing=mipi10,black=64")
    row = bytes.fromhex("123456789c 1234ffff0c") + b"\xee" * 6
    (frame,) = take(a_camera([Event(row * 4)], fourcc="pGAA", stride=16), 1, layout)
    assert frame.samples[3].tolist() == [72, 211, 345, 482, 72, 211]


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"fourcc": "RG12"}, "6x4 RG12"),
        ({"width": 8}, "8x4 RG10"),
        ({"height": 2, "fourcc": "PC1R"}, "6x2 PC1R"),
    ],
)
def test_another_format_than_asked_for_is_refused(
    a_camera: Camera, changes: dict[str, object], met: str
) -> None:
    camera = a_camera([a_frame(0)], **changes)
    line = refusal(camera)
    assert f"(met {met}, wanted 6x4 RG10); it offers RG10, RG12" in line
    assert "STREAMON" not in camera.log


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"stride": 11}, "the driver's stride is impossible (met 11)"),
        ({"buffers": 1}, "too few buffers"),
        ({"length": 47}, "smaller than a frame (met 47 bytes, wanted 48 bytes)"),
    ],
)
def test_what_no_frame_fits_in_is_refused(
    a_camera: Camera, changes: dict[str, int], problem: str
) -> None:
    assert problem in refusal(a_camera(**changes))


@pytest.mark.parametrize(
    ("capabilities", "problem"),
    [
        (v4l2.CAP_VIDEO_CAPTURE, "does not stream"),
        (v4l2.CAP_VIDEO_CAPTURE_MPLANE, "does not stream"),
        (0x00A0_0000 | v4l2.CAP_STREAMING, "choose another /dev/video node"),
    ],
)
def test_other_video_nodes_are_refused(capabilities: int, problem: str) -> None:
    camera = FakeCamera()
    camera.capabilities = capabilities
    assert problem in refusal(camera)


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EACCES, "group video"), (errno.ENOENT, "connected"), (errno.EBUSY, "another program")],
)
def test_a_device_that_does_not_open_says_why(number: int, hint: str) -> None:
    camera = FakeCamera()
    camera.open_error = number
    assert hint in refusal(camera)


def test_a_plain_file_is_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.write_bytes(bytes(99))
    with pytest.raises(InputError, match="Inappropriate ioctl for device; this is no video device"):
        list(V4L2Source(path, LAYOUT))


def test_interrupted_calls_are_made_again(a_camera: Camera) -> None:
    camera = a_camera([a_frame(0)])
    camera.interruptions = 3
    assert len(take(camera, 1)) == 1


def test_a_wait_that_ends_for_nothing_goes_on(a_camera: Camera) -> None:
    script = [Event(error=errno.EAGAIN), Event(error=errno.EAGAIN), a_frame(5)]
    (frame,) = take(a_camera(script), 1)
    np.testing.assert_array_equal(frame.samples, samples(5))


def test_damaged_and_short_frames_are_counted_and_left_out(a_camera: Camera) -> None:
    script = [
        a_frame(1),
        a_frame(2, flags=v4l2.FLAG_ERROR),
        Event(samples(3).tobytes()[:-1]),
        Event(b""),
        a_frame(4),
    ]
    source = source_of(a_camera(script))
    taken = list(itertools.islice(source, 2))
    np.testing.assert_array_equal(taken[1].samples, samples(4))
    assert source.lost == 3


@pytest.mark.parametrize(
    ("sequences", "lost"),
    [
        ([0, 1, 2], 0),
        ([7, 10, 11], 2),
        ([2**32 - 2, 2**32 - 1, 0], 0),
        ([2**32 - 1, 2], 2),
        ([500, 0, 1], 0),
    ],
)
def test_gaps_of_the_counter_are_losses_and_its_restart_is_none(
    a_camera: Camera, sequences: list[int], lost: int
) -> None:
    script = [a_frame(each % 90, sequence=each) for each in sequences]
    source = source_of(a_camera(script))
    assert len(list(itertools.islice(source, len(script)))) == len(script)
    assert source.lost == lost


@pytest.mark.parametrize("frames_before", [0, 2])
def test_a_stalled_camera_is_an_error_in_time(a_camera: Camera, frames_before: int) -> None:
    camera = a_camera([a_frame(each) for each in range(frames_before)])
    assert "the camera stalls (met no whole frame for 0.3 s, 0 lost" in refusal(camera)


def test_a_camera_that_only_delivers_damage_stalls(a_camera: Camera) -> None:
    damage = itertools.repeat(a_frame(0, flags=v4l2.FLAG_ERROR), 9)
    assert "9 lost so far" in refusal(a_camera(damage))


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (Event(error=UNPLUGGED, poll=select.POLLERR | select.POLLHUP), "No such device; the cam"),
        (Event(error=errno.EIO), "check cable and power"),
        (Event(error=errno.EAGAIN, poll=select.POLLERR), "the camera stopped (met poll events 0x8"),
        (a_frame(0, index=4), "a buffer that it does not have (met 4, wanted below 4)"),
    ],
)
def test_a_camera_that_vanishes_or_fails_is_an_error(
    a_camera: Camera, event: Event, problem: str
) -> None:
    camera = a_camera([a_frame(1), event])
    frames = iter(source_of(camera))
    np.testing.assert_array_equal(next(frames).samples, samples(1))
    with pytest.raises(InputError, match=re.escape(problem)):
        next(frames)
    assert camera.all_closed


def test_a_stream_outlives_no_camera_and_leaves_none_open(a_camera: Camera) -> None:
    noise, before = NoiseModel.uniform(1e-3, 1e-5), threading.active_count()
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        for end, problem in ((Event(error=UNPLUGGED), "No such device"), (None, "stalls")):
            camera = a_camera([*map(a_frame, range(3)), *([end] if end else [])])
            results = denoiser.stream(source_of(camera), noise=noise)
            for seed, result in zip(range(3), results, strict=False):
                np.testing.assert_array_equal(result.frame.samples, samples(seed) * 64)
            with pytest.raises(InputError, match=problem):
                next(results)
            assert camera.all_closed
            assert list(results) == []
    assert threading.active_count() == before


def test_stop_ends_a_wait(a_camera: Camera) -> None:
    camera = a_camera()
    source = V4L2Source("/dev/video7", LAYOUT, timeout_s=60, kernel=camera)
    taken: list[RawFrame] = []
    thread = threading.Thread(target=lambda: taken.extend(source), daemon=True)
    thread.start()
    while "STREAMON" not in camera.log:
        time.sleep(0.01)
    source.stop()
    source.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert taken == []
    assert camera.all_closed


@pytest.mark.parametrize(
    ("layout", "fourcc"),
    [
        ("cfa=GRBG,packing=u16le,bits=12", "BA12"),
        ("cfa=BGGR,packing=high16le,bits=16", "BYR2"),
        ("cfa=BGGR,packing=u8", "BA81"),
        ("cfa=GRBG,packing=mipi12", "pgCC"),
        ("cfa=GBRG,packing=mipi14", "pGEE"),
    ],
)
def test_formats_go_by_the_kernels_names(layout: str, fourcc: str) -> None:
    assert fourcc_of(DumpLayout.parse(f"width=6,height=4,black=0,{layout}")) == fourcc


def test_a_packing_that_v4l2_does_not_have_is_refused() -> None:
    layout = DumpLayout.parse("width=6,height=4,cfa=RGGB,packing=u16be,black=0")
    with pytest.raises(SettingsError, match=r"no such format .*met packing u16be, 16 bits"):
        V4L2Source("/dev/video0", layout)
