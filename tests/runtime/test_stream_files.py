"""Recordings and folders as sources, files as sinks: what is whole comes through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoised import Denoised, unchanged
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.readers import DumpLayout, libraw, read_frame
from cycleisp_runtime.sinks import files
from cycleisp_runtime.sinks.choice import open_sink
from cycleisp_runtime.sinks.files import dng_folder, packed_file, packed_layout
from cycleisp_runtime.sources.choice import open_source
from cycleisp_runtime.sources.files import folder_frames, packed_frames
from cycleisp_runtime.sources.gstreamer import GStreamerSource
from cycleisp_runtime.sources.v4l2 import V4L2Source
from cycleisp_runtime.stream import Stream
from cycleisp_runtime.writers import atomic_output, write_frame
from tests.helpers import RAW, a_bundle
from tests.strategies import frames

REAL_CHILD = Path(libraw.__file__).with_name("libraw_child.py")
Samples = npt.NDArray[np.uint16]


def a_layout(stride: int, offset: int = 0) -> DumpLayout:
    text = f"width=6,height=4,cfa=GRBG,packing=u16le,bits=12,black=64,stride={stride}"
    return DumpLayout.parse(f"{text},offset={offset}")


def a_recording(
    path: Path, count: int, *, stride: int = 12, offset: int = 0, cut: int = 0
) -> list[Samples]:
    """The samples of the frames in a new file, whose last ``cut`` bytes are missing."""
    taken = list(np.random.default_rng(count).integers(1, 4096, (count, 4, 6), np.uint16))
    rows = (row.astype("<u2").tobytes().ljust(stride, b"\xee") for row in np.concatenate(taken))
    stored = bytes(offset) + b"".join(rows)
    path.write_bytes(stored[: len(stored) - cut])
    return taken


@given(
    count=st.integers(1, 6),
    padding=st.integers(0, 20),
    offset=st.integers(0, 9),
    cut=st.integers(0, 200),
)
def test_every_whole_frame_of_a_recording_comes_out(
    tmp_path_factory: pytest.TempPathFactory, count: int, padding: int, offset: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("recording") / "frames.bin"
    stride = 12 + padding
    pitch = 4 * stride
    cut = min(cut, (count - 1) * pitch)
    recorded = a_recording(path, count, stride=stride, offset=offset, cut=cut)
    read = list(packed_frames(path, a_layout(stride, offset)))
    # The padding behind the last row holds nothing, so a frame may lack it.
    whole = count - max(0, -(-(cut - padding) // pitch))
    assert len(read) == whole
    for frame, samples in zip(read, recorded, strict=False):
        np.testing.assert_array_equal(frame.samples, samples)
    left_over = count * pitch - cut - whole * pitch
    assert [bool(frame.warnings) for frame in read] == [False] * (whole - 1) + [left_over > 0]
    if left_over > 0:
        assert f"behind {whole} frames of {pitch} bytes, {left_over} are" in read[-1].warnings[0]


def test_a_recording_of_mipi_rows(tmp_path: Path) -> None:
    stored = (RAW / "d750_rggb_432x288_mipi_raw12.raw").read_bytes()
    path = tmp_path / "frames.bin"
    path.write_bytes(stored * 3)
    layout = DumpLayout.parse("width=432,height=288,cfa=RGGB,packing=mipi12,black=150")
    expected = read_frame(RAW / "d750_rggb_432x288_mipi_raw12.raw", layout=layout).samples
    read = list(packed_frames(path, layout))
    assert len(read) == 3
    for frame in read:
        np.testing.assert_array_equal(frame.samples, expected)


def test_a_recording_without_a_whole_frame_is_refused(tmp_path: Path) -> None:
    a_recording(tmp_path / "frames.bin", 1, cut=1)
    with pytest.raises(InputError, match="too small for this layout"):
        list(packed_frames(tmp_path / "frames.bin", a_layout(12)))
    with pytest.raises(InputError, match="No such file"):
        list(packed_frames(tmp_path / "missing.bin", a_layout(12)))


def a_folder(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for name in names:
        shutil.copyfile(RAW / name, folder / name)


def test_a_folder_gives_its_files_by_name(tmp_path: Path) -> None:
    names = ["d750_gbrg_8b.dng", "d750_odd_active_area.dng", "rewrapped_d750.nef"]
    a_folder(tmp_path / "in", names[::-1])
    read = list(folder_frames(tmp_path / "in"))
    assert [frame.source.name for frame in read if frame.source] == names


def test_a_killed_decoder_is_an_error_behind_the_frames_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_folder(tmp_path / "in", ["d750_gbrg_8b.dng", "rewrapped_d750.nef"])
    child = tmp_path / "child.py"
    child.write_text(
        "import os, pathlib, runpy, signal\n"
        f"first = pathlib.Path({str(tmp_path / 'first')!r})\n"
        "if first.exists(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "first.touch()\n"
        f"runpy.run_path({str(REAL_CHILD)!r}, run_name='__main__')\n"
    )
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    stream = Stream(denoiser, folder_frames(tmp_path / "in"), noise=NoiseModel.uniform(1e-3, 1e-6))
    monkeypatch.setattr(libraw, "_CHILD", child)
    with pytest.raises(InputError, match=r"rewrapped_d750.nef: decoding was stopped"):
        list(stream)
    assert stream.statistics.frames == 1
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@given(frame=frames(), count=st.integers(1, 3), order=st.sampled_from(["C", "F"]))
def test_what_a_packed_file_holds_is_read_back_by_its_layout(
    tmp_path_factory: pytest.TempPathFactory, frame: RawFrame, count: int, order: Literal["C", "F"]
) -> None:
    path = tmp_path_factory.mktemp("packed") / "out.raw"
    denoised = unchanged(frame.with_samples(np.asarray(frame.samples, order=order)))
    with packed_file(path) as write:
        for _ in range(count):
            write(denoised)
    layout = DumpLayout.parse(packed_layout(denoised.frame))
    read = list(packed_frames(path, layout))
    assert len(read) == count
    for each in read:
        np.testing.assert_array_equal(each.samples, denoised.frame.visible)
        assert each.warnings == ()
    assert read[0].white == denoised.frame.white
    assert read[0].black == pytest.approx([sum(denoised.frame.black) / 4] * 4, rel=1e-5)
    assert read[0].cfa is denoised.frame.cfa


def a_result(seed: int = 0, *, width: int = 32) -> Denoised:
    """Of a size that LibRaw reads."""
    samples = np.random.default_rng(seed).integers(64, 1024, (24, width), np.uint16)
    return unchanged(RawFrame(samples, Phase.RGGB, (64,) * 4, 1023, Area(0, 0, 24, width)))


def test_a_packed_file_takes_frames_of_one_kind(tmp_path: Path) -> None:
    with packed_file(tmp_path / "out.raw") as write:
        write(a_result())
        with pytest.raises(OutputError, match=r"must be alike .*met width=8.*wanted width=32"):
            write(a_result(width=8))


class Interrupted:
    """A file that is interrupted in the middle of its second write."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.tell, self.truncate = file.tell, file.truncate

    def write(self, data: memoryview) -> None:
        self.file.write(bytes(data) if self.tell() == 0 else bytes(data)[:7])
        if self.tell() % len(bytes(data)):
            raise KeyboardInterrupt


def test_a_frame_that_an_interrupt_cut_off_is_not_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupted(*args: Any, **options: Any) -> Iterator[Interrupted]:  # noqa: ANN401
        with atomic_output(*args, **options) as file:
            yield Interrupted(file)

    monkeypatch.setattr(files, "atomic_output", interrupted)
    with packed_file(tmp_path / "out.raw") as write:
        write(a_result())
        with pytest.raises(KeyboardInterrupt):
            write(a_result())
    assert (tmp_path / "out.raw").stat().st_size == 2 * 24 * 32


def test_a_folder_of_dngs(tmp_path: Path) -> None:
    with dng_folder(tmp_path / "out") as write:
        for seed in range(3):
            write(a_result(seed))
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"frame_{each:06}.dng" for each in range(3)]
    for seed, file in enumerate(files):
        expected = a_result(seed).frame
        read = read_frame(file)
        np.testing.assert_array_equal(read.visible, expected.visible)
        assert (read.black, read.white) == (expected.black, expected.white)
    with (
        pytest.raises(OutputError, match="already exists"),
        dng_folder(tmp_path / "out") as write,
    ):
        write(a_result())


def test_a_dng_tells_how_it_came_about(tmp_path: Path) -> None:
    residual = NoiseModel.uniform(2e-4, 1e-7)
    result = replace(a_result(), level_scale=16, strength=0.25, residual=residual)
    with dng_folder(tmp_path / "out") as write:
        write(result)
    write_frame(
        result.frame,
        tmp_path / "frame_000000.dng",
        level_scale=16,
        noise_reduction=0.25,
        residual_noise=residual,
    )
    alone = (tmp_path / "frame_000000.dng").read_bytes()
    assert (tmp_path / "out" / "frame_000000.dng").read_bytes() == alone


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot be made \(met No such file"),
        dng_folder(tmp_path / "missing" / "out"),
    ):
        pass


def test_names_say_what_a_source_is(tmp_path: Path) -> None:
    layout = a_layout(12)
    recorded = a_recording(tmp_path / "frames.bin", 3)
    read = list(open_source(str(tmp_path / "frames.bin"), layout))
    np.testing.assert_array_equal([frame.samples for frame in read], recorded)
    (frame,) = open_source(str(RAW / "d750_gbrg_8b.dng"), None)
    assert frame.source == RAW / "d750_gbrg_8b.dng"
    assert isinstance(open_source("gst:videotestsrc", layout), GStreamerSource)
    assert isinstance(open_source("/dev/null", layout), V4L2Source)
    for camera in ("/dev/null", "gst:videotestsrc"):
        with pytest.raises(SettingsError, match="do not describe themselves"):
            open_source(camera, None)
    with pytest.raises(InputError, match="No such file"):
        open_source(str(tmp_path / "missing"), layout)


def test_names_say_what_a_sink_is(tmp_path: Path) -> None:
    result = a_result()
    for name in ("out.raw", "CARD.RAW", "folder"):
        with open_sink(str(tmp_path / name), source="camera", force=False) as write:
            write(result)
        with (
            pytest.raises(OutputError, match="already exists"),
            open_sink(str(tmp_path / name), source="camera", force=False) as write,
        ):
            write(result)
        with open_sink(str(tmp_path / name), source="camera", force=True) as write:
            write(result)
    with open_sink("none", source="camera", force=False) as write:
        write(result)
    found = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [Path("CARD.RAW"), Path("folder/frame_000000.dng"), Path("out.raw")]
    for name in ("out.dng", "out.mp4"):
        with pytest.raises(SettingsError, match=f"{name}: files of this kind are not written"):
            open_sink(str(tmp_path / name), source="camera", force=False)
    with (
        pytest.raises(OutputError, match="would overwrite its input"),
        open_sink(str(tmp_path / "out.raw"), source=str(tmp_path / "out.raw"), force=True),
    ):
        pass
