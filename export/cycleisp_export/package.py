"""From a training run to a bundle: graph, checks, record and card, put in place as one step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import onnx

from cycleisp.models.edge import EdgeDenoiser
from cycleisp.models.storage import load_network
from cycleisp.training.raw_denoiser import RawDenoiserSettings
from cycleisp.training.settings import read_recipe, resolve_settings
from cycleisp_export.card import model_card
from cycleisp_export.folder import write_folder
from cycleisp_export.graph import OPSET, TENSORS, edge_graph
from cycleisp_export.precisions import LowerPrecisions, lower_precisions
from cycleisp_export.quality import benchmark_quality, last_validation, validation_quality
from cycleisp_export.verify import OnnxGraph, check_graph, measured_halo, parity
from cycleisp_runtime.bundle import (
    Bundle,
    BundleRecord,
    ListedFile,
    ModelFile,
    NoiseRange,
    Precision,
    Provenance,
    Reduction,
    encode,
)
from cycleisp_runtime.errors import InputError, OutputError, SettingsError

__all__ = ["Exported", "export_run"]

NORMALISATION = (
    "x = (DN - black) / (white - black) per CFA position, float32, not clipped; planes R, Gr, Gb, B"
)
VARIANCE = "v = shot * max(x, 0) + read from the noisy samples; noise_scale = sqrt(mean of v)"


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Attributes:
        bundle: read back from its place.
        parity: largest difference from torch, in units of the noise scale.
    """

    bundle: Bundle
    parity: float


def export_run(
    run: Path,
    output: Path,
    *,
    data: str,
    data_license: str,
    quality: Path | None,
    force: bool,
    lower: LowerPrecisions | None = None,
) -> Exported:
    """The bundle of a finished training run, written to ``output``, a folder NAME.bundle.

    Args:
        run: folder that ``cycleisp train`` wrote: weights, settings, log.
        output: the bundle's folder; its parent must exist.
        data: what the network was trained on, in words.
        data_license: the licence of that data.
        quality: figures that benchmarks/quality.py wrote about a bundle of this name and of these
            weights; None for the run's own last validation.
        force: replace a bundle that stands there.
        lower: what to export beside FP32; None for nothing.

    Raises:
        SettingsError: where the name, or what is said of the data, suits no bundle.
        InputError: where the run lacks a file or holds a network that is not an edge denoiser, or
            the figures are not of these weights, or photographs or tiles cannot be read.
        OutputError: where ``output`` exists and ``force`` is off, or cannot be written.
        CalibrationError: where the calibration set is not one of this network.
        BackendError: where a graph fails a check or loses too much.
    """
    if output.suffix != ".bundle":
        raise SettingsError("a bundle's name ends in .bundle", met=output.name)
    if output.exists() and not force:
        raise OutputError("the bundle exists", subject=output, hint="give --force to replace it")
    name = output.stem
    weights_file = run / "raw_denoiser.safetensors"
    model, weights_sha256 = _trained_model(weights_file)
    settings = resolve_settings(RawDenoiserSettings, read_recipe(run / "settings.yaml"), ())
    validation = last_validation(run / "log.jsonl")
    if quality is None:
        figures = validation_quality(validation)
    else:
        figures = benchmark_quality(quality, name, weights_sha256)

    metadata = {
        "model": f"cycleisp {name}",
        "cfa_order": "R Gr Gb B",
        "normalisation": NORMALISATION,
        "variance": VARIANCE,
        "noise_range": f"shot {settings.shot_low:g} to {settings.shot_high:g}",
        "weights_sha256": weights_sha256,
        "license": "Apache-2.0",
    }
    noise_range = NoiseRange(shot_min=settings.shot_low, shot_max=settings.shot_high)
    proto = edge_graph(model, metadata)
    check_graph(proto)
    graph = OnnxGraph(proto)
    agreement = parity(model, graph)
    networks: dict[Precision, bytes] = {"fp32": _encoded(proto)}
    reductions: dict[Precision, Reduction] = {}
    if lower is not None:
        for precision, reduced in lower_precisions(model, metadata, noise_range, lower):
            networks[precision] = _encoded(reduced.proto)
            reductions[precision] = reduced.reduction

    multiplications = sum(p.numel() for p in model.parameters() if p.dim() == 4)
    record = BundleRecord(
        format="cycleisp-bundle/1",
        name=name,
        task="raw",
        license="Apache-2.0",
        description=f"RAW denoiser {name}: residual groups at a quarter of the frame's side, "
        "conditioned on the noise level",
        channels=4,
        multiple_of=2,
        halo=measured_halo(model, graph),
        tensors=TENSORS,
        normalisation=NORMALISATION,
        variance=VARIANCE,
        noise_range=noise_range,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        # The convolutions run once per 4x4 samples.
        kmac_per_sample=round(multiplications / 16 / 1000, 2),
        precisions={
            precision: ModelFile(
                file=f"{precision}.onnx",
                sha256=_sha256(network),
                bytes=len(network),
                opset=OPSET,
                runs_on=("onnxruntime",),
                reduction=reductions.get(precision),
            )
            for precision, network in networks.items()
        },
        provenance=Provenance(
            recipe="card.md",
            data=data,
            data_license=data_license,
            steps=int(validation["step"]),
            hours=round(validation["seconds"] / 3600, 2),
            date=_day(weights_file),
            weights_sha256=weights_sha256,
        ),
        quality=figures,
    )
    card = model_card(record, settings, agreement).encode()
    listed = ListedFile(file="card.md", sha256=_sha256(card), bytes=len(card))
    record = msgspec.structs.replace(record, documents=(listed,))
    _check_record(record)
    files = {f"{precision}.onnx": network for precision, network in networks.items()}
    files |= {"card.md": card, "bundle.json": encode(record)}
    write_folder(output, files, force=force)
    return Exported(Bundle.load(output), agreement)


def _trained_model(weights: Path) -> tuple[EdgeDenoiser, str]:
    """The network in a file of weights, and the file's SHA-256."""
    network = load_network(weights, "raw_denoiser")
    if not isinstance(network, EdgeDenoiser):
        raise InputError(
            "only edge denoisers can be exported", subject=weights, wanted="size edge or tiny"
        )
    return network, _sha256(weights.read_bytes())


def _check_record(record: BundleRecord) -> None:
    """Nothing, where the record is one that a reader accepts."""
    try:
        msgspec.json.decode(encode(record), type=BundleRecord)
    except msgspec.ValidationError as error:
        raise SettingsError("this makes no valid bundle", met=str(error)) from error


def _encoded(proto: onnx.ModelProto) -> bytes:
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _day(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).date().isoformat()
