"""What a backing-file specification means: the local files that it names.

qemu accepts far more than a path there: protocol prefixes and whole option trees as `json:`. nova itself
writes absolute paths, but block jobs, operators and other tools write the rest, and a base that is missed
here is a base removed under a running disk (nova's own manager loses `json:` users that way).

The rule for prefixes is `path_has_protocol` in qemu's `block.c`.
"""

import json
from dataclasses import dataclass
from typing import Any

FORMATS = frozenset(
    {"raw", "qcow2", "qcow", "qed", "vmdk", "luks", "vdi", "vpc", "vhdx", "parallels", "bochs", "cloop", "dmg"}
)
"""qemu's drivers that say how a file's bytes are laid out, as opposed to where they come from."""

_LOCAL = frozenset({b"file", b"host_device", b"host_cdrom"})
_REMOTE_WORDS = (
    "nbd rbd http https ftp ftps tftp iscsi iser ssh sftp gluster nfs sheepdog vxhs nvme null-co null-aio "
    "nbd+tcp nbd+unix nbd+vsock gluster+tcp gluster+unix gluster+rdma sheepdog+tcp sheepdog+unix"
)
_REMOTE = frozenset(_REMOTE_WORDS.encode().split())
_REMOTE_DRIVERS = frozenset(_REMOTE_WORDS.split())
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Backing:
    """What a specification names."""

    paths: tuple[bytes, ...] = ()
    """Local files; a relative one is relative to the directory of the file that names it."""
    format: str | None = None
    """The format that the specification itself declares (the driver of a `json:` tree)."""
    remote_names: tuple[bytes, ...] = ()
    """Last components of remote addresses: no local file, but they may carry a base's name."""
    problem: str | None = None
    """Why it may name more than this: the end of a sentence that begins with the file's name."""


def parse(spec: bytes) -> Backing:
    """Say what `spec`, as stored in a header, names. Never raises."""
    return _parse(spec, _DEEPEST)


def _parse(spec: bytes, depth: int) -> Backing:
    if not spec:
        return Backing()
    protocol, colon, rest = spec.partition(b":")
    if not colon or b"/" in protocol:
        return Backing((spec,))
    if protocol == b"json":
        return _parse_json(rest, depth)
    if protocol in _LOCAL:
        return Backing((rest,) if rest else ())
    if protocol in _REMOTE:
        return Backing(remote_names=_last_component(rest))
    return Backing(problem="names a backing file by a protocol that basekeeper does not know")


def _parse_json(text: bytes, depth: int) -> Backing:
    """Collect every file name in the tree, whatever drivers stand around it."""
    unreadable = Backing(problem="names a backing file in json that cannot be parsed")
    if depth == 0:
        return unreadable
    try:
        # Pairs, not dictionaries: of a key that occurs twice, both values count.
        tree = json.loads(text.decode("utf-8", "surrogateescape"), object_pairs_hook=_Pairs)
        leaves = _leaves(tree)
        files = [_parse(_encode(value), depth - 1) for key, value in leaves if key in ("filename", "url")]
    except (ValueError, RecursionError):
        return unreadable
    drivers = [value for key, value in leaves if key == "driver"]
    if not isinstance(tree, _Pairs) or not (files or _REMOTE_DRIVERS.intersection(drivers)):
        return Backing(problem="names a backing file in json in which basekeeper finds no file name")
    formats = {driver for driver in drivers if driver in FORMATS}
    paths = tuple(dict.fromkeys(path for file in files for path in file.paths))
    return Backing(
        paths,
        # With several files or several formats it is not said which belongs to which.
        formats.pop() if len(formats) == 1 and len(paths) == 1 else None,
        tuple(name for file in files for name in file.remote_names),
        next((file.problem for file in files if file.problem), None),
    )


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as the list of its members."""


def _leaves(tree: Any) -> list[tuple[str, str]]:
    """Every string member of the tree, with the last component of its key (`file.filename`: `filename`)."""
    leaves: list[tuple[str, str]] = []
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, _Pairs):
            waiting.extend(value)
        elif isinstance(value, list):
            waiting.extend((key, item) for item in value)
        elif isinstance(value, str):
            leaves.append((key.rpartition(".")[2], value))
    return leaves


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").partition(b"\0")[0]


def _last_component(address: bytes) -> tuple[bytes, ...]:
    """`//host/volume/name?option` and `pool/name@snapshot:option`: the name."""
    name = address.partition(b"?")[0].rpartition(b"/")[2]
    for end in (b"@", b":", b"#"):
        name = name.partition(end)[0]
    return (name,) if name else ()
