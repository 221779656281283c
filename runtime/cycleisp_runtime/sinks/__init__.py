"""Where denoised frames go: a folder of DNGs, one file of packed frames, a GStreamer pipeline.

A sink is a context manager that gives a function to write one result; what it wrote is complete
when the block ends.
"""

from __future__ import annotations

from collections.abc import Callable

from cycleisp_runtime.denoised import Denoised

__all__ = ["Write"]

Write = Callable[[Denoised], None]
"""Takes the next result of a stream."""
