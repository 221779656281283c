"""Headerless dumps: what a layout says, and what contradicts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.readers import DumpLayout, Limits, read_frame
from cycleisp_runtime.readers.dumps import PACKINGS
from tests.helpers import RAW

SMALL = "width=6,height=4,cfa=GBRG,packing=u16le,black=64"


def packed(samples: npt.NDArray[np.uint16], packing: str) -> bytes:
    """Samples (H, W) packed by the definition of the format, one bit string at a time."""
    if PACKINGS[packing].samples == 1:
        return samples.astype({"u8": "u1", "u16be": ">u2"}.get(packing, "<u2")).tobytes()
    per_group = PACKINGS[packing].samples
    stored = bytearray()
    for group in samples.reshape(-1, per_group).tolist():
        if packing == "huawei10":
            a, b, c, d = group
            stored += bytes(
                [a & 255, a >> 8 << 6 | b & 63, b >> 6 << 4 | c & 15, c >> 4 << 2 | d & 3, d >> 2]
            )
            continue
        low_bits = PACKINGS[packing].bits - 8
        low = 0
        for index, value in enumerate(group):
            stored.append(value >> low_bits)
            low |= (value & (1 << low_bits) - 1) << low_bits * index
        stored += low.to_bytes(PACKINGS[packing].size - per_group, "little")
    return bytes(stored)


@given(
    packing=st.sampled_from(sorted(PACKINGS)),
    groups=st.integers(1, 4),
    height=st.integers(2, 5),
    padding=st.integers(0, 7),
    offset=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_every_packing_gives_the_samples_back(
    tmp_path_factory: pytest.TempPathFactory,
    packing: str,
    groups: int,
    height: int,
    padding: int,
    offset: int,
    seed: int,
) -> None:
    width = 4 * groups
    random = np.random.default_rng(seed)
    samples = random.integers(1, 2 ** PACKINGS[packing].bits, (height, width), np.uint16)
    rows = [packed(row[None], packing) + bytes(padding) for row in samples]
    path = tmp_path_factory.mktemp("dump") / "frame.raw"
    path.write_bytes(bytes(offset) + b"".join(rows))
    layout = DumpLayout(
        width,
        height,
        Phase.BGGR,
        packing,
        black=0,
        bits=PACKINGS[packing].bits,
        stride=len(rows[0]),
        offset=offset,
    )
    frame = read_frame(path, layout=layout)
    np.testing.assert_array_equal(frame.samples, samples)
    assert frame.samples.dtype == np.uint16
    assert frame.cfa is Phase.BGGR


@pytest.mark.parametrize(
    ("packing", "stored", "samples"),
    [
        ("mipi10", b"\x00\xff\x80\x01\xe4", [0, 1021, 514, 7]),
        ("mipi12", b"\xab\x12\x4c", [0xABC, 0x124]),
        ("mipi10", b"\x12\x34\x56\x78\x9c", [72, 211, 345, 482]),
        ("mipi14", b"\x12\x34\x56\x78\x9a\xbc\xde", [1178, 3378, 5547, 7735]),
        ("u16be", b"\x01\x02\xff\xfe", [0x0102, 0xFFFE]),
        ("huawei10", b"\x01\x82\x53\xff\x80", [0x201, 0x142, 0x3F3, 0x203]),
    ],
)
def test_golden_bytes(packing: str, stored: bytes, samples: list[int]) -> None:
    groups = np.frombuffer(stored, np.uint8).reshape(1, -1, PACKINGS[packing].size)
    assert PACKINGS[packing].unpack(groups).ravel().tolist() == samples


def test_a_jetson_repeats_the_top_bits_below_the_value(tmp_path: Path) -> None:
    words = [0x1F87, 0x2148, 0x1F07, 0x1F87, 0x20C8, 0x1FC7, 0x2048, 0x20C8]  # RG10 on an Orin NX
    path = write_dump(tmp_path, np.array(words, np.uint16))
    layout = DumpLayout.parse("width=4,height=2,cfa=RGGB,packing=high16le,bits=10,black=60")
    frame = read_frame(path, layout=layout)
    assert frame.samples.ravel().tolist() == [126, 133, 124, 126, 131, 127, 129, 131]
    assert frame.white == 1023


def test_a_real_dump_in_mipi_raw12() -> None:
    layout = DumpLayout.parse(
        "width=432,height=288,cfa=RGGB,packing=mipi12,black=150,white=3880,stride=648"
    )
    frame = read_frame(RAW / "d750_rggb_432x288_mipi_raw12.raw", layout=layout)
    full = read_frame(RAW / "d750_orient6_ljpeg14.dng")
    np.testing.assert_array_equal(frame.samples, full.samples >> 2)
    assert (frame.black, frame.white) == ((150,) * 4, 3880)


def test_what_a_layout_leaves_out() -> None:
    layout = DumpLayout.parse("width = 768, height=512, cfa=grbg, packing=mipi10, black=60.5")
    assert layout == DumpLayout(768, 512, Phase.GRBG, "mipi10", 60.5)
    assert layout.value_bits == 10
    assert layout.white_dn == 1023
    assert layout.row_stride == layout.row_bytes == 960
    assert DumpLayout.parse(SMALL + ",bits=14").white_dn == 16383


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a layout"),
        ("width=6;height=4", "malformed|incomplete"),
        (SMALL + ",colour=1", "not a layout .*met colour=1"),
        (SMALL + ",width=7", "not a layout .*met width=7"),
        ("width=6,height=4,cfa=RGGB", "incomplete .*wanted black, packing"),
        (SMALL.replace("64", "dark"), "malformed value"),
        (SMALL.replace("GBRG", "RGBG"), "malformed value"),
        (SMALL.replace("u16le", "raw10"), "unknown packing .*wanted u8"),
        (SMALL.replace("6,", "1,"), "width is impossible"),
        (SMALL.replace("6,", "-8,"), "width is impossible"),
        (SMALL + ",stride=11", "stride is impossible .*wanted 12"),
        (SMALL + ",bits=17", "bits is impossible"),
        (SMALL.replace("u16le", "high16le"), "high16le needs bits"),
        (SMALL + ",offset=-1", "offset is impossible"),
        (SMALL + ",white=64", "levels are impossible"),
        (SMALL + ",white=nan", "levels are impossible"),
        (SMALL + ",white=70000", "levels are impossible"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        DumpLayout.parse(text)


def write_dump(folder: Path, samples: npt.NDArray[np.uint16]) -> Path:
    path = folder / "frame.raw"
    path.write_bytes(samples.astype("<u2").tobytes())
    return path


RAMP = np.arange(64, 88, dtype=np.uint16).reshape(4, 6)


def test_a_file_too_small_for_its_layout_is_refused(tmp_path: Path) -> None:
    path = write_dump(tmp_path, RAMP[:3])
    with pytest.raises(InputError, match="met 36 bytes, wanted 48 bytes"):
        read_frame(path, layout=DumpLayout.parse(SMALL))


def test_the_padding_of_the_last_row_may_be_missing(tmp_path: Path) -> None:
    path = write_dump(tmp_path, np.pad(RAMP, ((0, 0), (0, 2))).ravel()[:-2])
    frame = read_frame(path, layout=DumpLayout.parse(SMALL + ",stride=16"))
    np.testing.assert_array_equal(frame.samples, RAMP)


def test_bytes_behind_the_frame_are_said(tmp_path: Path) -> None:
    path = write_dump(tmp_path, np.vstack([RAMP, RAMP]))
    (warning,) = read_frame(path, layout=DumpLayout.parse(SMALL)).warnings
    assert warning.startswith("48 bytes behind the frame")


def test_samples_beyond_their_bits_show_a_wrong_layout(tmp_path: Path) -> None:
    path = write_dump(tmp_path, RAMP)
    with pytest.raises(InputError, match=r"wanted at most 1023\); check packing"):
        read_frame(path, layout=DumpLayout.parse(SMALL.replace("le", "be") + ",bits=10"))


def test_a_dump_of_zeros_holds_no_signal(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no signal"):
        read_frame(write_dump(tmp_path, RAMP * 0), layout=DumpLayout.parse(SMALL))


def test_a_layout_beyond_the_limit_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    layout = DumpLayout(1 << 20, 1 << 20, Phase.RGGB, "u8", black=0)
    with pytest.raises(InputError, match="frame is too large"):
        read_frame(write_dump(tmp_path, RAMP), layout=layout)
    layout, limits = DumpLayout.parse(SMALL), Limits(max_samples=23)
    with pytest.raises(InputError, match="at most 23 samples"):
        read_frame(write_dump(tmp_path, RAMP), layout=layout, limits=limits)
