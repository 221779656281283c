"""A bundle's network as a package that darktable 5.6 and later import for their neural restore.

The format is that of darktable's src/ai/backend_common.c, src/common/ai/restore_raw_bayer.c for RAW
and src/common/ai/restore.c for pictures:
ID.dtmodel is a zip archive of a folder ID with ``config.json`` and the graph.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import zipfile
from pathlib import Path

from cycleisp_export.baked_noise import BakedNoise
from cycleisp_export.wrappers import darktable_graph, picture_graph
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.writers import atomic_output

__all__ = ["PICTURE_TILE", "TILE", "darktable_config", "write_darktable"]

TILE = 512
"""Side of a tile in packed samples, as in darktable's own RAW models, which chose it for GPUs of
4 GB (darktable-org/darktable-ai, pull request 22)."""

PICTURE_TILE = 768
"""Side of a tile in pixels, likewise."""

GRAPH = "model_bayer.onnx"
"""The name is fixed: darktable looks for the settings under the part before the dot."""

PICTURE_GRAPH = "model.onnx"
"""This name is fixed, too."""


def darktable_config(bundle: Bundle, noise: BakedNoise | None, identity: str) -> dict[str, object]:
    """The content of ``config.json``: what darktable must know, from the bundle's record.

    Args:
        bundle: for RAW or sRGB.
        noise: that is baked in; None for sRGB.
        identity: by which darktable knows the model.
    """
    record, made = bundle.record, bundle.record.provenance
    known_by = "" if noise is None else f", {noise.origin}"
    scope = "sRGB pictures" if noise is None else f"RAW frames of Bayer sensors; {noise}"
    return {
        "id": identity,
        "name": f"cycleisp {record.name}{known_by}",
        "description": record.description,
        "task": "denoise" if noise is None else "rawdenoise",
        "arch": "cycleisp",
        "backend": "onnx",
        "version": importlib.metadata.version("cycleisp"),
        "num_inputs": 1,
        "tiling": True,
        "attributes": {"input_sizes": [PICTURE_TILE]} if noise is None else _bayer_attributes(),
        "model_card": {
            "long_description": record.description,
            "scope": scope,
            "license": record.license,
            "training_data": made.data,
            "training_data_license": made.data_license,
            "notes": f"cycleisp bundle {record.name}, sha256 {bundle.sha256}",
        },
    }


def _bayer_attributes() -> dict[str, object]:
    """Settings of the RAW graph, twice.

    Under ``model_bayer`` for darktable 5.6, under ``variants`` for its development versions before.
    Each ignores the other's.
    """
    settings = {
        "input_kind": "bayer_v1",
        # Plane 0 is red whatever the sensor's phase.
        "bayer_orientation": "force_rggb",
        "edge_pad": "mirror_cropped",
        # Variance is defined on samples without white balance.
        "wb_norm": "none",
        # By default darktable brings every tile to the mean that it had, which shows at the seams.
        "output_scale": "absolute",
    }
    return {
        "input_sizes": [TILE],
        "model_bayer": settings,
        "variants": {"bayer": {"onnx": GRAPH, **settings}},
    }


def write_darktable(bundle: Bundle, noise: BakedNoise | None, output: Path, *, force: bool) -> None:
    """Write the package ``ID.dtmodel``; darktable knows the model by this ID.

    Args:
        bundle: for RAW or sRGB.
        noise: to bake in; None for sRGB.
        output: the file.
        force: replace a file that stands there.

    Raises:
        SettingsError: where the name of ``output`` is no plain ID with this ending.
        BundleError, BackendError: as ``darktable_graph`` and ``picture_graph``.
        OutputError: where ``output`` exists and ``force`` is off, or cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.dtmodel", output.name):
        raise SettingsError(
            "no name for a package of darktable", met=output.name, wanted="ID.dtmodel"
        )
    identity = output.name.removesuffix(".dtmodel")
    if noise is None:
        name, graph = PICTURE_GRAPH, picture_graph(bundle, PICTURE_TILE)
    else:
        name, graph = GRAPH, darktable_graph(bundle, noise, TILE)
    config = json.dumps(darktable_config(bundle, noise, identity), indent=2) + "\n"
    with (
        atomic_output(output, source=None, force=force) as file,
        zipfile.ZipFile(file, "w") as package,
    ):
        # The folder of the first entry is what darktable takes for the ID.
        _add(package, f"{identity}/config.json", config.encode())
        _add(package, f"{identity}/{name}", graph.SerializeToString(deterministic=True))


def _add(package: zipfile.ZipFile, name: str, content: bytes) -> None:
    """An entry without the time of writing, so that equal contents make equal packages."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    package.writestr(entry, content)
