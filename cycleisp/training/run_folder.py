"""The folder of a run: what it was told, what it is made from, what it measured."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import settings_as_yaml
from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.writers.atomic import atomic_output

__all__ = ["append_to_log", "begin_run_folder", "end_run_folder", "rewind_log"]


def begin_run_folder(settings: RunSettings, stage: str, manifest: dict[str, object]) -> None:
    """Write ``settings.yaml``, ``data.json`` and ``provenance.json`` into the run's folder.

    Raises:
        OutputError: where they cannot be written.
    """
    data = json.dumps(manifest, indent=1) + "\n"
    provenance = {
        "stage": stage,
        "seed": settings.seed,
        "data_sha256": hashlib.sha256(data.encode()).hexdigest(),
        "cycleisp": version("cycleisp"),
        "git": _git_revision(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    files = {
        "settings.yaml": settings_as_yaml(settings),
        "data.json": data,
        "provenance.json": json.dumps(provenance, indent=1) + "\n",
    }
    with _written(settings.output):
        settings.output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        _write(settings.output / name, text)


def end_run_folder(folder: Path) -> None:
    """Add the day (UTC) to ``provenance.json``.

    Raises:
        OutputError: where it cannot be written.
    """
    path = folder / "provenance.json"
    with _written(folder):
        provenance = json.loads(path.read_text("utf-8"))
    provenance["ended"] = datetime.now(timezone.utc).date().isoformat()
    _write(path, json.dumps(provenance, indent=1) + "\n")


def rewind_log(folder: Path, step: int) -> None:
    """Take what came after this step (-1: all), and a line cut short, out of ``log.jsonl``.

    Raises:
        OutputError: where it cannot be written.
    """
    log = folder / "log.jsonl"
    if not log.exists():
        return
    lines = log.read_text("utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    _write(log, "".join(line for line in whole if json.loads(line)["step"] <= step))


def append_to_log(folder: Path, record: dict[str, float]) -> None:
    """Add a line to ``log.jsonl``.

    Raises:
        OutputError: where it cannot be written.
    """
    with _written(folder), (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_output(path, source=None, force=True) as file:
        file.write(text.encode())


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """OSErrors of the block as those of the run's folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            "the run's folder cannot be written", subject=folder, met=error.strerror
        ) from error


def _git_revision() -> str | None:
    """The commit of the checkout that this package runs from, with ``+`` where files differ."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
