"""A bundle's network as a package that darktable 5.6 and later import for their neural restore.

The format is that of darktable's src/ai/backend_common.c and src/common/ai/restore_raw_bayer.c:
ID.dtmodel is a zip archive of a folder ID with ``config.json`` and the graph.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import zipfile
from pathlib import Path

from cycleisp_export.baked_noise import BakedNoise
from cycleisp_export.wrappers import darktable_graph
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.writers import atomic_output

__all__ = ["TILE", "darktable_config", "write_darktable"]

TILE = 512
"""Side of a tile in packed samples, as in darktable's own RAW models, which chose it for GPUs of
4 GB (darktable-org/darktable-ai, pull request 22)."""

GRAPH = "model_bayer.onnx"
"""The name is fixed: darktable looks for the settings under the part before the dot."""


def darktable_config(
    bundle: Bundle, noise: BakedNoise, identity: str, tile: int
) -> dict[str, object]:
    """The content of ``config.json``: what darktable must know, from the bundle's record.

    The settings of the graph stand there twice: under ``model_bayer`` for darktable 5.6, under
    ``variants`` for its development versions before. Each ignores the other's.
    """
    record, made = bundle.record, bundle.record.provenance
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
        "id": identity,
        "name": f"cycleisp {record.name}, {noise.origin}",
        "description": record.description,
        "task": "rawdenoise",
        "arch": "cycleisp",
        "backend": "onnx",
        "version": importlib.metadata.version("cycleisp"),
        "num_inputs": 1,
        "tiling": True,
        "attributes": {
            "input_sizes": [tile],
            "model_bayer": settings,
            "variants": {"bayer": {"onnx": GRAPH, **settings}},
        },
        "model_card": {
            "long_description": record.description,
            "scope": f"RAW frames of Bayer sensors; {noise}",
            "license": record.license,
            "training_data": made.data,
            "training_data_license": made.data_license,
            "notes": f"cycleisp bundle {record.name}, sha256 {bundle.sha256}",
        },
    }


def write_darktable(bundle: Bundle, noise: BakedNoise, output: Path, *, force: bool) -> None:
    """Write the package ``ID.dtmodel``; darktable knows the model by this ID.

    Raises:
        SettingsError: where the name of ``output`` is no plain ID with this ending.
        BundleError, BackendError: as ``darktable_graph``.
        OutputError: where ``output`` exists and ``force`` is off, or cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.dtmodel", output.name):
        raise SettingsError(
            "no name for a package of darktable", met=output.name, wanted="ID.dtmodel"
        )
    identity = output.name.removesuffix(".dtmodel")
    graph = darktable_graph(bundle, noise, TILE)
    config = json.dumps(darktable_config(bundle, noise, identity, TILE), indent=2) + "\n"
    with (
        atomic_output(output, source=None, force=force) as file,
        zipfile.ZipFile(file, "w") as package,
    ):
        # The folder of the first entry is what darktable takes for the ID.
        _add(package, f"{identity}/config.json", config.encode())
        _add(package, f"{identity}/{GRAPH}", graph.SerializeToString(deterministic=True))


def _add(package: zipfile.ZipFile, name: str, content: bytes) -> None:
    """An entry without the time of writing, so that equal contents make equal packages."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    package.writestr(entry, content)
