"""SIDD: the smartphone image denoising dataset in the files that its authors publish.

A. Abdelhamed, S. Lin, M. S. Brown, "A High-Quality Denoising Dataset for Smartphone Cameras", CVPR
2018. RAW is float, black level subtracted, in [0, 1]; sRGB is 8 bit. The names of files, variables
and metadata are those of public loaders; they were not checked against the set itself. This module
reads the frames of Small and Medium.

    Data/0001_001_S6_00100_00060_3200_L/      scene instance, scene, phone, ISO, ...
        0001_NOISY_RAW_010.MAT                v7.3, variable x; SIDD Small leaves out 0001_
        0001_GT_RAW_010.MAT
        0001_METADATA_RAW_010.MAT             v5, struct metadata: MATLAB's imfinfo of the DNG
        0001_NOISY_SRGB_010.PNG
        0001_GT_SRGB_010.PNG
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp.data.augmentation import MosaicPair
from cycleisp.data.matlab import read_array
from cycleisp.data.photographs import load_photograph
from cycleisp.data.sidd_blocks import unit_samples
from cycleisp.data.sidd_metadata import PHONE_PHASES, read_metadata
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["SiddFiles", "SiddPair", "find_sidd_pairs", "read_sidd_pair"]

_SCENE = re.compile(r"\d{4}_\d{3}_(GP|IP|S6|N6|G4)_\d{5}_\d{5}_\d{4}_[LNH]")
_FILE = re.compile(r"(?:\d{4}_)?(NOISY|GT|METADATA)_(RAW|SRGB)_(\d{3})\.(?:MAT|PNG)", re.IGNORECASE)
_CONTENTS = {"NOISY RAW", "GT RAW", "METADATA RAW", "NOISY SRGB", "GT SRGB"}


@dataclass(frozen=True)
class SiddFiles:
    """The five files of one frame.

    Attributes:
        name: scene instance folder and frame, such as 0001_001_S6_00100_00060_3200_L/010.
        phone: key of ``PHONE_PHASES``.
    """

    name: str
    phone: str
    noisy_raw: Path
    clean_raw: Path
    metadata: Path
    noisy_srgb: Path
    clean_srgb: Path


@dataclass(frozen=True)
class SiddPair:
    """One scene, noisy and clean: (H, W) float32 mosaics in [0, 1] and (H, W, 3) uint8 sRGB.

    Attributes:
        noisy: one frame, H and W even.
        clean: the same, of the same phase, without noise.
        noise: what the metadata declares of the noisy frame.
    """

    noisy: MosaicPair
    clean: MosaicPair
    noise: NoiseModel


def find_sidd_pairs(*folders: Path) -> tuple[list[SiddFiles], list[str]]:
    """The complete frames of SIDD Small or Medium in order, and the names of incomplete ones.

    Args:
        folders: whatever holds ``Data``; RAW and sRGB are published apart and may lie apart.

    Raises:
        InputError: where a folder cannot be read or no frame is complete.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in _files(folder):
            match = _FILE.fullmatch(path.name)
            if match is not None:
                content, space, frame = (part.upper() for part in match.groups())
                found.setdefault(f"{path.parent.name}/{frame}", {})[f"{content} {space}"] = path
    incomplete = sorted(name for name, paths in found.items() if paths.keys() != _CONTENTS)
    complete = [
        SiddFiles(
            name,
            name.split("_")[2],
            noisy_raw=paths["NOISY RAW"],
            clean_raw=paths["GT RAW"],
            metadata=paths["METADATA RAW"],
            noisy_srgb=paths["NOISY SRGB"],
            clean_srgb=paths["GT SRGB"],
        )
        for name, paths in sorted(found.items())
        if name not in incomplete
    ]
    if not complete:
        raise InputError(
            "no complete frame of SIDD",
            subject=", ".join(map(str, folders)),
            met=f"{len(incomplete)} incomplete",
            wanted="RAW, sRGB and metadata, noisy and GT, in folders such as "
            "Data/0001_001_S6_00100_00060_3200_L",
        )
    return complete, incomplete


def _files(folder: Path) -> Iterator[Path]:
    """What stands in the folders of scene instances, directly or in ``Data``."""
    try:
        for above in (folder, folder / "Data"):
            if above == folder or above.is_dir():
                for scene in sorted(above.iterdir()):
                    if _SCENE.fullmatch(scene.name) and scene.is_dir():
                        yield from sorted(scene.iterdir())
    except OSError as error:
        raise InputError("cannot be read", subject=folder, met=error.strerror) from error


def read_sidd_pair(files: SiddFiles) -> SiddPair:
    """One frame in memory; 16 MP take 230 MB.

    The sRGB pictures may be turned against the RAW: the turn under which the clean pair agrees best
    is undone.

    Raises:
        InputError: where a file cannot be read, or the four pictures do not show one scene.
    """
    phase = PHONE_PHASES[files.phone]
    declared, noise = read_metadata(files.metadata)
    if declared is not None and declared is not phase:
        raise InputError(
            "the metadata's CFA is not the phone's",
            subject=files.metadata,
            met=declared.value,
            wanted=f"{phase.value} of {files.phone}",
        )
    noisy, clean = _raw(files.noisy_raw), _raw(files.clean_raw)
    noisy_srgb, clean_srgb = map(load_photograph, (files.noisy_srgb, files.clean_srgb))
    if noisy.shape != clean.shape or noisy_srgb.shape != clean_srgb.shape:
        raise InputError(
            "noisy and clean differ in size",
            subject=files.name,
            met=f"{noisy.shape} {clean.shape} {noisy_srgb.shape} {clean_srgb.shape}",
        )
    turns = _turns(files, clean, clean_srgb)
    return SiddPair(
        MosaicPair(noisy, np.rot90(noisy_srgb, turns), phase),
        MosaicPair(clean, np.rot90(clean_srgb, turns), phase),
        noise,
    )


def _raw(path: Path) -> npt.NDArray[np.float32]:
    mosaic = read_array(path, "x")
    even = mosaic.ndim == 2 and 0 not in mosaic.shape and not any(s % 2 for s in mosaic.shape)
    if not even or mosaic.dtype.kind != "f":
        raise InputError(
            "not a mosaic of whole cells",
            subject=path,
            met=f"{mosaic.dtype} {mosaic.shape}",
            wanted="single (H, W), both even",
        )
    return unit_samples(path, mosaic)


def _turns(files: SiddFiles, mosaic: npt.NDArray[np.float32], srgb: npt.NDArray[np.uint8]) -> int:
    """By how many quarters, anticlockwise, the sRGB must be turned to lie on the mosaic."""
    raw = np.sqrt(_thumbnail(mosaic))
    agreement = {
        turns: _correlation(raw, _thumbnail(turned[..., 1].astype(np.float32)))
        for turns in range(4)
        if (turned := np.rot90(srgb, turns)).shape[:2] == mosaic.shape
    }
    best = max(agreement, key=agreement.__getitem__, default=0)
    if agreement.get(best, 0) < 0.5:
        raise InputError(
            "RAW and sRGB do not show the same picture",
            subject=files.name,
            met=f"{mosaic.shape} and {srgb.shape[:2]}, correlation {agreement.get(best, 0):.2f}",
        )
    return best


def _correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Pearson's, -1 to 1; 0 where one is flat."""
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else 0.0


def _thumbnail(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(<= 32, <= 32) means of equal blocks of whole CFA cells."""
    rows, columns = (max(2, side // 64 * 2) for side in picture.shape)
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    whole = picture[: height * rows, : width * columns]
    means: npt.NDArray[np.float32] = whole.reshape(height, rows, width, columns).mean(axis=(1, 3))
    return means
