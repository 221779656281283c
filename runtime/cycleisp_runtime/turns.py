"""Threads take turns with something that holds memory of its own, until it is closed."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from cycleisp_runtime.errors import BackendError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TakesTurns"]


class TakesTurns(ABC):
    """A denoiser that one thread uses at a time; a context manager.

    Args:
        name: of its model, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        self._at_work = self._closed = False

    def close(self) -> None:
        """Give all memory back; the denoiser cannot be used afterwards. May be called twice."""
        with self._lock:
            self._closed = True
            self._give_back()

    @abstractmethod
    def _give_back(self) -> None:
        """Give all memory back; nobody is at work."""

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for other threads; then the denoiser is this one's.

        Raises:
            BackendError: where it was closed, or this thread is at work with it already.
        """
        with self._lock:
            if self._closed:
                raise BackendError(
                    "the denoiser was closed", subject=self._name, hint="load it again"
                )
            if self._at_work:
                raise BackendError("the denoiser is at work: its progress must not use it")
            self._at_work = True
            try:
                yield
            finally:
                self._at_work = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
