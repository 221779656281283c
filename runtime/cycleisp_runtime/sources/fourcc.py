"""V4L2's names of Bayer formats: four characters that say packing, bits and phase."""

from __future__ import annotations

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.readers import DumpLayout

__all__ = ["fourcc_of"]

_PHASES = (Phase.RGGB, Phase.GRBG, Phase.GBRG, Phase.BGGR)
_WORDS = {
    10: ("RG10", "BA10", "GB10", "BG10"),
    12: ("RG12", "BA12", "GB12", "BG12"),
    14: ("RG14", "GR14", "GB14", "BG14"),
    16: ("RG16", "GR16", "GB16", "BYR2"),
}
_FOURCCS = {
    "u8": {8: ("RGGB", "GRBG", "GBRG", "BA81")},
    "u16le": _WORDS,
    "high16le": _WORDS,
    "mipi10": {10: ("pRAA", "pgAA", "pGAA", "pBAA")},
    "mipi12": {12: ("pRCC", "pgCC", "pGCC", "pBCC")},
    "mipi14": {14: ("pREE", "pgEE", "pGEE", "pBEE")},
}
"""By packing, bits and phase, from linux/videodev2.h. A Jetson calls its high-aligned words by the
names of low-aligned ones, so that only the user can tell them apart."""


def fourcc_of(layout: DumpLayout) -> str:
    """The format that frames of this layout have, such as "RG10".

    Raises:
        SettingsError: where V4L2 has no such format.
    """
    names = _FOURCCS.get(layout.packing, {}).get(layout.value_bits)
    if names is None:
        raise SettingsError(
            "V4L2 has no such format",
            subject="layout",
            met=f"packing {layout.packing}, {layout.value_bits} bits",
            wanted="; ".join(
                f"{packing} with {' or '.join(map(str, bits))} bits"
                for packing, bits in _FOURCCS.items()
            ),
        )
    return names[_PHASES.index(layout.cfa)]
