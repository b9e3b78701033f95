"""The quarantine: where removed files wait, whole, until their time is over.

It lies in `_base/.basekeeper/quarantine`, on the same file system, so that a removal is one atomic rename; nova
ignores directories there. Each entry is a directory that holds the file under its own name and a side-car,
`entry.json`, that was synced before the file came: nothing depends on the ledger. A killed process leaves at
most an entry without its file, which `sweep` clears away.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from .durable import own_like, rename_no_replace, sync_directory, write_new
from .evidence import CachedFile, Inode, Note, QuarantineEntry
from .files import DIRECTORY, FILE, list_quietly, open_quietly
from .moments import compact
from .names import Kind, Name, display, from_display, parse

OWN_DIRECTORY = ".basekeeper"
SIDECAR = "entry.json"
_SIDECAR_LIMIT = 1 << 20
_END_OF_TIME = 253402300800.0
"""The year 10000, beyond which no date can be shown."""


class Occupied(Exception):
    """Another file has the name that a removed file should get back; nothing was changed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} was not restored: another file has that name in the cache; move it away first")


def directory(base: Path) -> Path:
    """Where the quarantine of the cache at `base` is."""
    return base / OWN_DIRECTORY / "quarantine"


def file_of(base: Path, entry: QuarantineEntry) -> Path:
    """Where an entry's file lies."""
    return directory(base) / entry.id / os.fsdecode(entry.name.raw)


def read(base: Path) -> tuple[tuple[QuarantineEntry, ...], tuple[Note, ...]]:
    """All entries that hold a file, and notes on what is there and cannot be understood. Changes nothing."""
    entries: list[QuarantineEntry] = []
    notes: list[Note] = []
    for place in _places(directory(base)):
        try:
            if entry := _read_entry(place):
                entries.append(entry)
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            salvaged = _salvage(place)
            entries += [salvaged] if salvaged else []
            rest = "its file goes back when it is needed or by hand" if salvaged else "it is left as it is"
            shown = f"{OWN_DIRECTORY}/quarantine/{display(os.fsencode(place.name))}"
            message = f"the entry cannot be understood, {rest}: {_why(error)}"
            notes.append(Note("QuarantineEntryUnreadable", message, shown))
    return tuple(entries), tuple(notes)


def put(
    base: Path,
    file: CachedFile,
    *,
    now: float,
    due_at: float,
    reason: str,
    users: tuple[str, ...],
    round_number: int | None = None,
) -> QuarantineEntry:
    """Move a file out of the cache into a new entry; atomic, and durable but for the cache's own directory.

    The caller holds nova's lock, has looked, and syncs `base` when its third look is content. Raises OSError;
    then the file is where it was.
    """
    name = os.fsdecode(file.name.raw)
    place = directory(base) / f"{name}.{compact(now)}.{file.inode[1]}.{secrets.token_hex(2)}"
    place.mkdir(mode=0o700)
    own_like(place, base)
    entry = QuarantineEntry(
        id=place.name,
        name=file.name,
        inode=file.inode,
        size=file.size,
        allocated=file.allocated,
        links=file.links,
        mtime=file.mtime,
        removed_at=now,
        due_at=due_at,
        reason=reason,
        last_users=users,
        round=round_number,
    )
    try:
        write_new(place / SIDECAR, json.dumps(_document(entry), indent=1).encode())
        own_like(place / SIDECAR, base)
        sync_directory(place)
        sync_directory(place.parent)
        rename_no_replace(base / name, place / name)
    except OSError:
        _clear(place)
        raise
    return entry


def prepare(base: Path) -> None:
    """Make our own directory and the quarantine in it, owned like the cache. Raises OSError."""
    for place in (base / OWN_DIRECTORY, directory(base)):
        if not place.is_dir():
            place.mkdir(mode=0o755)
            sync_directory(place.parent)
        own_like(place, base)  # one that was there too: whoever made it may have been killed before this


def settle(base: Path, entry: QuarantineEntry) -> None:
    """Make a `put` durable on both sides."""
    sync_directory(directory(base) / entry.id)
    sync_directory(base)


def give_back(base: Path, entry: QuarantineEntry) -> None:
    """Put an entry's file back under its name. Raises Occupied if another file has it; never replaces one."""
    source = file_of(base, entry)
    try:
        rename_no_replace(source, base / source.name)
    except FileExistsError as error:
        raise Occupied(str(entry.name)) from error
    sync_directory(base)
    _clear(source.parent)


def purge(base: Path, entry: QuarantineEntry) -> None:
    """Remove an entry's file for good, then the entry. Raises OSError."""
    place = file_of(base, entry)
    place.unlink()
    sync_directory(place.parent)
    _clear(place.parent)


def sweep(base: Path) -> None:
    """Clear away entries without a file: what a killed process left before its rename or after its end."""
    for place in _places(directory(base)):
        _clear(place)


def _clear(place: Path) -> None:
    """Remove an entry that holds no file any more. Whatever cannot be removed waits for the next sweep."""
    try:
        if set(os.listdir(place)) <= {SIDECAR}:
            (place / SIDECAR).unlink(missing_ok=True)
            place.rmdir()
    except OSError:
        return


def _places(root: Path) -> Iterator[Path]:
    try:
        descriptor = open_quietly(os.fspath(root), DIRECTORY)
    except FileNotFoundError:
        return
    try:
        with os.scandir(descriptor) as found:
            names = sorted(item.name for item in found if item.is_dir(follow_symlinks=False))
    finally:
        os.close(descriptor)
    yield from (root / name for name in names)


def _document(entry: QuarantineEntry) -> dict[str, object]:
    return {
        "version": 1,
        "name": display(entry.name.raw),
        "inode": entry.inode[1],
        "size": entry.size,
        "mtime": entry.mtime,
        "removedAt": entry.removed_at,
        "dueAt": entry.due_at,
        "reason": entry.reason,
        "lastUsers": list(entry.last_users),
        "round": entry.round,
    }


def _read_entry(place: Path) -> QuarantineEntry | None:
    """The entry at `place`, or None while it holds no file. Sizes and inode come from the file itself."""
    if not any(name != SIDECAR for name in list_quietly(place)):
        return None
    fd = open_quietly(os.fspath(place / SIDECAR), FILE | os.O_NOFOLLOW)
    try:
        content = os.read(fd, _SIDECAR_LIMIT)
    finally:
        os.close(fd)
    document = json.loads(content)
    if document["version"] != 1:
        raise ValueError(f"its side-car has version {document['version']!r}, this program knows version 1")
    name = from_display(str(document["name"]))
    if b"/" in name or name in (b"", b".", b"..", SIDECAR.encode()):
        raise ValueError("its side-car names no file of the cache")
    removed_at, due_at = float(document["removedAt"]), float(document["dueAt"])
    if not 0 <= removed_at <= due_at < _END_OF_TIME:
        raise ValueError("its side-car has no sound times")
    found = os.lstat(place / os.fsdecode(name))
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{display(name)} in it is no regular file")
    return _entry(
        place.name,
        parse(name),
        found,
        removed_at=removed_at,
        due_at=due_at,
        reason=str(document["reason"]),
        last_users=tuple(str(user) for user in document["lastUsers"]),
        round_number=None if document.get("round") is None else int(document["round"]),
    )


def _entry(
    entry_id: str,
    name: Name,
    found: os.stat_result,
    *,
    removed_at: float,
    due_at: float,
    reason: str = "",
    last_users: tuple[str, ...] = (),
    round_number: int | None = None,
) -> QuarantineEntry:
    return QuarantineEntry(
        id=entry_id,
        name=name,
        inode=inode_of(found),
        size=found.st_size,
        allocated=found.st_blocks * 512,
        links=found.st_nlink,
        mtime=found.st_mtime,
        removed_at=removed_at,
        due_at=due_at,
        reason=reason,
        last_users=last_users,
        round=round_number,
    )


def _salvage(place: Path) -> QuarantineEntry | None:
    """What an entry without a sound side-car still says: the one file in it has its own name. Never due by itself."""
    if not place.name.isprintable():
        return None  # a name that cannot be shown cannot be ordered about either
    try:
        names = [name for name in list_quietly(place) if name != SIDECAR]
        if len(names) != 1 or (name := parse(os.fsencode(names[0]))).kind is Kind.FOREIGN:
            return None
        found, removed_at = os.lstat(place / names[0]), os.lstat(place).st_mtime
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return _entry(place.name, name, found, removed_at=removed_at, due_at=_END_OF_TIME - 1)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"its side-car has no {error}" if isinstance(error, KeyError) else str(error)


def inode_of(found: os.stat_result) -> Inode:
    """The identity of a file from its stat."""
    return found.st_dev, found.st_ino
