"""What a header names, version by version, and what is said of one that cannot be read to its end."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.qcow2 import HEAD_SIZE, Header, parse
from tests.unit.qcow2_bytes import BACKING_FORMAT, FEATURE_NAMES, extension, qcow1, qcow2

BASE = b"/var/lib/nova/instances/_base/" + b"a" * 40


def header_of(data: bytes) -> Header:
    return parse(data[:HEAD_SIZE], len(data), lambda offset, length: data[offset : offset + length])


def poke(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


READABLE = {
    "version 1 has no extensions": (qcow1(BASE), Header(1, BASE)),
    "version 1, encrypted": (qcow1(BASE, crypt=1), Header(1, BASE, encrypted=True)),
    "version 2": (qcow2(BASE, b"raw", version=2), Header(2, BASE, "raw")),
    "version 3": (qcow2(BASE, b"raw"), Header(3, BASE, "raw")),
    "no backing file": (qcow2(), Header(3)),
    "no declared format, as nova wrote before 2012": (qcow2(BASE), Header(3, BASE)),
    "luks": (qcow2(BASE, b"raw", crypt=2), Header(3, BASE, "raw", encrypted=True)),
    "extensions that mean nothing to us": (
        qcow2(BASE, b"qcow2", extensions=[extension(FEATURE_NAMES, bytes(336)), extension(1, b"abc")]),
        Header(3, BASE, "qcow2"),
    ),
    "a longer header than today's": (qcow2(BASE, b"raw", header_length=112), Header(3, BASE, "raw")),
    "a name far into the file": (qcow2(BASE, b"raw", name_at=60_000), Header(3, BASE, "raw")),
    "a name across the end of the head": (qcow2(BASE, b"raw", name_at=HEAD_SIZE - 5), Header(3, BASE, "raw")),
    "the longest name": (qcow2(b"/" + b"x" * 1022), Header(3, b"/" + b"x" * 1022)),
    "a format far into the header": (
        qcow2(BASE, b"raw", extensions=[extension(FEATURE_NAMES, bytes(9000))]),
        Header(3, BASE, "raw"),
    ),
    "a name ends at NUL, as in C": (qcow2(b"/base\0garbage"), Header(3, b"/base")),
    "external data file": (qcow2(data_file=b"/data"), Header(3, data_file=b"/data")),
    "a data file's name without the feature bit": (qcow2(data_file=b"/data", external=False), Header(3)),
    "dirty and corrupt are still named": (qcow2(BASE, b"raw", incompatible=0b11), Header(3, BASE, "raw")),
}


@pytest.mark.parametrize("case", READABLE)
def test_reads(case: str) -> None:
    data, expected = READABLE[case]
    assert header_of(data) == expected


TROUBLED = {
    "magic alone": (b"QFI\xfb", None, "cut off after 4 bytes"),
    "half a header": (qcow2(BASE)[:60], None, "cut off after 60 bytes"),
    "half a version 1 header": (qcow1(BASE)[:47], None, "cut off after 47 bytes"),
    "version 4": (poke(qcow2(BASE), 4, ">I", 4), None, "version 4"),
    "a name that is too long": (poke(qcow2(BASE), 16, ">I", 1024), None, "too long"),
    "a name past the end": (poke(qcow2(BASE), 8, ">Q", 1 << 40), None, "past its end"),
    "cut off before the extensions end": (qcow2(None, None)[:104], None, "cut off within its extensions"),
    "an extension past the header": (
        poke(qcow2(BASE, b"raw"), 108, ">I", 1 << 30),
        BASE,
        "longer than the header",
    ),
    "unknown incompatible feature": (qcow2(BASE, b"raw", incompatible=1 << 9), BASE, "features"),
    "impossible cluster size": (qcow2(BASE, cluster_bits=60), BASE, "cluster size"),
    "impossible header length": (poke(qcow2(BASE), 100, ">I", 8), BASE, "impossible length"),
    "endless extensions": (
        qcow2(BASE, extensions=[extension(1, b"")] * 100),
        BASE,
        "more than 64 extensions",
    ),
    "a format of a kilobyte": (qcow2(BASE, extensions=[extension(BACKING_FORMAT, b"x" * 2000)]), BASE, "2000 bytes"),
}


@pytest.mark.parametrize("case", TROUBLED)
def test_says_what_is_wrong_and_keeps_what_could_be_read(case: str) -> None:
    data, backing, problem = TROUBLED[case]
    header = header_of(data)
    assert header.problem is not None
    assert problem in header.problem
    assert header.backing == backing


@given(st.binary(max_size=300), st.integers(0, 120))
def test_no_bytes_make_it_raise(noise: bytes, at: int) -> None:
    data = bytearray(qcow2(BASE, b"raw"))
    data[at : at + len(noise)] = noise
    data[:4] = b"QFI\xfb"
    header_of(bytes(data))
