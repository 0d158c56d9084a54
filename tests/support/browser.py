"""A headless Chromium, driven by the DevTools protocol over two pipes: no library, no port.

What the browser complains about (an uncaught error, a line of the console, a violation of the
policy) is kept in `complaints`.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.support.books import until

PROGRAMS: Final = ("chromium-headless-shell", "chromium", "google-chrome")
_PATIENCE_S: Final = 60.0
_FLAGS: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which Chromium refuses to root; the pages are our own
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def find_browser() -> str | None:
    """The path of a Chromium, None where none is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One tab of a browser of its own, as a context manager."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._profile = Path(tempfile.mkdtemp(prefix="ds01d-browser-"))
        self._number = 0
        self._session: str | None = None
        self._buffer = b""
        self.complaints: list[str] = []

    def __enter__(self) -> Browser:  # noqa: PYI034 - typing has no Self in Python 3.10
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # Chromium takes its pipes by number: 3 to read from, 4 to write to.
        script = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                script,
                "sh",
                self._program,
                *_FLAGS,
                f"--user-data-dir={self._profile}",
            ],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC", "LANG": "C.UTF-8", "HOME": str(self._profile)},
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove its profile."""
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: object) -> Any:
        """Call a method; gives its result."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            event = self._read(deadline)
            if event.get("id") == self._number:
                assert "error" not in event, f"{method}: {event['error']}"
                return event["result"]
            self._note(event)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it has drawn what it polled."""
        self.call("Page.navigate", url=url)
        until(lambda: self.evaluate("document.querySelector('#summary div') !== null"), 60)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        # By itself, not by the page's policy: the protocol is above it.
        reply = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def resize(
        self, width: int, height: int = 900, *, scale: float = 1.0, dark: bool = False
    ) -> None:
        """Be a screen of this size (CSS pixels), with a light or a dark scheme."""
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=is_phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def take_picture(self, *, whole: bool = True) -> bytes:
        """A PNG of the page: the whole of it, or what the screen shows."""
        reply = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(reply["data"])

    def _read(self, deadline: float) -> Mapping[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            assert left > 0, f"no answer of {self._program} in {_PATIENCE_S:g} s"
            if select.select([self._in], [], [], left)[0]:
                data = os.read(self._in, 1 << 20)
                assert data, f"{self._program} has ended: {self._process.poll()}"
                self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        event: Mapping[str, Any] = json.loads(message)
        return event

    def _note(self, event: Mapping[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console: {parameters['args']}")
            case "Log.entryAdded":
                self.complaints.append(f"log: {parameters['entry']['text']}")
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {parameters['message']}")
            case _:
                pass  # of no interest
