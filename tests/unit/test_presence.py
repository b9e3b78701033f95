"""Files that another hand removed are missed once, and nothing that basekeeper did, or did not see, counts as that."""

from dataclasses import dataclass
from dataclasses import replace as changed

import pytest

from basekeeper.cache import presence
from basekeeper.cache.evidence import CachedFile, FileType, Inventory, QuarantineEntry
from basekeeper.cache.memory import Directories, Memory, Present
from tests.unit.judging import (
    DAY,
    EPHEMERAL,
    FOREIGN,
    HOUR,
    NOW,
    ORIGINAL,
    OTHER,
    PARTIAL,
    RESIZED,
    SWAP,
    cached,
    removed,
)

BASE, ANOTHER = 7, 8
"""Inode numbers of directories."""


def cache(*names: bytes, directory: int | None = BASE, entries: tuple[QuarantineEntry, ...] = ()) -> Inventory:
    return Inventory(tuple(map(cached, names)), entries, directory=directory)


def memory(*names: bytes, directories: Directories = Directories.KNOWN, ago: float = HOUR) -> Memory:
    return Memory(present=Present(BASE, frozenset(names), NOW - ago), directories=directories)


@dataclass(frozen=True)
class Case:
    """What is remembered and seen, and what of it is missed."""

    memory: Memory
    first: Inventory
    last: Inventory | None = None
    """As the first, if the pass looks once."""
    missed: tuple[bytes, ...] = ()


CASES = {
    "all are there": Case(memory(ORIGINAL, SWAP), cache(ORIGINAL, SWAP)),
    "some are gone": Case(memory(ORIGINAL, RESIZED, SWAP), cache(SWAP), missed=(ORIGINAL, RESIZED)),
    "one is in the quarantine": Case(memory(ORIGINAL), cache(entries=(removed(ORIGINAL),))),
    "one came and went during the pass": Case(memory(), cache(OTHER), cache(), missed=(OTHER,)),
    "one went during the pass": Case(memory(OTHER), cache(OTHER), cache(), missed=(OTHER,)),
    "one went to the quarantine during the pass": Case(memory(), cache(OTHER), cache(entries=(removed(OTHER),))),
    "one came back during the pass": Case(memory(OTHER), cache(entries=(removed(OTHER),)), cache(OTHER)),
    "no pass before": Case(Memory(directories=Directories.KNOWN), cache()),
    "no pass has acted here": Case(memory(ORIGINAL, directories=Directories.NEW), cache(), missed=(ORIGINAL,)),
    "the memory was lost": Case(memory(ORIGINAL, directories=Directories.MEMORY_LOST), cache()),
    "other directories": Case(memory(ORIGINAL, directories=Directories.OTHER), cache()),
    "another _base": Case(memory(ORIGINAL), cache(directory=ANOTHER)),
    "no _base": Case(memory(ORIGINAL), cache(directory=None)),
    "a pass of last week": Case(memory(ORIGINAL, ago=7 * DAY), cache(), missed=(ORIGINAL,)),
    "a pass of long ago": Case(memory(ORIGINAL, ago=7 * DAY + 1), cache()),
    "a pass in the future": Case(memory(ORIGINAL, ago=-1), cache()),
    "_base went during the pass": Case(memory(ORIGINAL), cache(ORIGINAL), cache(directory=None)),
    "_base was replaced during the pass": Case(memory(ORIGINAL), cache(ORIGINAL), cache(directory=ANOTHER)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_missed(case: Case) -> None:
    assert presence.missed(case.memory, case.first, case.last or case.first, NOW) == case.missed


def test_only_finished_files_are_remembered() -> None:
    files: list[CachedFile] = [cached(name) for name in (ORIGINAL, RESIZED, SWAP, EPHEMERAL, PARTIAL, FOREIGN)]
    files.append(changed(cached(OTHER), type=FileType.DIRECTORY))
    found = presence.of(Inventory(tuple(files), directory=BASE), NOW)
    assert found == Present(BASE, frozenset({ORIGINAL, RESIZED, SWAP, EPHEMERAL}), NOW)


def test_without_a_cache_nothing_is_remembered() -> None:
    assert presence.of(cache(directory=None), NOW) is None


@pytest.mark.parametrize(
    ("names", "gone", "shown"),
    {
        "one": ([b"a"], "1 finished file is", "a"),
        "many": ([b"a\n", *map(str.encode, "bcdefg")], "7 finished files are", "a\\x0a, b, c, d, e and 2 more"),
    }.values(),
)
def test_a_note_names_a_few_of_them(names: list[bytes], gone: str, shown: str) -> None:
    said = f"{gone} gone, and basekeeper did not remove what was there: {shown}; does nova's manager run beside it?"
    assert presence.note(names).message == said
