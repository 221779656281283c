"""From a trained denoiser to a bundle: graph, checks, record, documents, put in place as one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from cycleisp_export.card import model_card
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.folder import write_folder
from cycleisp_export.graph import OPSET
from cycleisp_export.loss import judging_tiles
from cycleisp_export.precisions import LowerPrecisions, Reducer, calibration_set, lower_precisions
from cycleisp_export.quality import benchmark_quality, measured_quality
from cycleisp_export.report_page import report_documents
from cycleisp_export.trained import Trained, load_trained
from cycleisp_export.verify import (
    OnnxGraph,
    Parity,
    check_graph,
    gates_agreement,
    measured_halo,
    parity,
)
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.bundle import (
    Bundle,
    BundleRecord,
    Halo,
    ListedFile,
    ModelFile,
    Pooling,
    Precision,
    Provenance,
    Quality,
    Reduction,
    encode,
)
from cycleisp_runtime.errors import OutputError, SettingsError

__all__ = ["Exported", "Origin", "export_model"]

NORMALISATION = {
    "raw": "x = (DN - black) / (white - black) per CFA position, float32, not clipped; "
    "planes R, Gr, Gb, B",
    "srgb": "x = code / 255 of 8 bits sRGB, float32; planes R, G, B",
}
VARIANCE = "v = shot * max(x, 0) + read from the noisy samples"
NOISE_SCALE = "; noise_scale = sqrt(mean of v)"

_TASKS = {"raw": "RAW denoiser", "srgb": "sRGB denoiser"}

PLANES = {"raw": "R Gr Gb B", "srgb": "R G B"}

STATISTICS = "statistics.onnx"

DECIMATION = 4
"""Of the frame that gates are taken from: a sixteenth of the network's cost."""


@dataclass(frozen=True)
class Origin:
    """What is said of a network by whoever exports it.

    Attributes:
        data: what it was trained on, in words.
        data_license: the licence of that data.
        license: of the weights; None for Apache-2.0, or for what the import of them wrote.
    """

    data: str
    data_license: str
    license: str | None = None


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Attributes:
        bundle: read back from its place.
        parity: how far its FP32 is from torch.
        photographs: that its quality was measured on; None where it was on record.
    """

    bundle: Bundle
    parity: Parity
    photographs: int | None


def export_model(
    source: Path,
    output: Path,
    *,
    origin: Origin,
    quality: Path | None,
    photographs: Path | None,
    force: bool,
    lower: LowerPrecisions | None = None,
    watch: Watch = nobody,
) -> Exported:
    """The bundle of a denoiser of any size, written to ``output``, a folder NAME.bundle.

    Args:
        source: a run's folder or a file of weights, as ``load_trained`` takes it.
        output: the bundle's folder; its parent must exist.
        origin: what the record says of data and licences.
        quality: figures that benchmarks/quality.py wrote about a bundle of this name and of these
            weights; None for the run's own last validation.
        photographs: folder of clean ones, none of which trained or calibrates the network, to
            measure losses on, and the quality where there is neither; None where nothing is
            measured.
        force: replace a bundle that stands there.
        lower: what to export beside FP32; None for nothing.
        watch: told how far measurements are.

    Raises:
        SettingsError: where the name, or what is said of the data, suits no bundle, or photographs
            or a calibration set are missing.
        InputError: where a file is missing, damaged or of another network, or the figures are not
            of these weights, or photographs or tiles cannot be read.
        OutputError: where ``output`` exists and ``force`` is off, or cannot be written.
        CalibrationError: where the calibration set is not one of this network.
        BackendError: where a graph fails a check or loses too much.
    """
    if output.suffix != ".bundle":
        raise SettingsError("a bundle's name ends in .bundle", met=output.name)
    if output.exists() and not force:
        raise OutputError("the bundle exists", subject=output, hint="give --force to replace it")
    name = output.stem
    trained = load_trained(source)
    model = exportable(trained.network)
    clean = None if photographs is None else judging_tiles(model, photographs)
    calibration = None if lower is None else calibration_set(model, lower)
    if lower is not None and clean is None:
        raise SettingsError(
            "the loss of FP16 and INT8 is measured on photographs",
            hint="give a folder of clean ones with --photographs",
        )
    figures = _quality(trained, model, name, quality, clean, watch)
    license_name = origin.license or trained.terms or "Apache-2.0"
    metadata = _metadata(name, trained, model, license_name)

    fp32 = _exact(model, metadata, watch)
    files = {"fp32.onnx": fp32.network}
    precisions: dict[Precision, ModelFile] = {"fp32": _model_file("fp32.onnx", fp32.network)}
    protos: dict[Precision, onnx.ModelProto] = {"fp32": onnx.load_from_string(fp32.network)}
    stated = None
    if lower is not None and clean is not None:
        reducer = Reducer(model, metadata, trained.noise_range, clean, watch)
        stated = reducer.stated
        for precision, reduced in lower_precisions(reducer, lower, calibration):
            protos[precision] = reduced.proto
            file, network = f"{precision}.onnx", _encoded(reduced.proto)
            files[file] = network
            precisions[precision] = _model_file(file, network, reduced.reduction)
    if fp32.statistics is not None:
        files[STATISTICS] = fp32.statistics

    record = BundleRecord(
        format="cycleisp-bundle/1",
        name=name,
        task=model.task,
        license=license_name,
        description=f"{_TASKS[model.task]} {name}: {model.design}",
        channels=model.channels,
        multiple_of=model.multiple_of,
        halo=fp32.halo,
        tensors=model.tensors,
        normalisation=NORMALISATION[model.task],
        variance=_variance(model),
        noise_range=trained.noise_range,
        parameters=model.parameters,
        kmac_per_sample=model.kmac_per_sample,
        pooling=fp32.pooling,
        precisions=precisions,
        provenance=Provenance(
            recipe="card.md",
            data=origin.data,
            data_license=origin.data_license,
            steps=0 if trained.run is None else trained.run.steps,
            hours=0.0 if trained.run is None else trained.run.hours,
            date=trained.date,
            weights_sha256=trained.weights_sha256,
        ),
        quality=figures,
    )
    settings = None if trained.run is None else trained.run.settings
    on_record = quality is not None or trained.run is not None
    photographs_judged = None if on_record or clean is None else len(clean)
    card = model_card(record, settings, fp32.parity, photographs_judged)
    documents = {"card.md": card.encode()}
    if stated is not None:
        documents |= report_documents(record, protos, stated, watch)
    listed = tuple(
        ListedFile(file=file, sha256=_sha256(content), bytes=len(content))
        for file, content in documents.items()
    )
    record = msgspec.structs.replace(record, documents=listed)
    _check_record(record)
    write_folder(output, files | documents | {"bundle.json": encode(record)}, force=force)
    return Exported(Bundle.load(output), fp32.parity, photographs_judged)


def _quality(
    trained: Trained,
    model: Exportable,
    name: str,
    figures: Path | None,
    clean: Sequence[npt.NDArray[np.float32]] | None,
    watch: Watch,
) -> tuple[Quality, ...]:
    """Of the benchmark, else of the run, else of these photographs."""
    if figures is not None:
        return benchmark_quality(figures, name, trained.weights_sha256)
    if trained.run is not None:
        return trained.run.quality
    if clean is not None:
        return measured_quality(model, clean, watch)
    raise SettingsError(
        "weights without a run have no quality on record",
        hint="give clean photographs to measure it on with --photographs",
    )


def _metadata(name: str, trained: Trained, model: Exportable, license_name: str) -> dict[str, str]:
    """What stands in every ONNX file for those who find it alone."""
    metadata = {
        "model": f"cycleisp {name}",
        "cfa_order" if model.task == "raw" else "channel_order": PLANES[model.task],
        "normalisation": NORMALISATION[model.task],
        "weights_sha256": trained.weights_sha256,
        "license": license_name,
    }
    variance = _variance(model)
    if variance is not None:
        metadata["variance"] = variance
    if trained.noise_range is not None:
        metadata["noise_range"] = str(trained.noise_range)
    return metadata


def _variance(model: Exportable) -> str | None:
    if model.tensors.variance is None:
        return None
    return VARIANCE if model.tensors.noise_scale is None else VARIANCE + NOISE_SCALE


@dataclass(frozen=True)
class _Exact:
    """The network in FP32, checked: its files, and what was measured on them."""

    network: bytes
    statistics: bytes | None
    halo: Halo
    pooling: Pooling | None
    parity: Parity


def _exact(model: Exportable, metadata: Mapping[str, str], watch: Watch) -> _Exact:
    proto = model.graph(metadata)
    check_graph(proto)
    graph = OnnxGraph(proto)
    statistics = model.statistics(metadata)
    if statistics is None:
        agreement = parity(model, graph)
        return _Exact(_encoded(proto), None, measured_halo(model, graph, watch), None, agreement)
    check_graph(statistics)
    gates, encoded = OnnxGraph(statistics), _encoded(statistics)
    agreement = parity(model, graph, gates)
    pooling = Pooling(
        statistics=_model_file(STATISTICS, encoded),
        gates=model.gates,
        decimation=DECIMATION,
        agreement_db=round(gates_agreement(model, graph, gates, DECIMATION), 1),
    )
    halo = measured_halo(model, graph, watch)
    return _Exact(_encoded(proto), encoded, halo, pooling, agreement)


def _model_file(file: str, network: bytes, reduction: Reduction | None = None) -> ModelFile:
    return ModelFile(
        file=file,
        sha256=_sha256(network),
        bytes=len(network),
        opset=OPSET,
        runs_on=("onnxruntime",),
        reduction=reduction,
    )


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
