"""RawFrame: facts that contradict each other are refused before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cycleisp_runtime import Area, InputError, Phase, RawFrame
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW

FRAME = RawFrame(np.ones((4, 6), np.uint16), Phase.RGGB, (0, 0, 0, 0), 1023, Area(0, 0, 4, 6))


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"samples": np.ones((4, 6), np.int32)}, "2-D array of uint16"),
        ({"samples": np.ones((1, 6), np.uint16)}, "at least 2x2"),
        ({"area": Area(0, 1, 4, 6)}, "leaves the stored frame"),
        ({"cfa": "RGGB"}, r"not a phase \(met RGGB, wanted Phase.RGGB"),
        ({"black": (0, 0, 0)}, r"its black level \(met black \(0, 0, 0\), wanted four"),
        ({"black": (0, 0, 0, np.nan)}, "white level is not above"),
        ({"white": 0}, "white level is not above"),
    ],
)
def test_what_cannot_be_is_refused(facts: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        replace(FRAME, **facts)  # type: ignore[arg-type]


def test_a_path_may_be_text() -> None:
    path = RAW / "d750_black_delta.dng"
    np.testing.assert_array_equal(read_frame(str(path)).samples, read_frame(path).samples)
