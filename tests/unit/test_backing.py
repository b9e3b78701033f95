"""What a backing-file specification names."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.backing import Backing, parse

SHA = b"0123456789abcdef0123456789abcdef01234567"


def tree(value: Any) -> bytes:
    return b"json:" + json.dumps(value).encode()


NAMES = {
    "absolute, as nova writes it": (b"/i/_base/x", Backing((b"/i/_base/x",))),
    "relative, as remotefs volume snapshots write it": (b"base", Backing((b"base",))),
    "a colon after a slash is no protocol": (b"/i/a:b", Backing((b"/i/a:b",))),
    "a colon after a slash, relative": (b"./a:b", Backing((b"./a:b",))),
    "file:": (b"file:/i/x", Backing((b"/i/x",))),
    "file: relative": (b"file:x", Backing((b"x",))),
    "host_device:": (b"host_device:/dev/vg/x", Backing((b"/dev/vg/x",))),
    "bytes that are no text": (b"/i/\xff\xfe", Backing((b"/i/\xff\xfe",))),
    "nothing": (b"", Backing()),
    "nbd": (b"nbd://host/export", Backing(remote_names=(b"export",))),
    "rbd carries a base's name": (b"rbd:pool/" + SHA + b"@snap:id=x", Backing(remote_names=(SHA,))),
    "http": (b"https://host/dir/" + SHA + b"?token=/x", Backing(remote_names=(SHA,))),
    "nested json": (
        tree({"driver": "qcow2", "file": {"driver": "file", "filename": "/x"}}),
        Backing((b"/x",), "qcow2"),
    ),
    "dotted json": (tree({"driver": "raw", "file.driver": "file", "file.filename": "/x"}), Backing((b"/x",), "raw")),
    "json without a format": (tree({"driver": "file", "filename": "/x"}), Backing((b"/x",))),
    "json that only names a file": (tree({"filename": "/x"}), Backing((b"/x",))),
    "json in a list": (
        tree({"driver": "quorum", "children": [{"file.filename": "/a"}, {"file": {"filename": "/b"}}]}),
        Backing((b"/b", b"/a")),
    ),
    "a key twice: both count, neither format does": (
        b'json:{"driver":"raw","driver":"qcow2","file.filename":"/a","file.filename":"/b"}',
        Backing((b"/b", b"/a")),
    ),
    "two formats are no declaration": (
        tree({"driver": "raw", "file": {"driver": "qcow2", "file": {"filename": "/x"}}}),
        Backing((b"/x",)),
    ),
    "a specification in json": (tree({"file": {"filename": "file:/x"}}), Backing((b"/x",))),
    "remote json": (tree({"driver": "raw", "file": {"driver": "rbd", "pool": "p", "image": "i"}}), Backing()),
    "json with an address": (tree({"driver": "https", "url": "https://h/" + SHA.decode()}), Backing((), None, (SHA,))),
    "bytes in json that are no UTF-8": (b'json:{"filename":"/\xff"}', Backing((b"/\xff",))),
}


@pytest.mark.parametrize("case", NAMES)
def test_names(case: str) -> None:
    spec, expected = NAMES[case]
    found = parse(spec)
    assert (sorted(found.paths), found.format, found.remote_names, found.problem) == (
        sorted(expected.paths),
        expected.format,
        expected.remote_names,
        None,
    )


UNKNOWN = {
    "a protocol nobody knows": (b"fat:rw:/dir", "protocol"),
    "a relative name with a colon, which qemu takes for a protocol": (b"a:b", "protocol"),
    "broken json": (b'json:{"file', "cannot be parsed"),
    "json that is no object": (b"json:[1]", "no file name"),
    "json without any file": (b'json:{"driver":"vvfat","dir":"/x"}', "no file name"),
    "json deeper than Python's stack": (b"json:" + b"[" * 1010, "cannot be parsed"),
    "json in json without end": (b'json:{"filename":"json:{\\"filename\\":\\"oops:x\\"}"}', "protocol"),
    "a lone surrogate": (b'json:{"filename":"/\\ud800"}', "cannot be parsed"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_says_that_there_may_be_more(case: str) -> None:
    spec, problem = UNKNOWN[case]
    found = parse(spec).problem
    assert found is not None
    assert problem in found


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(b"json:".__add__)))
def test_no_bytes_make_it_raise(spec: bytes) -> None:
    parse(spec)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50))
def test_a_path_survives_json(name: str) -> None:
    path = "/" + name
    assert parse(tree({"file": {"driver": "file", "filename": path}})).paths == (path.encode(),)
