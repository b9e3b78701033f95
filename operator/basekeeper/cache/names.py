"""The grammar of `_base`: the one place that knows every name that nova ever wrote there.

A name decides whether basekeeper may ever touch a file, so the grammar is closed: what it does not
recognise is Foreign and is left alone. Names are bytes, because nothing makes a file system hold text.

The forms and their history come from nova's sources (`virt/libvirt/imagecache.py`, `imagebackend.py`,
`driver.py`, Essex to 2026): an image's base is the SHA-1 of its id; a resized copy carries `_<GB>` (Essex,
Folsom), `_<bytes>` (tests, regenerated overlays) or `_sm` (before Essex).
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a file in `_base` is, by its name alone."""

    ORIGINAL = "Original"
    RESIZED = "Resized"
    SWAP = "Swap"
    EPHEMERAL = "Ephemeral"
    PARTIAL = "Partial"
    FOREIGN = "Foreign"


FINAL_KINDS = frozenset({Kind.ORIGINAL, Kind.RESIZED, Kind.SWAP, Kind.EPHEMERAL})
"""The kinds that a disk can be built on; a Partial is a leftover on the way to one of them."""

_HASH = rb"[0-9a-f]{40}"
_IMAGE = rb"(?P<image>" + _HASH + rb")(?P<suffix>_(?:[0-9]{1,20}|sm))?"
# Operating system types that nova put into ephemeral names before it hashed the mkfs command. The glance
# property is free text, but a closed list keeps `ephemeral_20_backup` of somebody's own out of our reach.
_OS_TYPE = rb"(?:None|default|linux|windows)"

_IMAGE_NAME = re.compile(_IMAGE)
# `swap_512_512` is what nova's legacy code makes of a lost `swap_512`: it takes 512 for a size in GB.
_SWAP_NAME = re.compile(rb"swap_[0-9]{1,20}(?:_[0-9]{1,20})?")
_EPHEMERAL_NAME = re.compile(
    rb"ephemeral_[0-9]{1,20}_(?:[0-9a-f]{7}|" + _OS_TYPE + rb")"
    rb"|ephemeral_[0-9]{1,20}_[0-9]{1,20}_" + _OS_TYPE
)
_LEFTOVER = re.compile(rb"(?P<final>" + _HASH + rb"(?:_(?:[0-9]{1,20}|sm))?)\.(?:part|converted|sha1|info)")
# rsync writes `.<name>.XXXXXX` and leaves it when it is killed (nova copies bases between hosts with it).
_RSYNC = re.compile(rb"\.(?P<final>" + _HASH + rb"(?:_(?:[0-9]{1,20}|sm))?)\.[A-Za-z0-9]{6}")
# The Linux NFS client's silly rename: the file id and a counter in hexadecimal.
_NFS = re.compile(rb"\.nfs[0-9a-f]{8,32}")


@dataclass(frozen=True, slots=True)
class Name:
    """A file name in `_base` and what the grammar makes of it."""

    raw: bytes
    kind: Kind
    image: bytes | None = None
    """The 40 hexadecimal digits of the image's hash, for originals, resized copies and their partials."""
    leftover_of: bytes | None = None
    """For a Partial: the final name that it was on the way to; nova's lock carries that name."""
    held_by_nfs: bool = False
    """An NFS client keeps this unlinked file for a process that still has it open."""

    @property
    def is_final(self) -> bool:
        """Whether a disk can be built on a file of this name."""
        return self.kind in FINAL_KINDS

    @property
    def lock_name(self) -> bytes:
        """The name that nova's lock for this file carries (`nova-<name>` in `locks/`)."""
        return self.leftover_of if self.leftover_of is not None else self.raw

    def __str__(self) -> str:
        return display(self.raw)


def parse(raw: bytes) -> Name:
    """Say what kind of file `raw`, one directory entry's bytes, names."""
    if match := _IMAGE_NAME.fullmatch(raw):
        return Name(raw, Kind.RESIZED if match["suffix"] else Kind.ORIGINAL, image=match["image"])
    if _SWAP_NAME.fullmatch(raw):
        return Name(raw, Kind.SWAP)
    if _EPHEMERAL_NAME.fullmatch(raw):
        return Name(raw, Kind.EPHEMERAL)
    if match := _LEFTOVER.fullmatch(raw) or _RSYNC.fullmatch(raw):
        final = match["final"]
        return Name(raw, Kind.PARTIAL, image=final[:40], leftover_of=final)
    if _NFS.fullmatch(raw):
        return Name(raw, Kind.PARTIAL, held_by_nfs=True)
    return Name(raw, Kind.FOREIGN)


def is_final(raw: bytes) -> bool:
    """Whether `raw` is a name that a disk can be built on."""
    return parse(raw).is_final


def original_of(image_id: str) -> bytes:
    """The name of the original base of the image with this id (`get_cache_fname` in nova)."""
    return hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest().encode()


def display(raw: bytes) -> str:
    r"""Bytes as text for people and JSON: what is no UTF-8, control characters and `\` appear as `\xNN`."""
    text = raw.decode("utf-8", "backslashreplace") if b"\\" not in raw else _escape_backslashes(raw)
    # A pass shows thousands of paths, and next to none has anything to escape.
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape_backslashes(raw: bytes) -> str:
    return raw.replace(b"\\", b"\\x5c").decode("utf-8", "backslashreplace")


def _escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def from_display(text: str) -> bytes:
    """The bytes that `display` showed as `text`."""
    raw = text.encode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), raw)
