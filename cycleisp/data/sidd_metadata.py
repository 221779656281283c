"""What the metadata of a SIDD frame says: MATLAB's imfinfo of the DNG that the phone wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp.data.matlab import blamed_on, read_struct
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["PHONE_PHASES", "read_metadata"]

PHONE_PHASES = {
    "GP": Phase.BGGR,
    "IP": Phase.RGGB,
    "S6": Phase.GRBG,
    "N6": Phase.BGGR,
    "G4": Phase.BGGR,
}
"""Google Pixel, iPhone 7, Galaxy S6 Edge, Nexus 6, LG G4; three public loaders agree. Loaders that
leave HDF5's axes as they are see the S6's as GBRG."""

_CFA_PATTERN, _NOISE_PROFILE = 33422, 51041
"""Tags of TIFF/EP and of DNG 1.3, which imfinfo lists as unknown."""


def read_metadata(path: Path) -> tuple[Phase | None, NoiseModel]:
    """The CFA phase, None where it is not said, and the noise that a frame's metadata declares.

    The NoiseProfile of the phones holds one pair per colour; the first is taken for all planes, as
    public loaders do.

    Raises:
        InputError: where the file is no metadata of SIDD or declares no usable noise.
    """
    metadata = read_struct(path, "metadata")
    phase = None
    cfa = _tag(metadata, _CFA_PATTERN)
    if cfa is not None and cfa.size == 4 and set(cfa) <= {0, 1, 2}:
        letters = "".join("RGB"[int(code)] for code in cfa)
        phase = next((phase for phase in Phase if phase.value == letters), None)
    noise = _tag(metadata, _NOISE_PROFILE)
    if noise is None or noise.size < 2:
        raise InputError("the metadata has no NoiseProfile", subject=path)
    with blamed_on(path):
        return phase, NoiseModel.uniform(float(noise[0]), float(noise[1]))


def _tag(metadata: object, number: int) -> npt.NDArray[np.float64] | None:
    """The numbers of a tag that imfinfo did not know, wherever in the struct it stands."""
    if isinstance(metadata, dict):
        if np.array_equal(metadata.get("ID", ()), number):
            try:
                return np.asarray(metadata.get("Value"), np.float64).ravel()
            except (TypeError, ValueError):
                return None
        children: list[object] = list(metadata.values())
    elif isinstance(metadata, list) or (isinstance(metadata, np.ndarray) and metadata.dtype == "O"):
        children = list(metadata)
    else:
        return None
    return next((value for child in children if (value := _tag(child, number)) is not None), None)
