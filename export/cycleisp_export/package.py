"""From a training run to a bundle: graph, checks, record and card, put in place as one step."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import yaml

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import LEVELS
from cycleisp.training.checkpoint import load_weights
from cycleisp_export.card import model_card
from cycleisp_export.graph import OPSET, TENSORS, edge_graph
from cycleisp_export.verify import OnnxGraph, check_graph, measured_halo, parity
from cycleisp_runtime.bundle import (
    Bundle,
    BundleRecord,
    ListedFile,
    ModelFile,
    NoiseRange,
    Provenance,
    Quality,
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
    quality: tuple[Quality, ...] | None,
    force: bool,
) -> Exported:
    """Write the bundle of a finished training run to ``output``, a folder NAME.bundle.

    Args:
        run: folder that ``cycleisp train`` wrote: weights, settings, log.
        output: the bundle's folder; its parent must exist.
        data: what the network was trained on, in words.
        data_license: the licence of that data.
        quality: PSNR per level from a benchmark, or None for the run's own last validation.
        force: replace a bundle that stands there.

    Raises:
        InputError: where the run lacks a file or holds a network that is not an edge denoiser.
        OutputError: where ``output`` exists and ``force`` is off, or cannot be written.
        BackendError: where the graph fails a check.
    """
    if output.suffix != ".bundle":
        raise SettingsError("a bundle's name ends in .bundle", met=output.name)
    if output.exists() and not force:
        raise OutputError("the bundle exists", subject=output, hint="give --force to replace it")
    weights_file = run / "weights.safetensors"
    kind, size, tensors = load_weights(weights_file)
    model = create_model(kind, size)
    if not isinstance(model, EdgeDenoiser):
        raise InputError(
            "only edge denoisers can be exported", subject=weights_file, met=f"{kind} {size}"
        )
    model.load_state_dict(tensors)
    model.eval()

    settings = _settings(run / "settings.yaml")
    last = _last_validation(run / "log.jsonl")
    weights_sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    name = output.stem
    proto = edge_graph(
        model,
        {
            "model": f"cycleisp {name}",
            "cfa_order": "R Gr Gb B",
            "normalisation": NORMALISATION,
            "variance": VARIANCE,
            "noise_range": f"shot {settings['shot_low']} to {settings['shot_high']}",
            "weights_sha256": weights_sha256,
            "license": "Apache-2.0",
        },
    )
    check_graph(proto)
    graph = OnnxGraph(proto)
    agreement = parity(model, graph)
    network = proto.SerializeToString(deterministic=True)

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
        noise_range=NoiseRange(
            shot_min=float(settings["shot_low"]), shot_max=float(settings["shot_high"])
        ),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        # The convolutions run once per 4x4 samples.
        kmac_per_sample=round(multiplications / 16 / 1000, 2),
        precisions={
            "fp32": ModelFile(
                file="fp32.onnx",
                sha256=hashlib.sha256(network).hexdigest(),
                bytes=len(network),
                opset=OPSET,
                runs_on=("onnxruntime",),
            )
        },
        provenance=Provenance(
            recipe=f"zoo/{name}.yaml",
            data=data,
            data_license=data_license,
            steps=int(last["step"]),
            hours=round(last["seconds"] / 3600, 2),
            date=_day(weights_file),
            weights_sha256=weights_sha256,
        ),
        quality=quality or _validation_quality(last),
    )
    card = model_card(record, settings, agreement).encode()
    listed = ListedFile(
        file="card.md", sha256=hashlib.sha256(card).hexdigest(), bytes=len(card)
    )
    record = BundleRecord(
        **{field: getattr(record, field) for field in record.__struct_fields__ if field != "documents"},
        documents=(listed,),
    )
    _place(output, {"fp32.onnx": network, "card.md": card, "bundle.json": encode(record)})
    return Exported(Bundle.load(output), agreement)


def _place(output: Path, files: dict[str, bytes]) -> None:
    """Write the folder under another name and move it into place."""
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".bundle-") as scratch:
            folder = Path(scratch) / output.name
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            if output.exists():
                shutil.rmtree(output)
            folder.rename(output)
    except OSError as error:
        raise OutputError("cannot be written", subject=output, met=error.strerror) from error


def _settings(path: Path) -> dict[str, float]:
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError("the run's settings cannot be read", subject=path) from error
    return dict(settings)


def _last_validation(path: Path) -> dict[str, float]:
    try:
        lines = path.read_text("utf-8").splitlines()
        return dict(json.loads(lines[-1]))
    except (OSError, IndexError, ValueError) as error:
        raise InputError(
            "the run has no validation on record", subject=path, hint="let it run to its end"
        ) from error


def _validation_quality(last: dict[str, float]) -> tuple[Quality, ...]:
    return tuple(
        Quality(
            level=level, shot=shot, noisy_db=last[f"{level} noisy"], denoised_db=last[level]
        )
        for level, (shot, _) in LEVELS.items()
    )


def _day(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).date().isoformat()
