"""What a RAW file, a bundle or an engine says, as plain facts to print or to encode."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cycleisp_runtime.bundle import BundleRecord, find_bundle, shipped_bundles
from cycleisp_runtime.engines.cache import ENGINE_SUFFIX, EngineCache, Manifest
from cycleisp_runtime.errors import CalibrationError
from cycleisp_runtime.frame import Exposure, LevelsSource, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_estimate import estimate_noise
from cycleisp_runtime.readers import read_frame
from cycleisp_runtime.text import printable

__all__ = [
    "BundleFacts",
    "EngineFacts",
    "EstimateFacts",
    "FrameFacts",
    "describe",
    "describe_frame",
]


class EstimateFacts(msgspec.Struct, frozen=True):
    """The noise as estimated from the frame itself.

    Attributes:
        model: shot and read per plane R, Gr, Gb, B, in normalised units; None without an estimate.
        confidence: in a word; None without an estimate.
        problem: why there is no estimate, or None.
        warnings: what makes it doubtful.
    """

    model: NoiseModel | None = None
    confidence: str | None = None
    problem: str | None = None
    warnings: tuple[str, ...] = ()


class FrameFacts(msgspec.Struct, frozen=True):
    """A frame without its samples; see ``RawFrame`` for what the names mean.

    Attributes:
        size: width and height of the picture.
        stored_size: width and height of the stored frame, masked samples included.
        area: top, left, height and width of the picture in the stored frame.
        black: DN of zero light per position of the 2x2 cell, row by row.
        black_varies: "rows", "columns" or both, where the file adds to ``black`` along them.
        color_matrix: XYZ to camera R, G, B for D65, three rows.
        noise_profile: what the file declares, per plane R, Gr, Gb, B.
        noise_estimate: what the frame itself says.
    """

    file: str
    camera: str
    size: tuple[int, int]
    stored_size: tuple[int, int]
    area: tuple[int, int, int, int]
    cfa: str
    black: tuple[float, float, float, float]
    black_varies: tuple[str, ...]
    white: float
    levels_from: LevelsSource
    white_balance: tuple[float, float, float] | None
    color_matrix: list[list[float]] | None
    orientation: int
    exposure: Exposure
    noise_profile: NoiseModel | None
    noise_estimate: EstimateFacts
    warnings: tuple[str, ...]


class BundleFacts(msgspec.Struct, frozen=True):
    """A bundle whose files were checked.

    Attributes:
        file: its folder.
        sha256: hash of its record.
        record: what ``bundle.json`` says.
    """

    file: str
    sha256: str
    record: BundleRecord


class EngineFacts(msgspec.Struct, frozen=True):
    """An engine of the cache that was checked.

    Attributes:
        file: its path.
        manifest: what is known of it.
    """

    file: str
    manifest: Manifest


def describe(name: str) -> FrameFacts | BundleFacts | EngineFacts:
    """The facts of a RAW file, of a bundle by its folder or shipped name, or of an engine.

    Raises:
        InputError: where the file holds no frame that we read.
        BundleError: where the bundle must not be trusted.
        BackendError: where the engine must not be trusted.
    """
    path = Path(name)
    if path.suffix == ENGINE_SUFFIX:
        return EngineFacts(printable(path), EngineCache().open(path).manifest)
    if path.is_dir() or (name in shipped_bundles() and not path.exists()):
        bundle = find_bundle(name)
        return BundleFacts(printable(bundle.folder), bundle.sha256, bundle.record)
    return describe_frame(read_frame(path), path)


def describe_frame(frame: RawFrame, file: Path) -> FrameFacts:
    """The facts of this frame, read from ``file``."""
    height, width = frame.samples.shape
    matrix = frame.color_matrix
    return FrameFacts(
        file=printable(file),
        camera=printable(frame.camera),
        size=(frame.area.width, frame.area.height),
        stored_size=(width, height),
        area=frame.area,
        cfa=frame.cfa.value,
        black=frame.black,
        black_varies=tuple(
            name
            for name, deltas in (("rows", frame.black_rows), ("columns", frame.black_columns))
            if deltas is not None
        ),
        white=frame.white,
        levels_from=frame.levels_from,
        white_balance=frame.white_balance,
        color_matrix=None if matrix is None else matrix.tolist(),
        orientation=frame.orientation,
        exposure=frame.exposure,
        noise_profile=frame.noise_profile,
        noise_estimate=_estimate(frame),
        warnings=frame.warnings,
    )


def _estimate(frame: RawFrame) -> EstimateFacts:
    try:
        estimate = estimate_noise(frame)
    except CalibrationError as error:
        return EstimateFacts(problem=error.reason)
    return EstimateFacts(estimate.model, estimate.confidence, warnings=estimate.warnings)
