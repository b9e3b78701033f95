"""Tells whether these are the directories of last time, by an id file in each.

Device numbers change across boots and a missing mount leaves an empty directory of the same name, so each
directory carries an id that the ledger knows. The ids are in the ledger before the files are made: a process
killed in between finds its own half-made work.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from .durable import own_like, sync_directory, write_new
from .files import FILE, open_quietly
from .memory import Directories
from .quarantine import OWN_DIRECTORY
from .settings import Host

_ID_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of the instances directory and of the cache; None: it carries none."""

    instances: str | None
    base: str | None


@dataclass(frozen=True, slots=True)
class KnownIds:
    """What the ledger knows."""

    ids: Ids
    made: bool
    """The files were made; otherwise a pass was about to make them."""


def instances_file(host: Host) -> Path:
    """The id file of the instances directory."""
    return host.instances / ".basekeeper-id"


def base_file(host: Host) -> Path:
    """The id file of the cache."""
    return host.base / OWN_DIRECTORY / "id"


def read(host: Host) -> Ids:
    """The ids that the directories carry. Raises OSError if one is there and cannot be read."""
    return Ids(_read(instances_file(host)), _read(base_file(host)))


def compare(known: KnownIds | None, found: Ids, host: Host, *, ledger_lost: bool) -> tuple[Directories, str]:
    """Which directories these are, with a sentence where that holds something."""
    if known is None:
        if found == Ids(None, None) and not ledger_lost:
            return Directories.NEW, ""
        return Directories.MEMORY_LOST, (
            f"the ledger in {host.state} was lost or is another one, so every age starts anew from now"
        )
    pairs = (
        (instances_file(host), known.ids.instances, found.instances),
        (base_file(host), known.ids.base, found.base),
    )
    if not known.made and all(there in (None, wanted) for _, wanted, there in pairs):
        return Directories.NEW, ""
    for path, wanted, there in pairs:
        if wanted != there:
            what = "is missing" if there is None else "carries another id"
            return Directories.OTHER, (
                f"{path} {what}, so these may not be the directories of the last pass; "
                "mount the right ones, or run `basekeeper adopt` if they are right"
            )
    return Directories.KNOWN, ""


def carry_another(known: KnownIds | None, found: Ids) -> bool:
    """Whether a directory carries an id that is not the known one; a missing id is none."""
    pairs = () if known is None else ((known.ids.instances, found.instances), (known.ids.base, found.base))
    return any(there not in (None, wanted) for wanted, there in pairs)


def fresh() -> Ids:
    """New ids."""
    return Ids(secrets.token_hex(16), secrets.token_hex(16))


def write(host: Host, ids: Ids) -> None:
    """Make the id files that are missing or empty; one that says something is left alone. Raises OSError."""
    for path, content, like in (
        (instances_file(host), ids.instances, host.instances),
        (base_file(host), ids.base, host.base),
    ):
        if content is None or _read(path) is not None:
            continue
        draft = path.with_name(f"{path.name}.new")
        draft.unlink(missing_ok=True)
        write_new(draft, f"{content}\n".encode())
        own_like(draft, like)
        os.rename(draft, path)
        sync_directory(path.parent)


def _read(path: Path) -> str | None:
    try:
        descriptor = open_quietly(os.fspath(path), FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(descriptor, _ID_LIMIT).decode("ascii", "replace").strip() or None
    finally:
        os.close(descriptor)
