"""A Hugging Face Hub with one data set, `user/data`: as much of it as listing and reading files takes."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_COMMIT = 40 * "1"


class _Handler(BaseHTTPRequestHandler):
    """One request. `folder` is set by `hub_server`, in a class of its own for each server."""

    folder: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET(with_body=False)

    def do_GET(self, *, with_body: bool = True) -> None:
        path = unquote(urlsplit(self.path).path)
        listed = re.fullmatch(r"/api/datasets/user/data/tree/main/?(.*)", path)
        wanted = re.fullmatch(r"/datasets/user/data/resolve/main/(.+)", path)
        if path in ("/api/datasets/user/data", "/api/datasets/user/data/revision/main"):
            self.send(200, json.dumps({"id": "user/data", "sha": _COMMIT, "siblings": []}).encode())
        elif listed and (self.folder / listed[1]).is_dir():
            entries = sorted((self.folder / listed[1]).iterdir())
            self.send(200, json.dumps([self.entry(entry) for entry in entries]).encode())
        elif wanted and (self.folder / wanted[1]).is_file():
            self.give((self.folder / wanted[1]).read_bytes(), with_body=with_body)
        else:
            code = "EntryNotFound" if listed or wanted else "RepoNotFound"
            self.send(404, b"", {"X-Error-Code": code})

    def entry(self, path: Path) -> dict[str, object]:
        kind, data = ("directory", b"") if path.is_dir() else ("file", path.read_bytes())
        name = path.relative_to(self.folder).as_posix()
        return {"type": kind, "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}

    def give(self, data: bytes, *, with_body: bool) -> None:
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": _COMMIT}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, end = int(part[1]), int(part[2]) + 1 if part[2] else len(data)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data = data[first:end]
        self.send(206 if part else 200, data, headers, with_body=with_body)

    def send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


@contextmanager
def hub_server(folder: Path) -> Iterator[dict[str, str]]:
    """A Hub whose data set `hf://datasets/user/data` is the folder; the variables that lead to it."""
    handler = type("Handler", (_Handler,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        server.shutdown()
