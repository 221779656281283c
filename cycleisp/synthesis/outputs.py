"""Where pairs go: a folder that belongs to one synthesis, filled part by part.

Parts are written whole, in any order, by any number of processes; what is there already is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cycleisp.synthesis.pictures import pair_files, write_pair
from cycleisp.synthesis.shards import (
    Sample,
    Skipped,
    check_shard,
    read_record,
    shard_name,
    write_index,
    write_shard,
)
from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.writers import atomic_output

__all__ = ["Output", "PairFiles", "Shards", "claim_folder"]

_RECIPE_NAME = "recipe.json"


class Output(Protocol):
    """What a synthesis writes to."""

    @property
    def samples_per_part(self) -> int:
        """Inputs that make one part."""

    def standing(self, number: int, keys: Sequence[str]) -> tuple[Skipped, ...] | None:
        """What was skipped in the part of this number, if it is there; None where it is not."""

    def write(self, number: int, samples: Iterable[Sample | Skipped]) -> None:
        """Write a part.

        Raises:
            OutputError: where it cannot be written.
        """

    def finish(self, parts: int) -> bool:
        """Whether all of this many parts are there, in which case what lists them is, too."""


@dataclass(frozen=True)
class Shards:
    """Tar shards and their index."""

    folder: Path
    samples_per_part: int

    def standing(
        self,
        number: int,
        keys: Sequence[str],  # noqa: ARG002  the record knows them
    ) -> tuple[Skipped, ...] | None:
        """What its record says, where the shard has the hash that the record says."""
        record = read_record(self.folder, number)
        try:
            if record is not None:
                check_shard(self.folder, record, hash_too=True)
        except InputError:
            return None
        return None if record is None else record.skipped

    def write(self, number: int, samples: Iterable[Sample | Skipped]) -> None:
        """Write a shard and its record."""
        write_shard(self.folder / shard_name(number), samples)

    def finish(self, parts: int) -> bool:
        """Write the index once the last shard is there, whoever wrote it."""
        return write_index(self.folder, parts) is not None


@dataclass(frozen=True)
class PairFiles:
    """Single files, by the name of their format."""

    folder: Path
    file_format: str
    samples_per_part: int = 1

    def standing(
        self,
        number: int,  # noqa: ARG002  files go by their key
        keys: Sequence[str],
    ) -> tuple[Skipped, ...] | None:
        """Nothing was skipped, where all files are there."""
        files = (path for key in keys for path in pair_files(self.folder, key, self.file_format))
        return () if all(path.is_file() for path in files) else None

    def write(self, number: int, samples: Iterable[Sample | Skipped]) -> None:  # noqa: ARG002
        """Write the files of every sample."""
        for sample in samples:
            if isinstance(sample, Sample):
                write_pair(self.folder, sample, self.file_format)

    def finish(self, parts: int) -> bool:  # noqa: ARG002  there is no list of them
        """Always: files stand for themselves."""
        return True


def claim_folder(folder: Path, recipe: Mapping[str, object]) -> None:
    """Make the folder and write down what it is for, or find that it is for the same.

    Args:
        folder: made if its parent exists.
        recipe: all that the pairs depend on, as JSON can hold it.

    Raises:
        SettingsError: where the folder holds another synthesis; the first difference is named.
        OutputError: where the folder cannot be written.
    """
    path = folder / _RECIPE_NAME
    try:
        folder.mkdir(exist_ok=True)
        found = json.loads(path.read_bytes()) if path.exists() else None
    except OSError as error:
        raise OutputError(
            "the folder cannot be made or read",
            subject=folder,
            met=error.strerror,
            hint="create the folder above it, or write elsewhere",
        ) from error
    except ValueError:
        found = {}
    if found is None:
        with atomic_output(path, source=None, force=True) as file:
            file.write((json.dumps(recipe, indent=1) + "\n").encode())
        return
    for key, wanted in json.loads(json.dumps(recipe)).items():
        met = found.get(key) if isinstance(found, dict) else None
        if met != wanted:
            raise SettingsError(
                f"the folder holds another synthesis: its {key} differs",
                subject=folder,
                met=met,
                wanted=wanted,
                hint="write to another folder",
            )
