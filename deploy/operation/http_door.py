"""The HTTP port of a server: threads and headers around a `Console`.

It is made for a browser on the same machine, so for one in which other pages are open: those may
neither read it nor press anything. Whatever is not for machines wants a Host that cannot be another
site's name (an address, localhost, this machine's name), an order wants the page's own token, and
the page may be framed by none. There is no encryption, so it listens where the doors do.
"""

import hmac
import ipaddress
import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from loopdit import __version__
from loopdit.deploy.operation.console import MAX_BODY_BYTES, OPEN_PATHS, Answer, Console
from loopdit.errors import ServerError

_LOG = logging.getLogger(__name__)
TOKEN_HEADER = "X-Loopdit-Token"
_MOST_CONNECTIONS = 32
_SILENT_S = 10.0  # a connection that says nothing for so long is closed
_REFUSED = "text/plain; charset=utf-8"


class HttpDoor:
    """Open from here until `close`; `port` is the one in use. Raises ServerError if it is taken."""

    def __init__(self, console: Console, host: str, port: int) -> None:
        try:
            self._server = _Server(console, host, port)
        except OSError as error:
            raise ServerError(
                f"http_port={port}: cannot listen at {host}:{port}: {error.strerror}. Choose "
                f"another port."
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nothing more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS
    block_on_close = False

    def __init__(self, console: Console, host: str, port: int) -> None:
        self.console = console
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse what is one connection too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log it, unless it is only a browser that went away."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            _LOG.error("an HTTP request failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_S
    server_version = f"loopdit/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in OPEN_PATHS or self._is_ours():
            self._answer(self._console.get(path))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.close_connection = True  # whatever is left of its body
        given = self.headers.get(TOKEN_HEADER, "")
        length = self.headers.get("Content-Length", "")
        if not self._is_ours():
            return
        if not hmac.compare_digest(given.encode(), self._console.token.encode()):
            self._refuse(403, f"an order needs the token of the live page, as {TOKEN_HEADER}.")
        elif not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._refuse(413, f"an order has a length, of at most {MAX_BODY_BYTES} bytes.")
        else:
            path = self.path.partition("?")[0]
            self._answer(self._console.post(path, self.rfile.read(int(length))))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks four times a second."""

    @property
    def _console(self) -> Console:
        assert isinstance(self.server, _Server)
        return self.server.console

    def _is_ours(self) -> bool:
        """Whether it is asked by a name that no other site can have, and by no other site's page;
        else it is refused."""
        host = self.headers.get("Host", "")
        if not cannot_be_a_site(host):
            self._refuse(403, "ask by the address of this machine, not by a name.")
            return False
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            self._refuse(403, "asked by a page of another site.")
            return False
        return True

    def _refuse(self, status: int, why: str) -> None:
        self._answer(Answer(status, _REFUSED, f"{why}\n".encode()))

    def _answer(self, answer: Answer) -> None:
        own = f"'nonce-{answer.nonce}'" if answer.nonce else "'none'"
        policy = (
            f"default-src 'none'; script-src {own}; style-src {own}; img-src 'self' data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


def cannot_be_a_site(host: str) -> bool:
    """Whether a Host header names this machine in a way that no foreign name server can answer."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]").lower()
    if name in ("localhost", socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
