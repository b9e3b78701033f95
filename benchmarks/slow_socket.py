"""A unix socket before libvirtd that is slow to pass on what libvirtd says: each answer waits.

python slow_socket.py TARGET PATH SECONDS. Says `ready` once it listens, and works until it is ended or its standard
input is closed. To a client this is what a libvirtd is that has much to do.
"""

import contextlib
import socket
import sys
import threading
import time
from pathlib import Path

_CHUNK = 1 << 16


def main() -> None:
    """Relay connections until standard input ends."""
    target, path, delay = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, target, delay), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def _accept(listener: socket.socket, target: Path, delay: float) -> None:
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(target))
        for source, sink, wait in ((client, server, 0.0), (server, client, delay)):
            threading.Thread(target=_relay, args=(source, sink, wait), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket, wait: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            time.sleep(wait)
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
