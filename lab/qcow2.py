"""Writes an empty overlay where qemu-img is not installed, so that the demonstration runs on any machine.

Four clusters: header, reference count table, reference count block, first level table; nothing is allocated, so
every read goes to the base. qemu-img finds no fault with it (a test asks).
"""

import struct
from pathlib import Path

CLUSTER = 65536
# What one entry of the first level table stands for: a second level table of 8192 entries, a cluster each.
_BYTES_PER_L1_ENTRY = CLUSTER // 8 * CLUSTER
_BACKING_FORMAT = 0xE2792ACA
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


def write_overlay(path: Path, *, backing_file: str, backing_format: str, size: int) -> None:
    """Write a qcow2 file of `size` bytes that reads everything from `backing_file`."""
    name, form = backing_file.encode(), backing_format.encode()
    l1_entries = max(1, -(-size // _BYTES_PER_L1_ENTRY))
    if l1_entries * 8 > CLUSTER:
        raise ValueError(f"{size} bytes need more than one cluster for the first level table")
    extensions = struct.pack(">II", _BACKING_FORMAT, len(form)) + form.ljust(-(-len(form) // 8) * 8, b"\0") + bytes(8)
    header = _HEADER.pack(
        *(b"QFI\xfb", 3, _HEADER.size + len(extensions), len(name), 16, size, 0),
        *(l1_entries, 3 * CLUSTER, CLUSTER, 1, 0, 0, 0, 0, 0, 4, _HEADER.size),
    )
    clusters = (
        header + extensions + name,
        struct.pack(">Q", 2 * CLUSTER),
        struct.pack(">4H", 1, 1, 1, 1),
        bytes(CLUSTER),
    )
    path.write_bytes(b"".join(cluster.ljust(CLUSTER, b"\0") for cluster in clusters))
