"""Damage of any kind, anywhere in a file: a frame or one line, never anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW, RAW_BAD

SOURCES = [
    RAW / "d750_gbrg_8b.dng",
    RAW / "d750_subifd_preview_grbg_ljpeg.dng",
    RAW / "d750_odd_active_per_channel_black.dng",
    RAW / "rewrapped_k5_be.pef",
    RAW_BAD / "odd_63x47.dng",
    RAW_BAD / "linearization_short.dng",
]
HEADER = 640
"""Most of the structure of these files stands here, so most changes are made here."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SOURCES)).read_bytes())
    end = draw(st.sampled_from([HEADER, HEADER, HEADER, len(data)]))
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.sampled_from([None, None, None, draw(st.integers(0, len(data)))]))])


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=damaged())
def test_damage_gives_a_frame_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "frame.raw"
    path.write_bytes(data)
    try:
        frame = read_frame(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017  (most damage is refused)
        assert "\n" not in str(error)  # noqa: PT017
        assert len(error.reason) < 400  # noqa: PT017
    else:
        assert np.isfinite([*frame.black, frame.white]).all()
        assert frame.visible.size > 0
