"""A proxy before an API server that fails as networks and load balancers do, when it is told to.

    with cluster.proxy() as proxy:
        config = cluster.kubeconfig(token, "agent-a", server=proxy.url, ca=proxy.ca_file)
        proxy.switch(Fault.UNAVAILABLE)

It ends TLS itself, so it can answer in the server's place, and otherwise moves bytes both ways without looking at
them: watches, and whose token it is, go through as they are. A thread for each connection, and not asyncio, whose
TLS in Python 3.11 stumbles over connections that are cut.
"""

import contextlib
import enum
import json
import select
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from lab.certificates import Authority
from lab.daemons import free_ports

_CHUNK = 64 * 1024
_STATUS = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "the server is currently unable to handle the request",
    "reason": "ServiceUnavailable",
    "code": 503,
}


class Fault(enum.Enum):
    """What becomes of connections; each switch but the one to FREEZE first cuts those that are open."""

    PASS = enum.auto()
    UNAVAILABLE = enum.auto()
    """Every request is answered with 503."""
    REFUSE = enum.auto()
    """Nobody listens."""
    HANG = enum.auto()
    """Connections are taken, requests are read, nothing is answered."""
    FREEZE = enum.auto()
    """Like HANG, and open connections stay and fall silent: a watch cannot tell it from quiet times."""


class FaultyProxy:
    """Listens on loopback, as long as its context is open."""

    def __init__(self, server_port: int, authority: Authority) -> None:
        """Describe a proxy before the server on a port of loopback; both have their certificates from `authority`."""
        self.ca_file = authority.file
        self.fault = Fault.PASS
        self._server_port = server_port
        (self._port,) = free_ports(1)
        self._server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server_side.load_cert_chain(*authority.issue(f"proxy-{self._port}"))
        self._client_side = ssl.create_default_context(cafile=str(authority.file))
        self._listener: _Listener | None = None
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def __enter__(self) -> Self:
        self._listener = _Listener(self._port, self._take)
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_listening()
        self._cut()

    def switch(self, fault: Fault) -> None:
        """Fail like this from now on; when it returns, the new state holds."""
        self.fault = fault
        if fault is Fault.REFUSE:
            self._stop_listening()
        if fault is not Fault.FREEZE:
            self._cut()
        if fault is not Fault.REFUSE and self._listener is None:
            self._listener = _Listener(self._port, self._take)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _cut(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.cut()
        for connection in connections:
            connection.join()

    def _take(self, client: socket.socket) -> None:
        connection = _Connection(self._serve, client)
        # Known before it asks for the fault: a switch either finds it here, or is found by it.
        with self._lock:
            self._open.add(connection)
            connection.start()

    def _serve(self, connection: "_Connection", client: socket.socket) -> None:
        try:
            # A peer that goes away, be it because it was cut, is no news here.
            with contextlib.suppress(OSError):
                fault = self.fault
                secured = connection.secure(client, self._server_side, server_side=True)
                match fault:
                    case Fault.PASS:
                        self._pass_on(connection, secured)
                    case Fault.UNAVAILABLE:
                        _answer_unavailable(secured)
                    case _:
                        _swallow(secured)
        finally:
            connection.close()
            with self._lock:
                self._open.discard(connection)

    def _pass_on(self, connection: "_Connection", client: ssl.SSLSocket) -> None:
        upstream = connection.secure(
            socket.create_connection(("127.0.0.1", self._server_port)), self._client_side, server_side=False
        )
        other = {client: upstream, upstream: client}
        for end in other:
            end.setblocking(False)
        while True:
            # What TLS has decrypted already, select(2) knows nothing of.
            ready = [end for end in other if end.pending()] or select.select(list(other), [], [])[0]
            for end in ready:
                try:
                    data = end.recv(_CHUNK)
                except ssl.SSLWantReadError:
                    continue
                if not data:
                    _say_goodbye(other[end])
                    return
                if self.fault is not Fault.FREEZE:
                    _send(other[end], data)


class _Listener:
    def __init__(self, port: int, take: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self._take = take
        self._thread = threading.Thread(target=self._accept, name=f"proxy-{port}", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._take(client)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # ends the accept that is waiting, which a mere close would not
        self._thread.join()
        self._socket.close()


class _Connection(threading.Thread):
    """The sockets of a client and, when there is one, of the server; `cut` wakes whoever waits for them."""

    def __init__(self, serve: Callable[["_Connection", socket.socket], None], client: socket.socket) -> None:
        super().__init__(target=serve, args=(self, client), daemon=True)
        self._lock = threading.Lock()
        self._sockets: list[ssl.SSLSocket] = []
        self._is_cut = False

    def secure(self, plain: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> ssl.SSLSocket:
        """Speak TLS on a socket, which is this connection's from now on."""
        secured = context.wrap_socket(
            plain,
            server_side=server_side,
            server_hostname=None if server_side else "127.0.0.1",
            do_handshake_on_connect=False,
        )
        with self._lock:
            self._sockets.append(secured)
            if self._is_cut:
                raise ConnectionAbortedError
        secured.do_handshake()
        return secured

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which takes TLS away from under a thread that is using it.
                    socket.socket.shutdown(end, socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for end in self._sockets:
                end.close()


def _send(end: ssl.SSLSocket, data: bytes) -> None:
    end.setblocking(True)
    end.sendall(data)
    end.setblocking(False)


def _say_goodbye(end: ssl.SSLSocket) -> None:
    """Tell the peer that this is the end, without waiting for its answer."""
    with contextlib.suppress(OSError):
        end.unwrap()


def _swallow(client: ssl.SSLSocket) -> None:
    while client.recv(_CHUNK):
        pass


def _answer_unavailable(client: ssl.SSLSocket) -> None:
    with client.makefile("rb") as request:
        length = 0
        while (line := request.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        # A body that nobody read would turn the close into a reset, and the client might never see the answer.
        request.read(length)
    body = json.dumps(_STATUS).encode()
    client.sendall(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
