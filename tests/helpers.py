"""What several test files need: where the files stand, and bundles made on the spot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from cycleisp_runtime.bundle import (
    Bundle,
    BundleRecord,
    Halo,
    ModelFile,
    NoiseRange,
    Pooling,
    Provenance,
    Quality,
    TensorNames,
    encode,
)

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "tests" / "data" / "raw"
RAW_BAD = ROOT / "tests" / "data" / "raw_bad"
DEMO = ROOT / "examples" / "demo"

NETWORK = b':\x07\n\x05"\x03Add'
"""An ONNX file (onnx.proto) of one node, Add, and nothing else: for what never runs it."""

_SHARED = ROOT.parent / "shared"


def shared(*parts: str) -> Path:
    """A file of the reference material; the test is skipped where a clone stands without it."""
    path = _SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {Path(*parts)} of the reference material, which a clone does not have")
    return path


def a_record(network: bytes = b"network", /, **changes: object) -> BundleRecord:
    """The record of a bundle whose only file is ``network``, with fields replaced."""
    record = BundleRecord(
        format="cycleisp-bundle/1",
        name="testnet",
        task="raw",
        license="Apache-2.0",
        description="A network for tests.",
        channels=4,
        multiple_of=2,
        halo=Halo(for_90_db=2, for_120_db=4, exact=4),
        tensors=TensorNames(
            noisy="noisy", variance="variance", noise_scale="noise_scale", denoised="denoised"
        ),
        normalisation="(DN - black) / (white - black) per CFA position",
        variance="shot * max(x, 0) + read, of the noisy samples",
        noise_range=NoiseRange(shot_min=1e-5, shot_max=3e-2),
        parameters=100,
        kmac_per_sample=0.1,
        precisions={
            "fp32": ModelFile(
                file="fp32.onnx",
                sha256=hashlib.sha256(network).hexdigest(),
                bytes=len(network),
                opset=17,
                runs_on=("onnxruntime",),
            )
        },
        provenance=Provenance(
            recipe="none",
            data="random numbers",
            data_license="none",
            steps=0,
            hours=0.0,
            date="2026-01-01",
            weights_sha256="0" * 64,
        ),
        quality=(
            Quality(level="low", shot=1e-4, noisy_db=40.0, denoised_db=45.0),
            Quality(level="high", shot=1e-2, noisy_db=20.0, denoised_db=30.0),
        ),
    )
    return msgspec.structs.replace(record, **changes)


def a_bundle(**changes: object) -> Bundle:
    """A bundle in memory, for backends that need no network."""
    return Bundle(Path("testnet.bundle"), a_record(**changes), "0" * 64)


def write_bundle(folder: Path, network: bytes, **changes: object) -> Path:
    """A bundle on disk around this network; returns its folder."""
    folder.mkdir(parents=True)
    (folder / "fp32.onnx").write_bytes(network)
    (folder / "bundle.json").write_bytes(encode(a_record(network, **changes)))
    return folder


def write_pooling_bundle(
    folder: Path, network: bytes, statistics: bytes, *, gates: int, **changes: object
) -> Path:
    """A bundle on disk around a network that pools, for RAW; returns its folder."""
    statistics_file = ModelFile(
        file="statistics.onnx",
        sha256=hashlib.sha256(statistics).hexdigest(),
        bytes=len(statistics),
        opset=17,
        runs_on=("onnxruntime",),
    )
    facts: dict[str, object] = {
        "halo": Halo(for_90_db=2, for_120_db=2, exact=2),
        "tensors": TensorNames(
            noisy="noisy", variance="variance", gates="gates", denoised="denoised"
        ),
        "pooling": Pooling(statistics_file, gates=gates, decimation=4, agreement_db=60.0),
    }
    write_bundle(folder, network, **{**facts, **changes})
    (folder / "statistics.onnx").write_bytes(statistics)
    return folder


def for_pictures(**names: str) -> dict[str, object]:
    """What the record of a network for rendered pictures has that others lack."""
    return {
        "task": "srgb",
        "channels": 3,
        "tensors": TensorNames(noisy="noisy", denoised="denoised", **names),
        "normalisation": "codes / highest code",
        "variance": None,
        "noise_range": None,
        "quality": (Quality(level="phone", shot=None, noisy_db=30.0, denoised_db=35.0),),
    }
