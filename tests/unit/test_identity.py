"""The id files: are these the directories of last time, is a mount missing, was the ledger lost?"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.cache import by_hand, identity, ledger_file
from basekeeper.cache.identity import Ids, KnownIds, base_file, compare, fresh, instances_file, read, write
from basekeeper.cache.memory import Breaker, Clock, Directories, LastPass
from basekeeper.cache.quarantine import prepare
from basekeeper.cache.settings import Host
from basekeeper.cache.verdicts import Reason
from tests.unit.judging import NOW, ORIGINAL

OURS = Ids("instances id", "base id")
NEITHER = Ids(None, None)
MADE, BEGUN = KnownIds(OURS, made=True), KnownIds(OURS, made=False)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose cache has our directory in it and no ids yet."""
    instances = tmp_path / "instances"
    base = instances / "_base"
    base.mkdir(parents=True)
    prepare(base)
    return Host("node", instances, base, instances / "snapshots", tmp_path / "state", libvirt=None)


NEW, KNOWN, LOST, OTHER = Directories.NEW, Directories.KNOWN, Directories.MEMORY_LOST, Directories.OTHER
CASES: dict[str, tuple[KnownIds | None, Ids, bool, Directories]] = {
    "the first pass of all": (None, NEITHER, False, NEW),
    "killed before any file was made": (BEGUN, NEITHER, False, NEW),
    "killed between the two files": (BEGUN, Ids("instances id", None), False, NEW),
    "killed between the two files, the other one first": (BEGUN, Ids(None, "base id"), False, NEW),
    "killed before the ledger knew of both": (BEGUN, OURS, False, NEW),
    "the directories of last time": (MADE, OURS, False, KNOWN),
    "a ledger that knows nothing of a pass that acted": (None, OURS, False, LOST),
    "a ledger that knows nothing of a pass that began": (None, Ids("instances id", None), False, LOST),
    "a damaged ledger": (None, OURS, True, LOST),
    "a damaged ledger, and nobody ever acted": (None, NEITHER, True, LOST),
    "nothing is mounted": (MADE, NEITHER, False, OTHER),
    "the cache is not mounted": (MADE, Ids("instances id", None), False, OTHER),
    "other instances": (MADE, Ids("another", "base id"), False, OTHER),
    "another cache": (MADE, Ids("instances id", "another"), False, OTHER),
    "other directories before ours were made": (BEGUN, Ids("another", None), False, OTHER),
}


@pytest.mark.parametrize(("known", "found", "lost", "expected"), CASES.values(), ids=CASES)
def test_ids_tell_the_directories_of_last_time_from_others(
    host: Host, known: KnownIds | None, found: Ids, lost: bool, expected: Directories
) -> None:
    directories, message = compare(known, found, host, ledger_lost=lost)
    assert directories is expected
    assert bool(message) == (expected in {LOST, OTHER})


def test_other_directories_are_told_by_the_file_that_differs_and_the_way_out(host: Host) -> None:
    _, missing = compare(MADE, Ids("instances id", None), host, ledger_lost=False)
    _, another = compare(MADE, Ids("another", None), host, ledger_lost=False)
    assert missing.startswith(f"{host.base}/.basekeeper/id is missing, so")
    assert another.startswith(f"{host.instances}/.basekeeper-id carries another id, so")
    assert missing.endswith("mount the right ones, or run `basekeeper adopt` if they are right")


def test_a_lost_ledger_is_told_by_where_it_was(host: Host) -> None:
    _, message = compare(None, OURS, host, ledger_lost=True)
    assert message == f"the ledger in {host.state} was lost or is another one, so every age starts anew from now"


def test_ids_that_are_written_are_read_back(host: Host) -> None:
    ids = fresh()
    write(host, ids)
    assert read(host) == ids
    assert sorted(os.listdir(host.base / ".basekeeper")) == ["id", "quarantine"]


def test_no_two_directories_get_the_same_id() -> None:
    ids = [fresh() for _ in range(9)]
    assert len({one for pair in ids for one in (pair.instances, pair.base)}) == 18


def test_directories_without_ids_carry_none(host: Host) -> None:
    assert read(host) == NEITHER
    assert read(replace(host, instances=host.instances / "gone", base=host.base / "gone")) == NEITHER
    (host.instances / "file").touch()
    assert read(replace(host, instances=host.instances / "file", base=host.instances / "file")) == NEITHER


def test_an_id_that_is_there_is_never_replaced(host: Host) -> None:
    write(host, Ids("instances id", None))
    assert read(host) == Ids("instances id", None)
    write(host, Ids("another", "base id"))
    assert read(host) == OURS


def test_half_made_ids_are_finished(host: Host) -> None:
    instances_file(host).with_name(".basekeeper-id.new").write_text("half")
    base_file(host).with_name("id.new").write_text("half")
    write(host, OURS)
    assert read(host) == OURS
    assert not instances_file(host).with_name(".basekeeper-id.new").exists()


def test_an_empty_id_file_is_no_id_and_is_written_anew(host: Host) -> None:
    instances_file(host).touch()
    base_file(host).write_text("\n")
    assert read(host) == NEITHER
    write(host, OURS)
    assert read(host) == OURS


def test_whatever_lies_in_an_id_file_is_another_id(host: Host) -> None:
    write(host, OURS)
    instances_file(host).write_bytes(b"\xff\0" * 9999)
    assert compare(MADE, read(host), host, ledger_lost=False)[0] is OTHER


def test_an_id_file_that_cannot_be_read_is_told(host: Host) -> None:
    instances_file(host).mkdir()
    with pytest.raises(IsADirectoryError):
        read(host)


def adopted(host: Host) -> tuple[Directories, Ids]:
    by_hand.adopt(host)
    with ledger_file.reading(host.state) as book:
        directories, _ = compare(book.ids(), read(host), host, ledger_lost=book.lost)
    return directories, read(host)


@pytest.mark.parametrize(
    "there", [NEITHER, Ids("another", None), Ids(None, "another"), Ids("another", "too"), Ids("", "")], ids=repr
)
def test_adopted_directories_are_known_and_keep_the_ids_that_they_have(host: Host, there: Ids) -> None:
    write(host, there)
    with ledger_file.writing(host.state) as book:
        book.set_ids(OURS, made=True)
        book.commit()
    directories, ids = adopted(host)
    assert directories is KNOWN
    assert there.instances in {None, "", ids.instances}
    assert there.base in {None, "", ids.base}


def test_a_damaged_id_can_be_adopted(host: Host) -> None:
    instances_file(host).touch()
    base_file(host).write_bytes(b"\xff")
    assert adopted(host)[0] is KNOWN


KNOWN_BEFORE: dict[str, tuple[KnownIds | None, Ids, bool]] = {
    "the same ones": (MADE, OURS, False),
    "new ones": (None, NEITHER, False),
    "other ones": (MADE, Ids("another", None), True),
    "the same ones, by the operator's word": (MADE, Ids(OURS.instances, None), False),
    "ones of which the ledger knew nothing": (None, OURS, True),
}


@pytest.mark.parametrize(("known", "there", "anew"), KNOWN_BEFORE.values(), ids=KNOWN_BEFORE)
def test_ages_start_anew_in_adopted_directories_of_which_nothing_is_remembered(
    host: Host, known: KnownIds | None, there: Ids, anew: bool
) -> None:
    write(host, there)
    with ledger_file.writing(host.state) as book:
        if known is not None:
            book.set_ids(known.ids, made=known.made)
        book.commit()
    by_hand.adopt(host)
    with ledger_file.reading(host.state) as book:
        assert (book.memory(KNOWN, "").ages_since is not None) == anew


def test_adopting_closes_a_breaker_that_concerned_other_directories(host: Host) -> None:
    used = frozenset({ORIGINAL})
    with ledger_file.writing(host.state) as book:
        book.end_pass(Clock(NOW, 1.0, ""), LastPass(used, 9), Breaker(Reason.USERS_VANISHED, NOW, used))
        book.commit()
    by_hand.adopt(host)
    with ledger_file.reading(host.state) as book:
        memory = book.memory(KNOWN, "")
    assert (memory.last_pass, memory.breaker) == (None, None)


def test_ids_are_readable_by_nova_and_by_people(host: Host) -> None:
    write(host, identity.fresh())
    for path in (instances_file(host), base_file(host)):
        assert path.stat().st_mode & 0o444
        assert path.read_text().strip().isalnum()
