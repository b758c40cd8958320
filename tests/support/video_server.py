"""A web server of small videos on this machine that can be told to refuse, stall and break off."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".mp4": "video/mp4",
    ".html": "text/html",
    ".vtt": "text/vtt",
}


class VideoServer:
    """Serves the files of a folder at `url`.

    `plan[path]` are behaviours, one for each GET in turn; the last one stays. A behaviour is a status code to
    answer with, `truncated` (half of what was announced), `stall` (the first half, then nothing), or `ok`.
    `gets` counts requests, `cookies` has what was sent with them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: dict[str, list[str | int]] = {}
        self.gets: Counter[str] = Counter()
        self.cookies: defaultdict[str, list[str]] = defaultdict(list)
        self.retry_after = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def behaviour(self, path: str) -> str | int:
        self.gets[path] += 1
        planned = self.plan.get(path, ["ok"])
        return planned.pop(0) if len(planned) > 1 else planned[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                site.cookies[path].append(self.headers.get("Cookie", ""))
                behaviour = site.behaviour(path)
                file = site.folder / path.lstrip("/")
                if isinstance(behaviour, int) or not file.is_file():
                    self._refuse(behaviour if isinstance(behaviour, int) else 404)
                    return
                data = file.read_bytes()
                start = self._start_of_range()
                self.send_response(206 if start is not None else 200)
                self.send_header("Content-Type", _TYPES.get(file.suffix, "application/octet-stream"))
                self.send_header("Content-Length", str(len(data) - (start or 0)))
                self.send_header("Accept-Ranges", "bytes")
                if start is not None:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.end_headers()
                if behaviour == "ok":
                    self.wfile.write(data[start or 0 :])
                    return
                self.close_connection = True
                self.wfile.write(data[start or 0 : len(data) // 2])
                self.wfile.flush()
                if behaviour == "stall":
                    time.sleep(20)

            def _start_of_range(self) -> int | None:
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                return int(match[1]) if match else None

            def _refuse(self, status: int) -> None:
                self.send_response(status)
                if site.retry_after:
                    self.send_header("Retry-After", site.retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator["VideoServer"]:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
