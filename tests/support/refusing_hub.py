"""A Hugging Face Hub that has nothing: what it answers depends on the name that is asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# In the path -> the status, and what the Hub writes in X-Error-Code.
ANSWERS = {
    "gated": (403, "GatedRepo"),
    "absent": (401, "RepoNotFound"),  # as the Hub answers whoever is not logged in
    "misspelt": (404, "RepoNotFound"),
    "forbidden": (403, ""),
    "broken": (500, ""),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        status, code = next(answer for word, answer in ANSWERS.items() if word in self.path)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()

    do_GET = do_HEAD

    def do_POST(self) -> None:
        """Make a repository or write to one; the name is in the body, or in the path."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.path += f"/{body}"
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


@contextmanager
def refusing_hub() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
