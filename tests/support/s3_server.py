"""A small S3 server over a folder: as much of the protocol as reading takes. Nothing is written."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest


@contextmanager
def s3_server(folder: Path, *, failures: dict[str, int] | None = None) -> Iterator[str]:
    """A store with one bucket for each folder in `folder`: HEAD and GET of an object, whole or a range, the error for a
    missing one, and a bucket's list by prefix.

    `failures` is how many times the object of a name (`bucket/key`) answers with an error of the server before it is given.
    """
    left = dict(failures or {})

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            url = urlsplit(self.path)
            name, query = unquote(url.path).strip("/"), parse_qs(url.query)
            if "list-type" in query:
                self.list(name, query.get("prefix", [""])[0])
                return
            path = folder / name
            if with_body and left.get(name, 0) > 0:
                left[name] -= 1
                self.send(500, b"<Error><Code>InternalError</Code></Error>", with_body=with_body)
                return
            if not path.is_file():
                self.send(404, b"<Error><Code>NoSuchKey</Code></Error>", with_body=with_body)
                return
            data, status = path.read_bytes(), 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                stop = int(wanted[2]) + 1 if wanted[2] else len(data)
                data, status = data[int(wanted[1]) : stop], 206
            self.send(status, data, with_body=with_body)

        def list(self, bucket: str, prefix: str) -> None:
            files = sorted(path for path in (folder / bucket).rglob("*") if path.is_file())
            keys = [path.relative_to(folder / bucket).as_posix() for path in files]
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                f'<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>"1"</ETag></Contents>'
                for key, path in zip(keys, files, strict=True)
                if key.startswith(prefix)
            )
            body = f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            self.send(200, body.encode(), with_body=True)

        def send(self, status: int, data: bytes, *, with_body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.send_header("ETag", f'"{zlib.crc32(data)}"')
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Not on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def use_s3(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process and its children find the server at `address`, as their users would: by the environment."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    s3fs.S3FileSystem.clear_instance_cache()  # those of an earlier server
