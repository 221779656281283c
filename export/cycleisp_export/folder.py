"""Folders that appear whole at their path, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from cycleisp_runtime.errors import OutputError

__all__ = ["write_folder"]


def write_folder(output: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """Write ``files``, by their paths inside it, to a folder that is then moved to ``output``.

    Raises:
        OutputError: where something stands there and ``force`` is off, or the system refuses.
    """
    if output.exists() and not force:
        raise OutputError("the output already exists", subject=output, hint="--force replaces it")
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".cycleisp-") as scratch:
            folder = Path(scratch) / "new"
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if output.exists():
                output.rename(Path(scratch) / "replaced")
            folder.rename(output)
    except OSError as error:
        raise OutputError("cannot be written", subject=output, met=error.strerror) from error
