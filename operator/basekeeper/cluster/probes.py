"""`/livez`, `/readyz` and `/metrics`: answers that are true now, from a small server in a thread of its own."""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""Says what is wrong, in one line, or None."""


class CannotListen(Exception):
    """The address cannot be used; says which and why."""


class Probes:
    """Answers until it is stopped."""

    def __init__(self, listen: str, live: Check, ready: Check, registry: CollectorRegistry) -> None:
        """Listen on `listen`, as `:9478`, `127.0.0.1:9478` or `[::1]:9478`; port 0 takes a free one.

        Without an address it listens on all of both families: a pod may have either. Raises CannotListen.
        """
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)), _handler(live, ready, registry))
        except (OSError, ValueError, OverflowError) as error:
            raise CannotListen(f"--listen {listen}: {error}; give an address such as :9478") from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0] or (not address[0] and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind, for both families where no address chooses one."""
        if self.address_family == socket.AF_INET6 and not self.server_address[0]:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _handler(live: Check, ready: Check, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    checks = {"/livez": live, "/readyz": ready}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path in checks:
                wrong = checks[path]()
                status = HTTPStatus.OK if wrong is None else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, f"{wrong or 'ok'}\n".encode(), "text/plain; charset=utf-8")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"try /livez, /readyz or /metrics\n", "text/plain; charset=utf-8")

        def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a probe every few seconds is no news."""

    return Handler
