"""GStreamer pipelines that carry Bayer frames, through the system's own Python bindings."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import SettingsError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Pipeline", "bayer_caps", "load_gstreamer"]


def load_gstreamer() -> Any:  # noqa: ANN401  the bindings have no types
    """The module Gst, initialised, with its applications' elements.

    Raises:
        SettingsError: where the bindings are not installed for this interpreter.
    """
    try:
        import gi

        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        from gi.repository import Gst, GstApp  # noqa: F401  GstApp adds methods to its elements
    except (ImportError, ValueError) as error:
        raise SettingsError(
            f"GStreamer's Python bindings cannot be loaded: {error}",
            hint="apt-get install python3-gi gir1.2-gst-plugins-base-1.0, and use the system's "
            "Python or an environment made with --system-site-packages",
        ) from error
    Gst.init(None)
    return Gst


def bayer_caps(phase: Phase, bits: int, width: int, height: int) -> str:
    """Caps of frames with these many bits in a byte, or in a 16-bit little-endian word."""
    words = "" if bits == 8 else f"{bits}le"
    return f"video/x-bayer,format={phase.value.lower()}{words},width={width},height={height}"


class Pipeline:
    """A pipeline that plays as long as the ``with`` block lasts.

    Args:
        description: as gst-launch takes it.
        element: name of the element that is ours.

    Raises:
        SettingsError: where the description is malformed or names an element that is not installed.
    """

    def __init__(self, description: str, element: str) -> None:
        self._gst = load_gstreamer()
        from gi.repository import GLib

        try:
            self._pipeline = self._gst.parse_launch(description)
        except GLib.Error as error:
            raise SettingsError(
                f"not a GStreamer pipeline: {error.message}",
                subject=description,
                hint="try it with gst-launch-1.0",
            ) from error
        self.element = self._pipeline.get_by_name(element)
        self._bus = self._pipeline.get_bus()

    def __enter__(self) -> Self:
        self._pipeline.set_state(self._gst.State.PLAYING)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipeline.set_state(self._gst.State.NULL)

    def failure(self) -> str | None:
        """What an element reports as its failure, in one line; None where none has failed."""
        message = self._bus.pop_filtered(self._gst.MessageType.ERROR)
        return None if message is None else _line(message)

    def finish(self, seconds: float) -> str | None:
        """Wait for the end of the stream to arrive everywhere; what failed instead, or None."""
        end = self._gst.MessageType.EOS
        kinds = end | self._gst.MessageType.ERROR
        message = self._bus.timed_pop_filtered(int(seconds * self._gst.SECOND), kinds)
        if message is None:
            return f"it does not end within {seconds:g} s"
        return None if message.type == end else _line(message)


def _line(message: Any) -> str:  # noqa: ANN401  no types
    error, details = message.parse_error()
    return f"{message.src.get_name()}: {error.message} {details or ''}"
