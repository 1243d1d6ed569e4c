"""The page of a growing log, asked for by a real client on the loopback interface."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from report_runs import write_run

from yunque.errors import InputError
from yunque.reports import watch
from yunque.reports.report import report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which the first 100 rows are written, without its stop row."""
    folder = write_run(tmp_path / "run")
    (tmp_path / "rest").write_bytes(b"".join(lines(folder)[100:]))
    (folder / "log.jsonl").write_bytes(b"".join(lines(folder)[:100]))
    return folder


def lines(folder: Path) -> list[bytes]:
    return (folder / "log.jsonl").read_bytes().splitlines(keepends=True)


@pytest.fixture
def served(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(watch, "REST", 0.0)
    with watch.server(run, lambda: report(run), "en") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: ThreadingHTTPServer, path: str, method: str = "GET", host: str = ""
) -> tuple[int, dict[str, str], bytes]:
    port = server.server_address[1]
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    client.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = client.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    client.close()
    return found


def test_the_page_grows_with_its_log(served: ThreadingHTTPServer, run: Path) -> None:
    status, headers, body = ask(served, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    html = body.decode()
    assert "<b data-rows>100</b>" in html
    (version,) = re.findall(r'data-version="(\w{64})"', html)
    assert ask(served, f"/news?have={version}")[0] == 204
    with (run / "log.jsonl").open("ab") as log:
        log.write((run.parent / "rest").read_bytes())
    status, _, body = ask(served, f"/news?have={version}")
    assert status == 200
    found = json.loads(body)
    assert found["rows"] == len(lines(run)) > 400
    assert found["ended"]
    assert found["version"] == report(run).log.sha256 != version
    assert max(found["figures"][0]["data"][0]["x"]) == 400
    assert found["sections"][0].startswith('<section class="verdict')
    assert ask(served, f"/news?have={found['version']}")[0] == 204


def test_nothing_but_the_page_and_nothing_is_written(
    served: ThreadingHTTPServer, run: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert ask(served, "/", "HEAD")[2] == b""
    for path in ("/log.jsonl", "/../recipe.toml", "/%2e%2e/etc/passwd", "/favicon.ico"):
        assert ask(served, path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(served, "/", method)[0] == 501
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_other_hosts_are_refused(served: ThreadingHTTPServer) -> None:
    port = served.server_address[1]
    assert served.server_address[0] == "127.0.0.1"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"localhost.evil:{port}"):
        status, _, body = ask(served, "/", host=host)
        assert (status, body) == (403, b"another host\n")
        assert ask(served, "/news?have=", host=host)[0] == 403
    assert ask(served, "/news?have=", host=f"LOCALHOST:{port}")[0] == 200


def test_a_log_that_cannot_be_read_any_more(served: ThreadingHTTPServer, run: Path) -> None:
    html = ask(served, "/")[2].decode()
    (version,) = re.findall(r'data-version="(\w{64})"', html)
    (run / "log.jsonl").unlink()
    status, _, body = ask(served, f"/news?have={version}")
    assert status == 200
    assert json.loads(body)["fault"]
    assert json.loads(body)["rows"] == 100


def test_a_port_that_is_taken(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}"):
            watch.server(run, lambda: report(run), "en", port)
    with pytest.raises(InputError, match="--port 70000"):
        watch.server(run, lambda: report(run), "en", 70_000)


def test_the_command_says_the_address_and_ends_with_ctrl_c(run: Path) -> None:
    # A suite started in the background hands an ignored Ctrl-C on to all that it starts.
    code = """import signal, sys, yunque.cli
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(yunque.cli.main())"""
    words = [sys.executable, "-c", code]
    words += ["report", str(run), "--watch", "--lang", "es"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", said)
        assert said.endswith("mientras crece; Ctrl-C lo detiene.\n")
        client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        client.request("GET", "/")
        assert b'lang="es"' in client.getresponse().read()[:200]
        client.close()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
