"""What is known of every file of a corpus, and whether a reader found it.

A folder of the corpus holds RAW files and ``expected.json``. For good files that says what LibRaw
shows, corrected where LibRaw is wrong, and how to read a dump without a header; for bad files it
says whether they must be refused or handled.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.readers import DumpLayout

__all__ = ["ORIENTATIONS", "CorpusFile", "Fault", "FaultKind", "corpus_files", "reading_faults"]

FaultKind = Literal["crash", "hang", "silent guess", "wrong outcome", "wrong output"]

ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's flip to EXIF orientation."""

_PACKINGS = {"<u2": "u16le", ">u2": "u16be", "u1": "u8", "vendor (see format)": "huawei10"}
"""Names in ``expected.json`` to ours, where they differ."""

_WARNING_OF_FACT = {"cfa": "filter", "black": "black", "white": r"white (?!balance)"}
"""What a warning says that admits a doubt about a fact."""


class Fault(NamedTuple):
    """Something that must not be."""

    kind: FaultKind
    text: str


@dataclass(frozen=True)
class Truth:
    """Facts of a good file.

    Attributes:
        samples_sha256: of the stored frame as little-endian uint16; None where it is not known.
        area: the picture within the stored frame.
        cfa: phase at its corner.
        black: DN per plane R, Gr, Gb, B.
        white: DN.
        white_balance: gains of R, G, B with G = 1, or None where the file has no usable ones.
        orientation: EXIF.
    """

    samples_sha256: str | None
    area: Area
    cfa: str
    black: tuple[float, float, float, float]
    white: float
    white_balance: tuple[float, float, float] | None
    orientation: int


@dataclass(frozen=True)
class CorpusFile:
    """A file and what must become of it.

    Attributes:
        layout: how to read a dump without a header.
        must: "either" where both are right.
        must_warn: where it is handled, the user has to be told something.
        seconds: that reading it may take.
        truth: None where it is not known.
    """

    path: Path
    layout: DumpLayout | None
    must: Literal["handled", "refused", "either"]
    must_warn: bool
    seconds: float
    truth: Truth | None


def corpus_files(folder: Path) -> list[CorpusFile]:
    """Every file that ``expected.json`` of this folder speaks of."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return [_corpus_file(folder / name, facts) for name, facts in expected.items()]


def reading_faults(frame: RawFrame, file: CorpusFile) -> Iterator[Fault]:
    """Facts of the frame that are not the file's, where no warning admits a doubt about them."""
    if file.must_warn and not frame.warnings:
        yield Fault("silent guess", "the reader should have warned of something")
    truth = file.truth
    if truth is None:
        return
    black = np.array(frame.cfa.by_plane(frame.black))
    for deltas in (frame.black_rows, frame.black_columns):
        black = black if deltas is None else black + deltas.mean()
    digest = hashlib.sha256(frame.samples.astype("<u2").tobytes()).hexdigest()
    facts: dict[str, tuple[object, object, bool]] = {
        "samples": (digest, truth.samples_sha256, truth.samples_sha256 in {None, digest}),
        "area": (frame.area, truth.area, frame.area == truth.area),
        "cfa": (frame.cfa.value, truth.cfa, frame.cfa.value == truth.cfa),
        # LibRaw folds the mean of black deltas into its black level, rounded.
        "black": (black, truth.black, bool(np.allclose(black, truth.black, rtol=0, atol=0.5))),
        # Outside DNG no tag says where a sensor saturates; samples that stand there prove it.
        "white": (
            frame.white,
            truth.white,
            frame.white == truth.white or frame.white == frame.visible.max(),
        ),
        "white balance": (
            frame.white_balance,
            truth.white_balance,
            same_balance(frame.white_balance, truth.white_balance),
        ),
        "orientation": (
            frame.orientation,
            truth.orientation,
            frame.orientation == truth.orientation,
        ),
    }
    for fact, (met, wanted, is_right) in facts.items():
        doubt = _WARNING_OF_FACT.get(fact)
        if not is_right and (doubt is None or not re.search(doubt, " ".join(frame.warnings))):
            yield Fault("silent guess", f"{fact} {met}, should be {wanted}")


def same_balance(
    first: tuple[float, float, float] | None, second: tuple[float, float, float] | None
) -> bool:
    """Whether two white balances agree; LibRaw's are float32 of the file's fractions."""
    if first is None or second is None:
        return first is second
    return all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(first, second, strict=True))


def _corpus_file(path: Path, facts: dict[str, Any]) -> CorpusFile:
    text = facts.get("text", "")
    is_bad, is_dump = "must" in facts, facts.get("headerless", False)
    return CorpusFile(
        path=path,
        layout=_layout(facts) if is_dump else None,
        must=facts.get("must", "handled"),
        must_warn="warn" in text and "handled or warned" not in text,
        seconds=facts.get("time_limit_s", 10),
        truth=None if is_bad or is_dump else _truth(facts),
    )


def _layout(facts: dict[str, Any]) -> DumpLayout:
    packing = facts["pack"] if "pack" in facts else facts["dtype"]
    return DumpLayout(
        width=facts["w"],
        height=facts["h"],
        cfa=Phase(facts["phase"]),
        packing=_PACKINGS.get(packing, packing),
        black=facts["black"],
        bits=facts["bits"],
        white=facts["white"],
        stride=facts.get("stride"),
    )


def _truth(facts: dict[str, Any]) -> Truth:
    shown, corrected = facts["libraw"], facts.get("true", {})
    area = Area(shown["top_margin"], shown["left_margin"], shown["height"], shown["width"])
    if "active_area" in corrected:
        top, left, bottom, right = corrected["active_area"]
        area = Area(top, left, bottom - top, right - left)
    red, green, blue, second_green = corrected.get("black_rgbg", shown["black_rgbg"])
    black = (red, green, second_green, blue)
    if "black" in corrected:
        black = (corrected["black"],) * 4
    gains = shown["camera_whitebalance"]
    balance = (gains[0] / gains[1], 1.0, gains[2] / gains[1]) if min(gains[:3]) > 0 else None
    return Truth(
        samples_sha256=shown["raw_sha256_le16"],
        area=area,
        cfa=corrected.get("cfa_at_active_corner", shown["cfa_visible"]),
        black=black,
        white=corrected.get("white", shown["white"]),
        white_balance=balance,
        orientation=ORIENTATIONS[shown["flip"]],
    )
