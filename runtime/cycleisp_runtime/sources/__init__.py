"""Where live frames come from: folders, files of packed frames, V4L2 cameras, GStreamer pipelines.

Any iterable of RawFrames can be streamed. A FrameSource can besides be stopped while it waits for
a frame, and counts those that never came.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from cycleisp_runtime.frame import RawFrame

__all__ = ["FrameSource"]


class FrameSource(ABC):
    """A device that delivers frames, opened when iteration begins and closed when it ends.

    Attributes:
        lost: frames that the device says it lost, or delivered damaged; they are left out.
    """

    lost: int = 0

    @abstractmethod
    def __iter__(self) -> Iterator[RawFrame]:
        """Frames in the order in which they were taken, each in memory of its own.

        Raises:
            InputError: where the device is missing, cannot do what is asked, stalls or vanishes.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the iteration soon, also one that waits; called from another thread, once or more."""
