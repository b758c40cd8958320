"""A small S3 server over a folder: as much of the protocol as reading, writing and listing small objects takes."""

import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import pytest

from resources import need


@contextmanager
def s3_server(folder: Path, *, failures: dict[str, int] | None = None) -> Iterator[str]:
    """A store with one bucket for each folder in `folder`: HEAD, GET, PUT and DELETE of an object, the errors for a
    missing one and a missing bucket, and a bucket's list.

    `failures` is how many times the object of a name (`bucket/key`) answers with an error of the server before it is given
    or taken. What is written appears whole, as in S3.
    """
    left = dict(failures or {})
    uploads = folder.parent / f"{folder.name}-uploads"
    uploads.mkdir(exist_ok=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.give(with_body=False)

        def do_GET(self) -> None:
            query = parse_qs(self.url.query)
            if "list-type" in query:
                self.list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
            elif not self.fails():
                self.give(with_body=True)

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.fails():
                return
            if not (folder / self.name.partition("/")[0]).is_dir():
                self.send_error_code(404, "NoSuchBucket")
                return
            upload, path = uploads / str(threading.get_ident()), folder / self.name
            upload.write_bytes(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            upload.replace(path)
            self.send(200, b"")

        def do_DELETE(self) -> None:
            (folder / self.name).unlink(missing_ok=True)
            self.send(204, b"", with_body=False)

        def do_POST(self) -> None:
            """Of all that may be posted only a list of keys to delete is understood."""
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            keys = re.findall("<Key>([^<]*)</Key>", body)
            for key in keys:
                (folder / self.name / unescape(key)).unlink(missing_ok=True)
            rows = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self.send(200, f"<DeleteResult>{rows}</DeleteResult>".encode())

        @property
        def url(self) -> SplitResult:
            return urlsplit(self.path)

        @property
        def name(self) -> str:
            return unquote(self.url.path).strip("/")

        def fails(self) -> bool:
            if left.get(self.name, 0) <= 0:
                return False
            left[self.name] -= 1
            self.send_error_code(500, "InternalError")
            return True

        def give(self, *, with_body: bool) -> None:
            path = folder / self.name
            if not path.is_file():
                self.send_error_code(404, "NoSuchKey", with_body=with_body)
                return
            data, status = path.read_bytes(), 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                stop = int(wanted[2]) + 1 if wanted[2] else len(data)
                data, status = data[int(wanted[1]) : stop], 206
            self.send(status, data, with_body=with_body)

        def list(self, prefix: str, delimiter: str) -> None:
            bucket = folder / self.name
            if not bucket.is_dir():
                self.send_error_code(404, "NoSuchBucket")
                return
            rows, folders = [], set()
            for path in sorted(path for path in bucket.rglob("*") if path.is_file()):
                key = path.relative_to(bucket).as_posix()
                head, below, _ = key.removeprefix(prefix).partition(delimiter or "\0")
                if key.startswith(prefix) and below:
                    folders.add(f"{prefix}{head}{delimiter}")
                elif key.startswith(prefix):
                    rows.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                        f'<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>"1"</ETag></Contents>'
                    )
            rows += [
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                for name in sorted(folders)
            ]
            head = f"<Name>{escape(self.name)}</Name><KeyCount>{len(rows)}</KeyCount><IsTruncated>false</IsTruncated>"
            self.send(200, f"<ListBucketResult>{head}{''.join(rows)}</ListBucketResult>".encode())

        def send_error_code(self, status: int, code: str, *, with_body: bool = True) -> None:
            self.send(status, f"<Error><Code>{code}</Code></Error>".encode(), with_body=with_body)

        def send(self, status: int, data: bytes, *, with_body: bool = True) -> None:
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
        server.daemon_threads = True
        server.block_on_close = False  # connections that are kept open would be waited for
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def use_s3(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process and its children find the server at `address`, as their users would: by the environment."""
    need("s3fs")
    import s3fs

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    s3fs.S3FileSystem.clear_instance_cache()  # those of an earlier server
