"""A folder of prepared RAW and sRGB pairs, format ``cycleisp-pairs/1``.

    pairs.json      which pairs there are, and what each was made from
    STEM.raw.npy    (H, W) uint16, RGGB, 65535 times the normalised samples
    STEM.rgb.npy    (H, W, 3) uint8, sRGB codes R, G, B at the same places

A RAW and its rendering belong together because ``pairs.json`` names their stem, never by their
order in the folder. Such a folder may come from a stranger: no name in it leaves the folder, no
file is reached through a link, and arrays are mapped, never unpickled.
"""

from __future__ import annotations

import io
import math
import stat
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from cycleisp.data.augmentation import MosaicPair
from cycleisp_runtime.bundle import PlainName, Sha256
from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.readers import Limits
from cycleisp_runtime.writers import atomic_output

__all__ = [
    "Manifest",
    "Normalisation",
    "PairRecord",
    "is_whole",
    "open_manifest",
    "open_pair",
    "read_manifest",
    "save_pair",
]

_MANIFEST_NAME = "pairs.json"
_MAX_MANIFEST_BYTES = 1 << 26
"""Of ``pairs.json``. A hundred thousand pairs take 50 MB."""

_MAX_SAMPLES = Limits().max_samples

Normalisation = Literal["levels", "fivek"]
Text = Annotated[str, Meta(max_length=4000)]
Side = Annotated[int, Meta(ge=2, le=65535)]


class PairRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pair.

    Attributes:
        stem: how its two files begin.
        source: name of the RAW file, made printable.
        source_sha256: hash of that file.
        camera: as the file names it; empty where it does not.
        cfa: phase of the file's picture, before it was cropped to RGGB.
        black: DN that became 0, per position of the 2x2 cell of ``cfa``, row by row.
        white: DN that became 65535.
        height: rows of both arrays.
        width: columns of both arrays.
    """

    stem: PlainName
    source: Text
    source_sha256: Sha256
    camera: Text
    cfa: Literal["RGGB", "GRBG", "GBRG", "BGGR"]
    black: tuple[float, float, float, float]
    white: float
    height: Side
    width: Side

    def __post_init__(self) -> None:
        if self.height * self.width > _MAX_SAMPLES:
            raise ValueError(f"more than {_MAX_SAMPLES} samples")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``pairs.json``.

    Attributes:
        format: version of this schema.
        normalisation: what the samples of every pair were divided by, so that a folder never mixes
            two: "levels" for the file's black and white, "fivek" as CycleISP's authors did.
        pairs: each stem and each source once.
    """

    format: Literal["cycleisp-pairs/1"] = "cycleisp-pairs/1"
    normalisation: Normalisation
    pairs: tuple[PairRecord, ...] = ()

    def __post_init__(self) -> None:
        # The same frame twice could be trained on and held out at once.
        for name in ("stem", "source_sha256"):
            values = [str(getattr(pair, name)).casefold() for pair in self.pairs]
            if len(set(values)) < len(values):
                raise ValueError(f"two pairs have the same {name}")


def read_manifest(folder: Path) -> Manifest:
    """What ``pairs.json`` of a folder says.

    Raises:
        InputError: where there is none, or it is not of our format.
    """
    path = folder / _MANIFEST_NAME
    _check_plain_file(path)
    try:
        with path.open("rb") as file:
            encoded = file.read(_MAX_MANIFEST_BYTES + 1)
        if len(encoded) > _MAX_MANIFEST_BYTES:
            raise InputError("too large", subject=path, wanted=f"{_MAX_MANIFEST_BYTES} bytes")
        return msgspec.json.decode(encoded, type=Manifest)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error
    except msgspec.DecodeError as error:
        raise InputError(f"not a list of prepared pairs: {error}", subject=path) from error


def open_manifest(folder: Path, normalisation: Normalisation) -> Manifest:
    """The list of a folder that pairs are to be added to; a new one where there is none yet.

    Raises:
        OutputError: where the folder cannot be made or written to.
        InputError: where its list cannot be read.
        SettingsError: where its pairs are normalised otherwise.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder cannot be made", subject=folder, met=error.strerror
        ) from error
    if (folder / _MANIFEST_NAME).exists():
        manifest = read_manifest(folder)
    else:
        manifest = Manifest(normalisation=normalisation)
    if manifest.normalisation != normalisation:
        raise SettingsError(
            "the pairs in this folder are normalised otherwise",
            subject=folder,
            met=manifest.normalisation,
            wanted=normalisation,
            hint="prepare them in another folder",
        )
    with atomic_output(folder / _MANIFEST_NAME, source=None, force=True) as file:
        file.write(_encoded(manifest))
    return manifest


def save_pair(folder: Path, manifest: Manifest, record: PairRecord, pair: MosaicPair) -> Manifest:
    """Write the two arrays of a pair, then the manifest that lists it; returns the latter.

    Args:
        folder: where the pairs stand.
        manifest: what stands there so far; a record of the same source is replaced.
        record: of this pair.
        pair: (H, W) uint16 and (H, W, 3) uint8, RGGB.

    Raises:
        OutputError: where one of the files cannot be written; none of them is left then.
    """
    others = (other for other in manifest.pairs if other.source_sha256 != record.source_sha256)
    listed = msgspec.structs.replace(manifest, pairs=(*others, record))
    raw, rgb = _paths(folder, record.stem)
    with (
        atomic_output(folder / _MANIFEST_NAME, source=None, force=True) as manifest_file,
        atomic_output(raw, source=None, force=True) as raw_file,
        atomic_output(rgb, source=None, force=True) as rgb_file,
    ):
        manifest_file.write(_encoded(listed))
        np.save(raw_file, np.ascontiguousarray(pair.mosaic), allow_pickle=False)
        np.save(rgb_file, np.ascontiguousarray(pair.rgb), allow_pickle=False)
    return listed


def open_pair(folder: Path, record: PairRecord) -> MosaicPair:
    """The arrays of a pair, mapped into memory for reading: (H, W) uint16, (H, W, 3) uint8, RGGB.

    Raises:
        InputError: where one of them is missing, damaged or not what its record says.
    """
    raw, rgb = _paths(folder, record.stem)
    size = record.height, record.width
    return MosaicPair(
        _mapped(raw, np.dtype(np.uint16), size), _mapped(rgb, np.dtype(np.uint8), (*size, 3))
    )


def is_whole(folder: Path, record: PairRecord) -> bool:
    """Whether both arrays of a pair are there and what the record says."""
    try:
        open_pair(folder, record)
    except InputError:
        return False
    return True


def _paths(folder: Path, stem: str) -> tuple[Path, Path]:
    return folder / f"{stem}.raw.npy", folder / f"{stem}.rgb.npy"


def _encoded(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def _mapped(
    path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> npt.NDArray[np.generic]:
    _check_plain_file(path)
    wanted = _header(dtype, shape)
    try:
        with path.open("rb") as file:
            header = file.read(len(wanted))
        met_bytes = path.stat().st_size
        wanted_bytes = len(wanted) + dtype.itemsize * math.prod(shape)
        # A header that is not exactly ours is never parsed.
        if header == wanted and met_bytes == wanted_bytes:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error
    raise InputError(
        f"damaged, or not the array that {_MANIFEST_NAME} lists",
        subject=path,
        met=f"{met_bytes} bytes",
        wanted=f"{dtype} {shape} in {wanted_bytes} bytes",
        hint="`cycleisp data prepare` makes it again",
    )


def _header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """How ``np.save`` begins the file of such an array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
    return header.getvalue()


def _check_plain_file(path: Path) -> None:
    """Refuse what is absent, is a link, or would wait for a writer."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError("not a plain file", subject=path, hint="links are not followed")
    except OSError as error:
        raise InputError(
            "a file of the prepared pairs is missing",
            subject=path,
            met=error.strerror,
            hint="`cycleisp data prepare` makes it",
        ) from error
