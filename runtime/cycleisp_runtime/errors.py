"""Every exception that the four packages raise on purpose.

CycleISPError
├── InputError        a file or array that cannot be understood or must not be trusted
├── OutputError       a result that cannot be written where it was asked for
├── BundleError       a model bundle that is missing, altered or not of our format
├── BackendError      a backend that is absent, or failed while it ran
│   └── OutOfMemoryError  memory of the host or of the device does not suffice
├── CalibrationError  measurements that do not determine what was asked for
├── SettingsError     a setting that is unknown, malformed or contradicts another
└── TrainingError     a training that cannot go on

Library code raises these and nothing else on purpose; a failure of LibRaw, ONNX Runtime or the
operating system is caught where it enters and raised again as one of these with ``from``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "BackendError",
    "BundleError",
    "CalibrationError",
    "CycleISPError",
    "InputError",
    "OutOfMemoryError",
    "OutputError",
    "SettingsError",
    "TrainingError",
]


class CycleISPError(Exception):
    """One line that says what is wrong, with what, and what to do next.

    Attributes:
        problem: what is wrong, without the subject.
        subject: the file, tensor or setting concerned; None where there is none.
        met: the value met; None where there is none to show.
        wanted: the value wanted; None where there is none to show.
        hint: the next step for the reader; None where there is no sensible one.
    """

    def __init__(
        self,
        problem: str,
        *,
        subject: Path | str | None = None,
        met: object = None,
        wanted: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.subject = subject
        self.met = met
        self.wanted = wanted
        self.hint = hint
        super().__init__(self._line())

    @property
    def reason(self) -> str:
        """The line without its subject, for tables that already name the file."""
        line = self.problem
        values = [
            f"{label} {value}"
            for label, value in (("met", self.met), ("wanted", self.wanted))
            if value is not None
        ]
        if values:
            line += f" ({', '.join(values)})"
        if self.hint is not None:
            line += f"; {self.hint}"
        return " ".join(line.split())

    def _line(self) -> str:
        return self.reason if self.subject is None else f"{self.subject}: {self.reason}"


class InputError(CycleISPError):
    """A file or array that cannot be understood or must not be trusted."""


class OutputError(CycleISPError):
    """A result that cannot be written where it was asked for."""


class BundleError(CycleISPError):
    """A model bundle that is missing, altered or not of our format."""


class BackendError(CycleISPError):
    """A backend that is absent, or failed while it ran."""


class OutOfMemoryError(BackendError):
    """Memory of the host or of the device does not suffice; a smaller tile may still be run."""


class CalibrationError(CycleISPError):
    """Measurements that do not determine what was asked for."""


class SettingsError(CycleISPError):
    """A setting that is unknown, malformed or contradicts another."""


class TrainingError(CycleISPError):
    """A training that cannot go on: its loss is no number, or another rank is gone."""
