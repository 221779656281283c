"""RAW files become training pairs: normalised RGGB samples and the same frame rendered to sRGB.

The camera's own rendering is not in the file, so LibRaw's stands for it, with the white balance
that the camera chose.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import PIL.Image

from cycleisp.data.augmentation import MosaicPair
from cycleisp.data.pairs_folder import (
    Normalisation,
    PairRecord,
    is_whole,
    open_manifest,
    save_pair,
)
from cycleisp_runtime.errors import CycleISPError, InputError, OutputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers import check_file, read_frame
from cycleisp_runtime.text import printable
from cycleisp_runtime.writers.dng_fields import Treatment
from cycleisp_runtime.writers.rendered import LIBRAW_TONE, SRGB_TONE, render

__all__ = ["Outcome", "PairsWriter", "file_sha256"]

_UNTOUCHED = Treatment(level_scale=1, noise_reduction=0, residual_noise=None)
_LONGEST_STEM = 80
_HASH_CHUNK_BYTES = 1 << 20


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one file; encoded as JSON it is one line of a report.

    Attributes:
        input: the file that was read.
        error: why there is no pair, in one line that names the file; None where there is one.
        existing: whether the pair stood there already.
        pair: its record; None where there is none.
        seconds: spent on this file.
        warnings: what was guessed, repaired or may disappoint, one sentence each.
    """

    input: str
    error: str | None = None
    existing: bool = False
    pair: PairRecord | None = None
    seconds: float = 0.0
    warnings: list[str] = []


class PairsWriter:
    """Adds pairs to a folder, one file after the other.

    Args:
        folder: made if its parent exists; pairs that stand there stay.
        normalisation: of the samples. "levels" takes (DN - black) / (white - black) per position of
            the 2x2 cell, levels from the file, clipped to [0, 1], and renders to sRGB's own curve
            with white at the white level, without loss.

            "fivek" does as the authors of CycleISP did to the MIT-Adobe FiveK set, to compare with
            their results: DN over the power of two at or above the brightest sample of that very
            frame, black left in; LibRaw's default curve (BT.709, not sRGB) and exposure; JPEG at
            the encoder's default quality. So the same light gives different numbers in a dark and a
            bright frame, black is not 0, and the target holds JPEG's artefacts.

    Raises:
        OutputError: where the folder cannot be made or written to.
        InputError: where its list of pairs cannot be read.
        SettingsError: where its pairs are normalised otherwise.
    """

    def __init__(self, folder: Path, normalisation: Normalisation) -> None:
        self._folder = folder
        self._manifest = open_manifest(folder, normalisation)

    def add(self, source: Path) -> Outcome:
        """What became of this file; failures are in it, not raised.

        A file whose hash the folder knows is not read again where its arrays are whole.
        """
        outcome = Outcome(input=printable(source))
        began = time.monotonic()
        try:
            self._add(source, outcome)
        except CycleISPError as error:
            outcome.error = printable(error)
        except MemoryError:
            outcome.error = f"{outcome.input}: not enough memory for this frame"
        outcome.seconds = round(time.monotonic() - began, 3)
        return outcome

    def _add(self, source: Path, outcome: Outcome) -> None:
        sha256 = file_sha256(source)
        known = next((pair for pair in self._manifest.pairs if pair.source_sha256 == sha256), None)
        if known is not None and is_whole(self._folder, known):
            outcome.pair, outcome.existing = known, True
            return
        frame = read_frame(source)
        outcome.warnings = list(frame.warnings)
        if frame.white_balance is None:
            outcome.warnings.append("Rendered for daylight, for want of a white balance.")
        fivek = self._manifest.normalisation == "fivek"
        levelled = _with_power_of_two_levels(frame) if fivek else frame
        rgb = _rendered(frame, fivek=fivek)
        pair = MosaicPair(_normalised(levelled), rgb, frame.cfa).unified()
        height, width = pair.mosaic.shape
        if min(height, width) < 2:
            raise InputError("no whole RGGB cell is left of the frame", subject=source)
        record = PairRecord(
            stem=known.stem if known else self._free_stem(source, sha256),
            source=printable(source.name),
            source_sha256=sha256,
            camera=printable(frame.camera),
            cfa=frame.cfa.value,
            black=levelled.black,
            white=levelled.white,
            height=height,
            width=width,
        )
        self._manifest = save_pair(self._folder, self._manifest, record, pair)
        outcome.pair = record

    def _free_stem(self, source: Path, sha256: str) -> str:
        """The file's own stem; where another file has it (cameras count to 9999), and its hash."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", source.stem).lstrip("._-")[:_LONGEST_STEM]
        taken = {pair.stem.casefold() for pair in self._manifest.pairs}
        free = stem and stem.casefold() not in taken
        return stem if free else f"{stem or 'frame'}-{sha256[:12]}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        InputError: where it cannot be read, or is larger than a reader would take.
    """
    digest = hashlib.sha256()
    try:
        check_file(path)
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error
    return digest.hexdigest()


def _normalised(frame: RawFrame) -> npt.NDArray[np.uint16]:
    """(H, W) uint16, 65535 times the visible samples in normalised units, clipped to [0, 1]."""
    light = frame.visible.astype(np.float32)
    if frame.black_rows is not None:
        light -= frame.black_rows[:, None].astype(np.float32)
    if frame.black_columns is not None:
        light -= frame.black_columns.astype(np.float32)
    for black, (row, column) in zip(frame.black, np.ndindex(2, 2), strict=True):
        samples = light[row::2, column::2]
        samples -= np.float32(black)
        samples *= np.float32(65535 / (frame.white - black))
    return np.rint(np.clip(light, 0, 65535, out=light), out=light).astype(np.uint16)


def _with_power_of_two_levels(frame: RawFrame) -> RawFrame:
    """The frame with black at 0 and white at the power of two at or above its brightest sample.

    2 ** ceil(log2(max)) of the visible area, as the data preparation released with CycleISP takes.
    """
    brightest = int(frame.visible.max())
    if brightest == 0:
        raise InputError("every sample is 0: nothing to normalise by", subject=frame.source)
    return replace(
        frame,
        black=(0.0, 0.0, 0.0, 0.0),
        white=float(1 << (brightest - 1).bit_length()),
        black_rows=None,
        black_columns=None,
    )


def _rendered(frame: RawFrame, *, fivek: bool) -> npt.NDArray[np.uint8]:
    """(H, W, 3) sRGB codes of the visible area, not turned.

    LibRaw demosaics by AHD and converts to sRGB's primaries either way. Where the file declares a
    white balance, "fivek" gives code for code what the authors' call gives before its JPEG:
    ``postprocess(use_camera_wb=True, half_size=False, user_flip=0, no_auto_bright=True,
    output_bps=8)``.
    """
    tone = LIBRAW_TONE if fivek else SRGB_TONE
    try:
        picture = render(replace(frame, orientation=1), _UNTOUCHED, bits=8, tone=tone)
    except OutputError as error:
        raise InputError("LibRaw cannot render it", subject=frame.source, met=error.met) from error
    if picture.shape[:2] != frame.visible.shape:
        raise InputError(
            "LibRaw's rendering is not of the RAW's size",
            subject=frame.source,
            met="{1}x{0}".format(*picture.shape),
            wanted="{1}x{0}".format(*frame.visible.shape),
        )
    return _through_jpeg(picture, frame) if fivek else picture


def _through_jpeg(picture: npt.NDArray[np.uint8], frame: RawFrame) -> npt.NDArray[np.uint8]:
    encoded = io.BytesIO()
    try:
        PIL.Image.fromarray(picture).save(encoded, "JPEG")
        return np.asarray(PIL.Image.open(encoded))
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise InputError("too large for a JPEG", subject=frame.source) from error
