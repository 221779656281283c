"""Many files denoised one after the other: a bad one is reported and the rest is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.denoised import Denoised, unchanged
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import CalibrationError, CycleISPError, OutputError, SettingsError
from cycleisp_runtime.frame import LevelsSource, RawFrame
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_source import NoiseChoice, choose_noise
from cycleisp_runtime.readers import DumpLayout, read_frame
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.text import printable
from cycleisp_runtime.writers import check_output, write_frame

__all__ = [
    "BatchSettings",
    "NoiseFacts",
    "Outcome",
    "begun",
    "denoise_file",
    "failures_told",
    "make_folder",
]


@dataclass(frozen=True)
class BatchSettings:
    """What holds for every file of a batch.

    Attributes:
        noise: the frames' noise; None takes what each file declares, or an estimate from it.
        strength: share of the model's correction, of what is expected to help, 0..1.
        tile: side of a tile in packed samples; None for what memory allows.
        exact: attention of a network that pools is taken from the whole frame.
        keep_levels: write at the input's levels instead of 16 bits.
        layout: how to read dumps without a header; None for RAW files.
        force: replace outputs that exist.
    """

    noise: NoiseModel | None = None
    strength: float = 1.0
    tile: int | None = None
    exact: bool = False
    keep_levels: bool = False
    layout: DumpLayout | None = None
    force: bool = False


class NoiseFacts(msgspec.Struct):
    """The noise that a frame was denoised by.

    Attributes:
        source: "given", "profile", "estimate", or "none" where nothing was denoised.
        shot: shot coefficient, mean over the planes, in normalised units.
        read: read coefficient, the same.
        confidence: of an estimate, in a word.
    """

    source: str
    shot: float | None = None
    read: float | None = None
    confidence: str | None = None


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one file; encoded as JSON it is one line of a report.

    Attributes:
        input: the file that was read.
        output: the file that was written; None where there is none.
        error: why there is no output, in one line that names the file; None where there is one.
        camera: as the file names it.
        cfa: phase at the corner of the picture.
        size: width and height of the picture.
        black: DN of zero light in the input, per position of the 2x2 cell, row by row.
        white: DN of saturation in the input.
        levels_from: where black and white are known from, as ``RawFrame`` says.
        noise: the noise, and where it is known from.
        strength: share of the model's output in the result: what was asked for, times ``trust``.
        trust: share of the model's correction that is expected to help this frame, 0..1.
        expected_gain_db: PSNR that the frame is expected to have gained; None where not known.
        level_scale: factor from the input's levels to the output's.
        seconds: by step.
        backend: what ran the model, at which precision, where.
        backend_reason: why this one.
        model: name of the model.
        model_sha256: hash of the model's bundle.
        warnings: what was guessed, repaired or may disappoint, one sentence each.
    """

    input: str
    output: str | None = None
    error: str | None = None
    camera: str | None = None
    cfa: str | None = None
    size: tuple[int, int] | None = None
    black: tuple[float, float, float, float] | None = None
    white: float | None = None
    levels_from: LevelsSource | None = None
    noise: NoiseFacts | None = None
    strength: float | None = None
    trust: float | None = None
    expected_gain_db: float | None = None
    level_scale: int | None = None
    seconds: dict[str, float] = {}
    backend: str
    backend_reason: str
    model: str
    model_sha256: str
    warnings: list[str] = []


def denoise_file(
    job: Job,
    denoiser: Denoiser,
    settings: BatchSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """What became of this file; failures of the file itself are in it, not raised.

    Args:
        job: the file to read and the file to write; the folder of the latter is made if need be.
        denoiser: an open denoiser.
        settings: of the batch.
        progress: called with (tiles done, tiles in all).

    Raises:
        SettingsError: where the settings fit no file at all, such as a tile below the model's halo.
    """
    outcome = begun(job, denoiser.bundle, denoiser.backend)
    with failures_told(job, outcome):
        _denoise(job, denoiser, settings, progress, outcome)
    return outcome


def begun(job: Job, bundle: Bundle, backend: Backend) -> Outcome:
    """What can be said of a file before it is read."""
    return Outcome(
        input=printable(job.source),
        backend=str(backend),
        backend_reason=backend.reason,
        model=bundle.record.name,
        model_sha256=bundle.sha256,
    )


@contextmanager
def failures_told(job: Job, outcome: Outcome) -> Iterator[None]:
    """Failures of the file itself end the block and are in the outcome; others are raised."""
    try:
        yield
    except SettingsError:
        raise
    except CycleISPError as error:
        named = str(error.subject) == str(job.source)
        outcome.error = printable(error if named else f"{job.source}: {error}")
    except MemoryError:
        outcome.error = f"{outcome.input}: not enough memory for this frame"


def make_folder(output: Path) -> None:
    """The folder of an output, made if need be.

    Raises:
        OutputError: where the system refuses.
    """
    try:
        output.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder cannot be made", subject=output.parent, met=error.strerror
        ) from error


def _denoise(
    job: Job,
    denoiser: Denoiser,
    settings: BatchSettings,
    progress: Callable[[int, int], None] | None,
    outcome: Outcome,
) -> None:
    """Read, denoise, write; ``outcome`` is filled in step by step."""
    watch = Stopwatch()
    outcome.seconds = watch.seconds
    if job.output.parent.is_dir():
        check_output(job.output, source=job.source, force=settings.force)
    with watch.step("read"):
        frame = read_frame(job.source, layout=settings.layout)
    outcome.camera = printable(frame.camera)
    outcome.cfa = frame.cfa.value
    outcome.size = (frame.area.width, frame.area.height)
    outcome.black = frame.black
    outcome.white = frame.white
    outcome.levels_from = frame.levels_from
    outcome.warnings = list(frame.warnings)
    with watch.step("noise"):
        choice = _noise_of(frame, settings)
    if choice is None:
        denoised = unchanged(frame, keep_levels=settings.keep_levels)
        outcome.noise = NoiseFacts(source="none")
        if settings.strength > 0:
            outcome.warnings.append(f"every sample is {_sameness(frame)}: nothing to denoise")
    else:
        outcome.noise = NoiseFacts(
            source=choice.source,
            shot=choice.model.mean_shot,
            read=choice.model.mean_read,
            confidence=choice.confidence,
        )
        outcome.warnings += choice.warnings
        denoised = denoiser(
            frame,
            noise=choice.model,
            strength=settings.strength,
            tile=settings.tile,
            exact=settings.exact,
            keep_levels=settings.keep_levels,
            progress=progress,
        )
    outcome.warnings += denoised.warnings
    outcome.strength = denoised.strength
    outcome.trust = denoised.trust
    outcome.expected_gain_db = denoised.expected_gain_db
    outcome.level_scale = denoised.level_scale
    watch.seconds.update(denoised.seconds)
    with watch.step("write"):
        _write(denoised, job.output, settings.force)
    outcome.output = printable(job.output)


def _noise_of(frame: RawFrame, settings: BatchSettings) -> NoiseChoice | None:
    """The frame's noise; None where it cannot be told and there is nothing to denoise either."""
    try:
        return choose_noise(frame, settings.noise)
    except CalibrationError:
        if settings.strength > 0 and _sameness(frame) is None:
            raise
        return None


def _sameness(frame: RawFrame) -> str | None:
    """In a word, why no sample says anything about a picture; None where samples do."""
    lowest, highest = int(frame.visible.min()), int(frame.visible.max())
    if lowest >= frame.white:
        return "saturated"
    return "equal" if lowest == highest else None


def _write(denoised: Denoised, output: Path, force: bool) -> None:
    make_folder(output)
    write_frame(
        denoised.frame,
        output,
        level_scale=denoised.level_scale,
        noise_reduction=denoised.strength,
        residual_noise=denoised.residual,
        force=force,
    )
