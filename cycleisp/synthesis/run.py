"""A synthesis from its inputs to its output: read, make and write side by side.

While a pair is written the next one is made, and the one after that is read. Which process does
which part, and in which order, changes no byte of the result.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Protocol, TypeVar

from cycleisp.synthesis.outputs import Output
from cycleisp.synthesis.scene import Scene
from cycleisp.synthesis.shards import Sample, Skipped
from cycleisp.training.distributed import Ranks
from cycleisp_runtime.errors import InputError

__all__ = ["Outcome", "Pairing", "synthesize"]

_T = TypeVar("_T")
_Input = TypeVar("_Input", bound="Named")
_Source_contra = TypeVar("_Source_contra", bound="Named", contravariant=True)
_Loaded = TypeVar("_Loaded")

_KEY_STEM: Final = 60
"""Letters of a source's name that its key keeps."""


class Named(Protocol):
    """An input by the name that results tell."""

    @property
    def name(self) -> str:
        """Unique enough for people; slashes divide folders."""


class Pairing(Protocol[_Source_contra, _Loaded]):
    """How an input becomes a pair."""

    def load(self, source: _Source_contra) -> _Loaded:
        """The input in memory.

        Raises:
            InputError: where it cannot be used.
        """

    def make(self, loaded: _Loaded) -> Scene:
        """What the networks make of it."""

    def middle(self, loaded: _Loaded, side: int) -> _Loaded:
        """No more than this many pixels on a side of it, from its middle."""


@dataclass(frozen=True)
class Outcome:
    """What one process did.

    Attributes:
        made: pairs that it made.
        kept: parts of its share that were there already.
        skipped: inputs that gave no pair.
        complete: whether all parts are there, those of other processes, too.
        megapixels: of the pairs that it made, in sRGB pixels or sensor samples.
        seconds: that it took.
    """

    made: int
    kept: int
    skipped: tuple[Skipped, ...]
    complete: bool
    megapixels: float
    seconds: float


def synthesize(
    sources: Sequence[_Input],
    pairing: Pairing[_Input, _Loaded],
    output: Output,
    ranks: Ranks,
    begin: Callable[[str], object],
) -> Outcome:
    """Make this process's share of the pairs that are not there yet.

    Args:
        sources: all inputs, in the order that all processes know.
        pairing: makes pairs of them.
        output: takes them.
        ranks: which process this is.
        begin: called with the name of each input when its turn comes to be written.

    Raises:
        OutputError: where a part cannot be written; the parts before it stay.
    """
    start = time.monotonic()
    numbered = [(_key(number, source.name), source) for number, source in enumerate(sources)]
    size = output.samples_per_part
    parts = [numbered[first : first + size] for first in range(0, len(numbered), size)]
    share = ranks.share(len(parts))
    standing = {part: output.standing(part, [key for key, _ in parts[part]]) for part in share}
    missing = [part for part, skipped in standing.items() if skipped is None]
    work = ((part, key, source) for part in missing for key, source in parts[part])
    tally = _Tally(begin)
    loading = _loaded(work, pairing)
    with closing(_ahead(loading)) as loaded, closing(_ahead(_made(loaded, pairing))) as made:
        for part, samples in itertools.groupby(made, key=lambda numbered: numbered[0]):
            output.write(part, (tally.count(sample) for _, sample in samples))
    return Outcome(
        tally.made,
        len(share) - len(missing),
        (*itertools.chain.from_iterable(filter(None, standing.values())), *tally.skipped),
        output.finish(len(parts)),
        tally.pixels / 1e6,
        time.monotonic() - start,
    )


def _key(number: int, name: str) -> str:
    """A sample's name: unique by its number, told by its source."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(name).stem, flags=re.ASCII)
    return f"{number:07d}-{stem[:_KEY_STEM]}"


def _loaded(
    work: Iterator[tuple[int, str, _Input]], pairing: Pairing[_Input, _Loaded]
) -> Iterator[tuple[int, str, str, _Loaded | Skipped]]:
    def attempt(source: _Input) -> _Loaded | Skipped:
        try:
            return pairing.load(source)
        except InputError as error:
            return Skipped(source.name, error.reason)

    for part, key, source in work:
        yield part, key, source.name, attempt(source)


def _made(
    inputs: Iterator[tuple[int, str, str, _Loaded | Skipped]], pairing: Pairing[_Input, _Loaded]
) -> Iterator[tuple[int, Sample | Skipped]]:
    for part, key, name, loaded in inputs:
        if isinstance(loaded, Skipped):
            yield part, loaded
        else:
            scene = pairing.make(loaded)
            yield part, Sample(key, name, *scene.pair, scene.level)


def _ahead(items: Iterator[_T]) -> Generator[_T, None, None]:
    """The same items, each computed in a thread while the one before it is in use."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # the sentinel is out


class _Tally:
    """Counts samples on their way into the output."""

    def __init__(self, begin: Callable[[str], object]) -> None:
        self._begin = begin
        self.made = 0
        self.pixels = 0
        self.skipped: list[Skipped] = []

    def count(self, sample: Sample | Skipped) -> Sample | Skipped:
        self._begin(sample.source)
        if isinstance(sample, Skipped):
            self.skipped.append(sample)
        else:
            channels, height, width = sample.clean.shape
            self.made += 1
            self.pixels += height * width * (4 if channels == 4 else 1)
        return sample
