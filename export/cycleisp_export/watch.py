"""Who is told how far an export is, which takes minutes for the large networks."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Watch", "nobody"]

Watch = Callable[[str, int, int], None]
"""Called with what is being measured, steps done and steps in all."""


def nobody(_phase: str, _done: int, _total: int) -> None:
    """Nobody watches."""
