"""onnxruntime-web in headless Chromium: a page on loopback runs a file, and posts what came out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from irshap.engines import Engine, EngineFailed
from irshap.engines.javascript import Web, read_arrays, write_arrays
from irshap.errors import UserError

__all__ = ["Chromium", "chromium"]

PAGE = Path(__file__).with_name("page.html")
PATIENCE = 300
"""Seconds until a page that says nothing is given up."""


def chromium() -> str:
    """The path of the system's Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise UserError("there is no chromium", mend="apt-get install chromium")
    return found


class Chromium(Engine):
    """WebAssembly in a browser.  Looks for `chromium`, and for onnxruntime-web as `Web` does."""

    name = "chromium"
    title = "onnxruntime-web in Chromium"

    def version(self) -> str:
        return Web().version()

    def run(self, model: Path, feeds: Sequence[Mapping[str, object]]) -> list[Any]:
        browser = chromium()
        with tempfile.TemporaryDirectory(prefix="irshap-") as name:
            folder = Path(name)
            (folder / "model.onnx").symlink_to(model.absolute())
            listed = [write_arrays(feed, folder, f"in{i}_") for i, feed in enumerate(feeds)]
            (folder / "job.json").write_text(json.dumps({"model": "model.onnx", "feeds": listed}))
            done = threading.Event()
            server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folder=folder, done=done))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                self._open(browser, f"http://127.0.0.1:{server.server_port}/", folder / "profile", done)
            finally:
                server.shutdown()
                server.server_close()
            if (folder / "error.txt").exists():
                raise EngineFailed(f"{self.title} failed: {(folder / 'error.txt').read_text()[:300]}")
            if not (folder / "results.json").exists():
                raise EngineFailed(f"{self.title} said nothing")
            told = json.loads((folder / "results.json").read_text())
            return [read_arrays(entries, folder) for entries in told]

    def _open(self, browser: str, address: str, profile: Path, done: threading.Event) -> None:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [browser, *flags, f"--user-data-dir={profile}", address, "--remote-debugging-port=0"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        try:
            done.wait(PATIENCE)
        finally:
            process.terminate()
            process.wait(20)


def _dist() -> Path:
    """Where the files of onnxruntime-web are."""
    for place in (*os.environ.get("NODE_PATH", "").split(os.pathsep), "node_modules"):
        found = Path(place, "onnxruntime-web", "dist")
        if place and found.is_dir():
            return found
    raise UserError("onnxruntime-web isn't installed", mend="npm install onnxruntime-web")


class _Handler(SimpleHTTPRequestHandler):
    """/ is the page, /ort/ the package, /job/ what is to be run; what is posted to /out/ is kept."""

    def __init__(self, *args: Any, folder: Path, done: threading.Event) -> None:
        self.folder, self.done = folder, done
        super().__init__(*args)

    def translate_path(self, path: str) -> str:
        place, _, name = path.lstrip("/").partition("/")
        if not place:
            return str(PAGE)
        folder = {"ort": _dist(), "job": self.folder}.get(place, self.folder / "nothing")
        return str(folder / Path(name).name)

    def guess_type(self, path: Any) -> str:
        return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)

    def do_POST(self) -> None:
        name = Path(self.path).name
        (self.folder / name).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        if name in ("results.json", "error.txt"):
            self.done.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
