"""What a model is outside torch: a folder NAME.bundle with ``bundle.json`` and the files it lists.

A bundle may come from a stranger. ``bundle.json`` is checked against the records below (an unknown
key, a missing one or a value out of range is refused), no name in it leaves the folder, no file is
reached through a link, and every listed file is compared with its recorded size and SHA-256 before
anything else looks into it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from cycleisp_runtime.errors import BundleError
from cycleisp_runtime.onnx_file import check_network

__all__ = [
    "Bundle",
    "BundleRecord",
    "Halo",
    "ListedFile",
    "ModelFile",
    "NoiseRange",
    "Pooling",
    "Precision",
    "Provenance",
    "Quality",
    "Reduction",
    "TensorNames",
    "encode",
    "find_bundle",
    "shipped_bundles",
]

RECORD_NAME = "bundle.json"
MAX_RECORD_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 28
"""Of one listed file. The largest network of the family takes 12 MB in FP32."""

_SUFFIX = ".bundle"

Precision = Literal["fp32", "fp16", "int8", "int8-cpu"]
"""INT8 for TensorRT is signed; CPUs compute it fast where activations are unsigned."""

Text = Annotated[str, Meta(min_length=1, max_length=4000)]
PlainName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=100)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Shot = Annotated[float, Meta(gt=0, lt=1)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of ``bundle.json``."""


class Halo(_Record, frozen=True):
    """Context that a tile needs on each side, in packed samples, measured on this model's weights.

    Attributes:
        for_90_db: tiles agree with the whole frame to 90 dB or better (peak 1).
        for_120_db: the same for 120 dB.
        exact: nothing beyond it influences an output sample; None where the network pools over
            the frame, so that no halo makes tiles exact.
    """

    for_90_db: Count
    for_120_db: Count
    exact: Count | None


class TensorNames(_Record, frozen=True):
    """Names of the graph's inputs and of its output, all float32; None for an input it lacks.

    Attributes:
        noisy: input (N, channels, h, w): normalised R, Gr, Gb, B, or R, G, B in [0, 1].
        denoised: output, the same shape and units.
        variance: input (N, 4, h, w), the variance map.
        noise_scale: input (N, 1, 1, 1), sqrt of the mean of the frame's variance map.
        gates: input (N, G, 1, 1), channel attention, from the statistics graph (``Pooling``).
    """

    noisy: Text
    denoised: Text
    variance: Text | None = None
    noise_scale: Text | None = None
    gates: Text | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that the graph has."""
        names = (self.noisy, self.variance, self.noise_scale, self.gates)
        return tuple(name for name in names if name is not None)

    def fill(
        self,
        noisy: npt.NDArray[np.float32],
        variance: npt.NDArray[np.float32] | None = None,
        noise_scale: float | None = None,
        gates: npt.NDArray[np.float32] | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The inputs of N tiles of one frame by name, without those that the graph lacks."""
        count = len(noisy)
        scales = None if noise_scale is None else np.full((count, 1, 1, 1), noise_scale, np.float32)
        given = {
            self.noisy: noisy,
            self.variance: variance,
            self.noise_scale: scales,
            self.gates: None if gates is None else np.repeat(gates, count, axis=0),
        }
        return {
            name: value for name, value in given.items() if name is not None and value is not None
        }


class NoiseRange(_Record, frozen=True):
    """Shot coefficients that training covered, in normalised units."""

    shot_min: Shot
    shot_max: Shot

    def __post_init__(self) -> None:
        if self.shot_min > self.shot_max:
            raise ValueError("shot_min is above shot_max")

    def __str__(self) -> str:
        return f"shot {self.shot_min:.2g} to {self.shot_max:.2g}"

    def doubt(self, shot: float) -> str | None:
        """A sentence for people where training did not cover this shot coefficient."""
        if self.shot_min <= shot <= self.shot_max:
            return None
        return f"shot noise {shot:.2g} is outside of the model's training range, {self}"


class ListedFile(_Record, frozen=True):
    """A file of the bundle and what it must be."""

    file: PlainName
    sha256: Sha256
    bytes: Annotated[int, Meta(ge=1, le=MAX_FILE_BYTES)]


class Reduction(_Record, frozen=True):
    """What a precision below FP32 costs on held-out photographs, and where it is not used.

    Attributes:
        photographs: how many.
        loss_db: mean loss of PSNR against FP32 by noise level, clean photographs as the truth.
        worst_loss_db: that of the photograph that loses most.
        kept: layers that compute at a higher precision, with that precision and the reason.
        calibration: method and SHA-256 of the set that quantisation steps come from; None where
            nothing is quantised.
    """

    photographs: Positive
    loss_db: dict[str, float]
    worst_loss_db: dict[str, float]
    kept: dict[str, Text]
    calibration: Text | None = None

    def loss_in_words(self) -> str:
        """The mean loss by noise level, for people."""
        by_level = ", ".join(f"{loss:.3f} dB at {level}" for level, loss in self.loss_db.items())
        return f"{by_level} noise on {self.photographs} photographs"


class ModelFile(ListedFile, frozen=True):
    """The network at one precision.

    Attributes:
        opset: the ONNX opset that the graph needs.
        runs_on: backends that it was run on, such as "onnxruntime".
        reduction: what became of the FP32 network; None for that one.
    """

    opset: Positive
    runs_on: tuple[Text, ...]
    reduction: Reduction | None = None


class Pooling(_Record, frozen=True):
    """How tiles of a network that pools over the frame agree: its attention is computed beforehand.

    The statistics graph is the same network up to its last pool. It takes the inputs of the other
    graph except for the gates, and puts out the gates. On every ``decimation``-th packed sample of
    a frame it costs little; on the whole frame it makes tiles exact.

    Attributes:
        statistics: the graph's file.
        gates: length of the vector of gates.
        decimation: step between the samples that the gates are taken from.
        agreement_db: PSNR (peak 1) between tiles that share such gates and the whole frame, the
            lowest over the three noise levels.
    """

    statistics: ModelFile
    gates: Positive
    decimation: Positive
    agreement_db: float


class Provenance(_Record, frozen=True):
    """Where the weights come from.

    Attributes:
        recipe: file or name of the training recipe.
        data: what it was trained on.
        data_license: licence of that data.
        steps: optimiser steps.
        hours: wall time of the training.
        date: the day training ended, YYYY-MM-DD.
        weights_sha256: hash of the exported checkpoint.
    """

    recipe: Text
    data: Text
    data_license: Text
    steps: Count
    hours: Annotated[float, Meta(ge=0)]
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    weights_sha256: Sha256


class Quality(_Record, frozen=True):
    """Mean PSNR in dB (peak 1) over held-out photographs at one noise level.

    Attributes:
        level: its name, such as "low".
        shot: shot coefficient of that level; None for rendered pictures.
        noisy_db: PSNR of the noisy input.
        denoised_db: PSNR of the model's output.
        baselines_db: PSNR of other methods on the same samples, by name.
    """

    level: Text
    shot: Shot | None
    noisy_db: float
    denoised_db: float
    baselines_db: dict[str, float] = {}


class BundleRecord(_Record, frozen=True):
    """``bundle.json``: everything a program must know to run the model, and to trust it.

    Attributes:
        format: version of this schema.
        task: "raw" for packed Bayer frames, "srgb" for rendered pictures.
        channels: planes of the input and of the output.
        multiple_of: tile sides and tile origins are multiples of it, in packed samples.
        normalisation: how samples become the input, in words.
        pooling: what a network that pools over the frame needs beside; None for others.
        variance: how the variance map is made, in words; None for a network that takes none.
        noise_range: None for a network that is told of no noise.
        kmac_per_sample: thousand multiply-adds per sensor sample.
        precisions: the network's files, by precision.
        documents: files for people, such as the card.
    """

    format: Literal["cycleisp-bundle/1"]
    name: PlainName
    task: Literal["raw", "srgb"]
    license: Text
    description: Text
    channels: Positive
    multiple_of: Annotated[int, Meta(ge=1, le=64)]
    halo: Halo
    tensors: TensorNames
    normalisation: Text
    parameters: Positive
    kmac_per_sample: Annotated[float, Meta(gt=0)]
    precisions: Annotated[dict[Precision, ModelFile], Meta(min_length=1)]
    provenance: Provenance
    quality: Annotated[tuple[Quality, ...], Meta(min_length=1)]
    variance: Text | None = None
    noise_range: NoiseRange | None = None
    pooling: Pooling | None = None
    documents: tuple[ListedFile, ...] = ()


def encode(record: BundleRecord) -> bytes:
    """The bytes of ``bundle.json`` for this record."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose record and files were found to be what they claim.

    Attributes:
        folder: where it stands.
        record: its ``bundle.json``.
        sha256: hash of ``bundle.json``, which holds the hashes of all other files.
    """

    folder: Path
    record: BundleRecord
    sha256: str

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """The bundle in ``folder``, all its files checked.

        Raises:
            BundleError: where anything is missing, altered, linked or not of our format.
        """
        if folder.is_symlink() or not folder.is_dir():
            raise BundleError(
                "not a bundle",
                subject=folder,
                met="a link" if folder.is_symlink() else "no folder",
                wanted="a folder that is not a link",
            )
        encoded = _read_regular(folder / RECORD_NAME, MAX_RECORD_BYTES)
        try:
            record = msgspec.json.decode(encoded, type=BundleRecord)
        except msgspec.DecodeError as error:
            raise BundleError(
                f"not a bundle record that this version understands: {error}",
                subject=folder / RECORD_NAME,
                hint="take the bundle and cycleisp from the same release",
            ) from error
        bundle = cls(folder, record, hashlib.sha256(encoded).hexdigest())
        statistics = () if record.pooling is None else (record.pooling.statistics,)
        for listed in (*record.precisions.values(), *statistics, *record.documents):
            bundle._read(listed)
        return bundle

    def model(self, precision: Precision) -> bytes:
        """The ONNX file at this precision, compared with its hash once more as it is read.

        Raises:
            BundleError: where the bundle lacks this precision, or the file was altered since, or
                ``check_network`` refuses it.
        """
        listed = self.record.precisions.get(precision)
        if listed is None:
            raise BundleError(
                "this precision is not in the bundle",
                subject=self.folder,
                met=precision,
                wanted=" or ".join(self.record.precisions),
            )
        return self._network(listed)

    def statistics(self) -> bytes:
        """The statistics graph of a network that pools, checked as ``model`` checks.

        Raises:
            BundleError: where the bundle has none, or it was altered since or is refused.
        """
        if self.record.pooling is None:
            raise BundleError("the network does not pool", subject=self.folder)
        return self._network(self.record.pooling.statistics)

    def _network(self, listed: ModelFile) -> bytes:
        network = self._read(listed)
        check_network(network, self.folder / listed.file)
        return network

    def _read(self, listed: ListedFile) -> bytes:
        path = self.folder / listed.file
        content = _read_regular(path, listed.bytes)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != listed.sha256:
            raise BundleError(
                "the file is not the one that the bundle lists",
                subject=path,
                met=f"{len(content)} bytes, sha256 {sha256[:12]}",
                wanted=f"{listed.bytes} bytes, sha256 {listed.sha256[:12]}",
                hint="fetch the bundle again",
            )
        return content


def _read_regular(path: Path, limit: int) -> bytes:
    """At most ``limit`` bytes of a plain file; links, devices and larger files are refused."""
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            raise BundleError("not a plain file", subject=path, hint="links are not followed")
        if facts.st_size > limit:
            raise BundleError(
                "the file is too large",
                subject=path,
                met=f"{facts.st_size} bytes",
                wanted=f"at most {limit}",
            )
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise BundleError(
            "a file of the bundle cannot be read", subject=path, met=error.strerror
        ) from error


def shipped_bundles() -> dict[str, Path]:
    """The bundles inside this package, by name."""
    shelf = Path(str(resources.files("cycleisp_runtime") / "bundles"))
    folders = sorted(shelf.glob(f"*{_SUFFIX}"))
    return {folder.name.removesuffix(_SUFFIX): folder for folder in folders}


def find_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """The shipped bundle of this name, or else the bundle at this path.

    Raises:
        BundleError: where there is neither, or ``Bundle.load`` refuses it.
    """
    shipped = shipped_bundles()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not os.path.lexists(path):
        raise BundleError(
            "no such model",
            subject=str(name_or_path),
            wanted=" or ".join([*shipped, "the path of a bundle folder"]),
        )
    return Bundle.load(path)
