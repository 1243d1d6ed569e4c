"""The page of a run that goes on, served to this machine alone while it grows.

Standard library only. Nothing is written, nothing but GET and HEAD is answered, and only to those
who ask for this machine by its own name: a foreign page that resolves its name to 127.0.0.1 gets
nothing (DNS rebinding).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yunque.errors import InputError, YunqueError
from yunque.reports.charts import figures
from yunque.reports.frame import policy_of
from yunque.reports.page import page, sections
from yunque.reports.read import log_file
from yunque.reports.report import Report

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
REST = 10.0
"""A new page is made at most once in so many times the time that the last one took."""

Read = Callable[[], Report]


@dataclass
class Watched:
    """The report of a log as it stands; made anew when the file has changed."""

    path: Path
    read: Read
    report: Report
    fault: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: tuple[int, int] = (0, 0)
    rested: float = 0.0

    def now(self) -> Report:
        """The report of the log as it is; where it cannot be read, the last one and `fault`."""
        with self.lock:
            began = time.monotonic()
            if began < self.rested:
                return self.report
            try:
                stat = log_file(self.path).stat()
                mark = stat.st_mtime_ns, stat.st_size
                if mark != self.seen:
                    self.report, self.seen, self.fault = self.read(), mark, ""
            except (YunqueError, OSError) as error:
                self.fault = str(error)
            self.rested = time.monotonic() + REST * (time.monotonic() - began)
            return self.report


def news(watched: Watched, have: str) -> bytes | None:
    """What changed since the page `have` (its SHA-256) as JSON; None where nothing did."""
    made = watched.now()
    log = made.log
    if log.sha256 == have and not watched.fault:
        return None
    drawn = figures(log, made.analysis)
    found: dict[str, Any] = {
        "version": log.sha256,
        "rows": log.rows,
        "ended": log.stop is not None,
        "fault": watched.fault,
        "figures": drawn,
        "sections": [one for one in sections(log, made.analysis, drawn) if one],
    }
    return json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


def server(path: Path, read: Read, lang: str, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1 that shows the report of a log as it grows; it does not run yet.

    Args:
        path: the run folder or log.
        read: makes its report anew.
        port: where it listens; 0: any that is free. `server_address` says which.

    Raises:
        InputError: the log cannot be read, or the port is taken.
    """
    watched = Watched(path, read, read())

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "yunque", ""

        server: ThreadingHTTPServer

        def do_GET(self) -> None:
            self.reply(body=True)

        def do_HEAD(self) -> None:
            self.reply(body=False)

        def reply(self, body: bool) -> None:
            asked = urlsplit(self.path)
            hosts = [f"{name}:{self.server.server_port}" for name in NAMES]
            if self.headers.get("Host", "").lower() not in hosts:
                self.send(HTTPStatus.FORBIDDEN, "text/plain", b"another host\n", body)
            elif asked.path == "/":
                html = page(watched.now().log, watched.report.analysis, lang, live=True)
                self.send(HTTPStatus.OK, "text/html", html.encode(), body, policy_of(html))
            elif asked.path == "/news":
                found = news(watched, asked.query.removeprefix("have="))
                status = HTTPStatus.NO_CONTENT if found is None else HTTPStatus.OK
                self.send(status, "application/json", found or b"", body)
            else:
                self.send(HTTPStatus.NOT_FOUND, "text/plain", b"not here\n", body)

        def send(
            self, status: HTTPStatus, kind: str, content: bytes, body: bool, policy: str = ""
        ) -> None:
            self.send_response(status)
            if status is not HTTPStatus.NO_CONTENT:
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
            for name, value in HEADERS.items():
                self.send_header(name, value)
            if policy:
                self.send_header("Content-Security-Policy", f"{policy}; frame-ancestors 'none'")
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal belongs to the user."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--port {port}: cannot listen there ({error}). Choose another, or leave --port out "
            "and a free one is taken."
        ) from None


HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
