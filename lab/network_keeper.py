"""Holds a cluster's network and leads connections to its API server, until its owner is gone, however it went.

`network` runs this file inside. It has a listening socket from outside, and listens itself on the address that pods
have for the API server; both lead to the API server's own port.
"""

import asyncio
import contextlib
import socket
import sys


async def main(descriptor: int, port: int, service_address: str) -> None:
    """Wait for the word that the network is set up, then serve until standard input ends."""
    _answer("ready")
    if not await _read():
        return

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    await asyncio.start_server(lead, sock=socket.socket(fileno=descriptor))
    await asyncio.start_server(lead, service_address, 443)
    _answer("serving")
    while await _read():
        pass


async def _read() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
