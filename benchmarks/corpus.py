"""What becomes of every RAW file of a corpus, good and bad, on the road of ``cycleisp denoise``.

Each file is read, denoised and written; its output is opened again by LibRaw and compared with its
input; what was understood of it is compared with what is known. A process of its own does it,
with a time limit, so that a crash or a hang is one line of the report.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args

import msgspec

from benchmarks.corpus_output import (
    changed_tags,
    output_faults,
    rendering_faults,
    sample_faults,
    tag_faults,
)
from benchmarks.corpus_truth import CorpusFile, Fault, FaultKind, corpus_files, reading_faults
from benchmarks.report import options, required, save, table
from cycleisp_runtime.batch import BatchSettings, Outcome, denoise_file
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.readers import read_frame

FOLDERS = ("raw", "raw_bad")
SECONDS_PER_FILE = 120.0
"""For everything that is done to one file, the checks among it."""


@dataclass(frozen=True)
class Finding:
    """What became of one file.

    Attributes:
        outcome: as ``cycleisp denoise`` reports it; None where it crashed or hung.
        faults: what must not be.
        changed_tags: of a DNG written from a DNG with nothing denoised, "old -> new" by path.
    """

    outcome: Outcome | None
    faults: list[Fault]
    changed_tags: dict[str, str] = field(default_factory=dict)


def examine(file: CorpusFile, denoiser: Denoiser, folder: Path, *, identity: bool) -> Finding:
    """One file from end to end; ``identity`` also sends it undenoised through every writer."""
    output = folder / f"{file.path.name}.dng"
    settings = BatchSettings(layout=file.layout, force=True)
    outcome = denoise_file(Job(file.path, output), denoiser, settings)
    faults = list(outcome_faults(file, outcome, output))
    changed: dict[str, str] = {}
    if outcome.error is None and outcome.level_scale is not None:
        frame = read_frame(file.path, layout=file.layout)
        faults += reading_faults(frame, file)
        faults += output_faults(file, frame, output, outcome.level_scale)
        if identity:
            identity_faults, changed = examine_identity(file, denoiser, folder)
            faults += identity_faults
    return Finding(outcome, faults, changed)


def outcome_faults(file: CorpusFile, outcome: Outcome, output: Path) -> Iterator[Fault]:
    """Whether it was refused or handled as it must be, and in time."""
    if outcome.error is None and file.must == "refused":
        yield Fault("wrong outcome", "handled, but must be refused")
    if outcome.error is not None:
        if file.must == "handled":
            yield Fault("wrong outcome", f"must be handled: {outcome.error}")
        if "\n" in outcome.error or file.path.name not in outcome.error:
            yield Fault("wrong outcome", f"not one line that names the file: {outcome.error}")
        if output.exists():
            yield Fault("wrong outcome", "refused, but an output was written")
    if outcome.seconds.get("read", 0.0) > file.seconds:
        yield Fault("hang", f"reading took more than {file.seconds:.0f} s")


def examine_identity(
    file: CorpusFile, denoiser: Denoiser, folder: Path
) -> tuple[list[Fault], dict[str, str]]:
    """Strength 0 through every writer: faults, and the tags in which DNG differs from DNG."""
    frame = read_frame(file.path, layout=file.layout)
    faults: list[Fault] = []
    changed: dict[str, str] = {}
    for suffix, keep_levels in ((".dng", False), (".dng", True), (".tif", True), (".png", True)):
        settings = BatchSettings(
            strength=0, keep_levels=keep_levels, layout=file.layout, force=True
        )
        output = folder / f"{file.path.name}{suffix}"
        outcome = denoise_file(Job(file.path, output), denoiser, settings)
        if outcome.error is not None or outcome.level_scale is None:
            faults.append(Fault("wrong output", f"{suffix} at strength 0: {outcome.error}"))
        elif suffix != ".dng":
            faults += rendering_faults(frame, output)
        else:
            faults += sample_faults(frame, output, outcome.level_scale)
            if keep_levels:
                differences = changed_tags(file.path, output)
                faults += tag_faults(differences)
                changed = {path: str(each) for path, each in differences.items()}
    return faults, changed


class Examiner:
    """Examines files in another process, which is replaced when it dies or takes too long.

    Attributes:
        process: the one that is at work.
    """

    def __init__(self, model: str, *, identity: bool) -> None:
        self._arguments = (model, identity)
        self._start()

    def __call__(self, file: CorpusFile) -> Finding:
        """What became of the file, a crash and a hang among the possibilities."""
        try:
            self._connection.send(file)
            if self._connection.poll(SECONDS_PER_FILE):
                finding: Finding = self._connection.recv()
                return finding
            fault = Fault("hang", f"stopped after {SECONDS_PER_FILE:.0f} s")
        except (EOFError, ConnectionError):
            self.process.join()
            fault = Fault("crash", f"the process ended with {self.process.exitcode}")
        self.close()
        self._start()
        return Finding(None, [fault])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self._connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *self._arguments))
        self.process.start()
        theirs.close()


def _serve(connection: Connection, model: str, identity: bool) -> None:
    """The other process: files in, findings out."""
    with Denoiser.load(model) as denoiser, tempfile.TemporaryDirectory() as folder:
        while True:
            file: CorpusFile = connection.recv()
            try:
                finding = examine(file, denoiser, Path(folder), identity=identity)
            except Exception as error:  # noqa: BLE001  whatever it is, it is this file's crash
                finding = Finding(None, [Fault("crash", f"{type(error).__name__}: {error}")])
            connection.send(finding)


def corpus_table(findings: dict[CorpusFile, Finding]) -> str:
    """One line per file."""
    header = ["file", " camera", " CFA", "size", "black", "white", " noise", "shot", "read", "s"]
    rows = []
    for file, finding in findings.items():
        outcome = finding.outcome
        cells = ["-"] * 9
        result = finding.faults[0].text if finding.faults else "-"
        if outcome is not None:
            cells = _cells(outcome)
            prefix = f"{file.path}: "
            result = (
                f"DNG, levels x{outcome.level_scale}, {len(outcome.warnings)} warnings"
                if outcome.error is None
                else outcome.error.removeprefix(prefix)
            )
        rows.append([file.path.name, *cells, result])
    return table([*header, " output or error"], rows)


def _cells(outcome: Outcome) -> list[str]:
    """Camera to seconds, as far as the file was understood."""
    noise, black = outcome.noise, outcome.black
    confidence = f" ({noise.confidence})" if noise is not None and noise.confidence else ""
    return [
        outcome.camera or "-",
        outcome.cfa or "-",
        "-" if outcome.size is None else "x".join(map(str, outcome.size)),
        "-" if black is None else " ".join(f"{level:g}" for level in sorted(set(black))),
        "-" if outcome.white is None else f"{outcome.white:g}",
        "-" if noise is None else f"{noise.source}{confidence}",
        "-" if noise is None or noise.shot is None else f"{noise.shot:.1e}",
        "-" if noise is None or noise.read is None else f"{noise.read:.1e}",
        f"{sum(outcome.seconds.values()):.1f}",
    ]


def summary(findings: dict[CorpusFile, Finding]) -> str:
    """Counts of outcomes and faults, and every fault."""
    lines = []
    for folder in FOLDERS:
        outcomes = [
            finding.outcome
            for file, finding in findings.items()
            if file.path.parent.name == folder and finding.outcome is not None
        ]
        refused = sum(outcome.error is not None for outcome in outcomes)
        lines.append(f"{folder}: {len(outcomes) - refused} denoised, {refused} refused")
    faults = Counter(fault.kind for finding in findings.values() for fault in finding.faults)
    lines.append(", ".join(f"{kind}: {faults[kind]}" for kind in get_args(FaultKind)))
    lines += [
        f"{file.path.name}: {fault.kind}: {fault.text}"
        for file, finding in findings.items()
        for fault in finding.faults
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table; exit 1 where anything is not as it must be."""
    parser = options(__doc__)
    parser.add_argument("--model", default="edge", help="name or path of a bundle; %(default)s")
    parser.add_argument(
        "--identity",
        action="store_true",
        help="also send every frame undenoised through every writer: samples must be the input's",
    )
    arguments = parser.parse_args()
    files = [
        file
        for folder in FOLDERS
        for file in corpus_files(required(arguments.data / folder / "expected.json").parent)
    ]
    examiner = Examiner(arguments.model, identity=arguments.identity)
    with contextlib.closing(examiner):
        findings = {file: examiner(file) for file in files}
    print(corpus_table(findings), end="\n\n")
    if arguments.identity:
        print("tags that differ in a DNG written from a DNG with nothing denoised")
        for file, finding in findings.items():
            if finding.changed_tags:
                print(file.path.name)
            for path, difference in finding.changed_tags.items():
                print(f"  {path}: {difference}")
        print()
    print(summary(findings))
    save(
        arguments.json,
        {str(file.path): msgspec.to_builtins(finding) for file, finding in findings.items()},
    )
    if any(finding.faults for finding in findings.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
