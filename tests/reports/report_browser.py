"""A headless Chromium driven through its debugging pipe, with the standard library only."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Browser:
    """One page; `events` holds what it said: console messages, exceptions, requests."""

    def __init__(self, program: str):
        (their_in, self.write_end), (self.read_end, their_out) = os.pipe(), os.pipe()
        self.profile = tempfile.TemporaryDirectory()
        # The browser reads commands from descriptor 3 and writes answers to 4.
        shell = f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, program, *FLAGS, f"--user-data-dir={self.profile.name}"],
            pass_fds=(their_in, their_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self.numbers, self.rest, self.events = itertools.count(1), b"", list[dict[str, Any]]()
        self.session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, its answer."""
        number = next(self.numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for one in self.read():
                if one.get("id") == number:
                    assert "error" not in one, one
                    return one["result"]
                self.events.append(one)
        raise AssertionError(f"no answer to {method}")

    def read(self) -> list[dict[str, Any]]:
        """What the browser said meanwhile."""
        if not select.select([self.read_end], [], [], 0.5)[0]:
            return []
        *whole, self.rest = (self.rest + os.read(self.read_end, 1 << 20)).split(b"\0")
        return [json.loads(one) for one in whole]

    def open(self, page: Path | str, width: int, dark: bool) -> None:
        """Show a page at a width, in a theme; returns once it is drawn."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])
        self.events.clear()
        self.send("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        end = time.monotonic() + 30
        drawn = "document.readyState === 'complete' && !!document.querySelector('.main-svg')"
        while not self.value(drawn):
            assert time.monotonic() < end, "the page is not drawn"

    def value(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Move, press or release the mouse."""
        button = "none" if kind == "mouseMoved" and not self.pressed else "left"
        self.pressed = kind == "mousePressed" or (self.pressed and kind == "mouseMoved")
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    pressed = False

    def complaints(self) -> list[str]:
        """Console errors and exceptions, and requests for anything but the page itself."""
        found = []
        for event in self.events:
            name, what = event.get("method", ""), event.get("params", {})
            if name == "Runtime.exceptionThrown":
                found.append(str(what["exceptionDetails"]))
            elif name == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
                found.append(str(what["args"]))
            elif name == "Log.entryAdded" and what["entry"]["level"] == "error":
                found.append(what["entry"]["text"])
            elif name == "Network.requestWillBeSent":
                url = what["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:")):
                    found.append(url)
        return found

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        for _ in range(20):  # Its children let go of the profile a moment later.
            try:
                self.profile.cleanup()
                return
            except OSError:
                time.sleep(0.1)
