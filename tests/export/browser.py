"""A page in headless Chromium, driven by its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "chromium"]

SECONDS = 60.0
"""In all, after which a test fails instead of waiting on."""


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty page and no network; the test is skipped where none is installed.

    Args:
        profile: an empty folder for what it leaves.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    (its_input, ours), (answers, its_output) = os.pipe(), os.pipe()
    options = [
        "--headless",
        "--no-sandbox",  # which root and containers cannot have
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-pipe",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
    ]
    # Chromium takes commands on descriptor 3 and answers on 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output}', "bash"]
    with subprocess.Popen(
        [*shell, program, *options], pass_fds=(its_input, its_output), stderr=subprocess.DEVNULL
    ) as process:
        os.close(its_input)
        os.close(its_output)
        try:
            with os.fdopen(ours, "wb") as commands, os.fdopen(answers, "rb", 0) as events:
                yield Browser(commands, events)
        finally:
            process.kill()


class Browser:
    """One page.

    Attributes:
        complaints: every error and warning that the page put on the console.
        requests: address of everything that was fetched.
    """

    def __init__(self, commands: Any, events: Any) -> None:  # noqa: ANN401  binary files
        self._commands, self._events = commands, events
        self._numbers, self._buffer = itertools.count(1), b""
        self._deadline = time.monotonic() + SECONDS
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Show a file, and wait until all of it is there."""
        self._call("Page.navigate", url=page.as_uri())
        while self.value("location.href + document.readyState") != page.as_uri() + "complete":
            time.sleep(0.02)

    def value(self, expression: str) -> Any:  # noqa: ANN401  whatever the page says
        """What a JavaScript expression gives."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Move the mouse with its button down."""
        for kind, (x, y) in (("Pressed", start), ("Moved", end), ("Released", end)):
            self._call(
                "Input.dispatchMouseEvent",
                type=f"mouse{kind}",
                x=x,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )

    def screenshot(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        message = {"id": next(self._numbers), "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = max(0, self._deadline - time.monotonic())
            ready, _, _ = select.select([self._events], [], [], left)
            assert ready, f"no answer within {SECONDS} s"
            received = self._events.read(1 << 16)
            assert received, "the browser is gone"
            self._buffer += received
        encoded, self._buffer = self._buffer.split(b"\0", 1)
        event: dict[str, Any] = json.loads(encoded)
        return event

    def _note(self, event: dict[str, Any]) -> None:
        facts = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(facts))
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
