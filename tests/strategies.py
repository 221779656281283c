"""Random frames for tests that state laws."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel


@st.composite
def frames(draw: st.DrawFn) -> RawFrame:
    """Any phase, odd and thin sizes, masked borders, levels per position, row and column."""
    height, width = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    top, left, bottom, right = (draw(st.integers(0, 3)) for _ in range(4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    white = draw(st.sampled_from([255, 1023, 4095.5, 16383, 65535]))
    black = draw(st.sampled_from([(0, 0, 0, 0), (16, 17, 18, 19), (64.25, 60, 68.5, 64)]))
    highest = min(65535, int(white * draw(st.sampled_from([0.5, 1.0, 1.2]))))
    return RawFrame(
        samples=random.integers(
            0, highest, (top + height + bottom, left + width + right), np.uint16, endpoint=True
        ),
        cfa=draw(st.sampled_from(Phase)),
        black=tuple(map(float, black)),  # type: ignore[arg-type]
        white=float(white),
        area=Area(top, left, height, width),
        black_rows=draw(st.sampled_from([None, random.uniform(-3, 3, height)])),
        black_columns=draw(st.sampled_from([None, random.uniform(-3, 3, width)])),
        reserved_dn=draw(st.sampled_from([None, None, 0, highest])),
    )


noise_models = st.builds(
    NoiseModel.uniform,
    st.floats(1e-5, 2e-2),
    st.floats(1e-9, 1e-3),
)
"""Shot and read of real sensors, one line for all planes."""
