"""The digests of a node's original bases in as few bytes as they take: one string for each node. Pure.

A map of names to texts takes four times as much, and the controller keeps one for each of 5,000 nodes.
"""

import re
import struct
from collections.abc import Iterator, Mapping

from basekeeper.cache.settings import Algorithm
from basekeeper.resources.node_image_cache import MAX_DIGESTS

_ENTRY = struct.Struct(">20sBQ16s")
"""Name, algorithm, size, digest: 45 bytes."""
_CODES = {algorithm.value: place for place, algorithm in enumerate(Algorithm)}
_NAME = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"([A-Z0-9]{1,16}):([0-9]{1,18}):([0-9a-f]{32})")


def packed(told: object) -> bytes:
    """A node's map of names to `ALGORITHM:size:digest`, in order; what is no such thing is left out."""
    if not isinstance(told, Mapping):
        return b""
    return b"".join(sorted(filter(None, (_entry(name, said) for name, said in told.items())))[:MAX_DIGESTS])


def _entry(name: object, said: object) -> bytes | None:
    parts = _DIGEST.fullmatch(said) if isinstance(said, str) else None
    if parts is None or parts[1] not in _CODES or not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    return _ENTRY.pack(bytes.fromhex(name), _CODES[parts[1]], int(parts[2]), bytes.fromhex(parts[3]))


def entries(packed_digests: bytes) -> Iterator[bytes]:
    """One by one; two of the same base with the same content are equal."""
    size = _ENTRY.size
    return (packed_digests[at : at + size] for at in range(0, len(packed_digests), size))


def base_of(entry: bytes) -> bytes:
    """The name of the base and the algorithm: what has the same can be compared."""
    return entry[:21]


def name_of(base: bytes) -> str:
    """The name of a base, or of an entry's, as the file has it."""
    return base[:20].hex()


def size_of(entry: bytes) -> int:
    """The size of the content, in bytes."""
    return int(_ENTRY.unpack(entry)[2])
