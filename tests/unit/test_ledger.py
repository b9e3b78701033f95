"""The ledger: what one pass writes the next one reads; what cannot be read is lost and says so; reading only reads."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.baselines import Reading
from basekeeper.cache.evidence import Identity
from basekeeper.cache.identity import Ids, KnownIds
from basekeeper.cache.ledger import Accepted, Ledger, LedgerError
from basekeeper.cache.ledger_file import FILE, MIGRATIONS, VERSION, reading, writing
from basekeeper.cache.memory import (
    Acknowledged,
    Breaker,
    Clock,
    Directories,
    LastPass,
    LastSigns,
    Memory,
    Present,
    Removing,
)
from basekeeper.cache.settings import Algorithm
from basekeeper.cache.verdicts import Reason
from basekeeper.cache.wholeness import Baseline, Finding, Flaw, Known
from tests.unit.judging import DAY, NOW, ORIGINAL, OTHER, SWAP, cached

Opener = Callable[[Path], AbstractContextManager[Ledger]]
BOTH: dict[str, Opener] = {"reading": reading, "writing": writing}

IDS = KnownIds(Ids("a" * 32, "b" * 32), made=True)
ODD = b"odd\xff\n\\"
BIG = 2**64 - 1
"""An inode number that fills 64 bits, as some network file systems' do."""
FULL = Memory(
    last_used={ORIGINAL: NOW, ODD: NOW - 1.5},
    used_files={ORIGINAL: BIG},
    last_users={ORIGINAL: ("u/disk", "domain u")},
    ages_since=NOW - 9.25,
    pins={SWAP: NOW + 7},
    acknowledged=(
        Acknowledged("a/disk", Identity(BIG, 2, 2**63), by_hand=True, reason="gone", until=NOW + 1),
        Acknowledged("b/disk", None, by_hand=False),
    ),
    compared={("entry", BIG, 4096): True, ("other entry", 7, 0): False},
    clock=Clock(NOW, 12.5, "boot"),
    last_pass=LastPass(frozenset({ORIGINAL, ODD}), 7),
    present=Present(BIG, frozenset({SWAP, ODD}), NOW - 2.5),
    breaker=Breaker(Reason.USERS_VANISHED, NOW - 3, frozenset({OTHER, ODD})),
    trips={Reason.USERS_VANISHED: NOW - 3.5, Reason.OTHER_DIRECTORY: NOW},
    accepted_homeless=frozenset({"domain 7", "domain 8"}),
    evicting=True,
    removing=Removing(frozenset({ORIGINAL, ODD}), NOW - 4),
    directories=Directories.KNOWN,
    directories_message="said by the ids",
)
BASELINE = Baseline("1:ab", ODD, Algorithm.SHA256, 2**62, "cd" * 16, NOW - 9, NOW - 8.5)
FINDING = Finding("1:ab", ODD, Flaw.UNREADABLE, "it cannot be read", (0, 2**62), NOW - 7, NOW - 6)
READING = Reading("1:ef", SWAP, Algorithm.XXH3, 9 << 20, NOW, 2**63, True, bytes(32), (1, 2), (3,), bytes(48))
RECLAIMED = 7 << 40
TOLD = Accepted({"mode": "Enforce", "pinnedImages": ["\N{SNOWMAN}"], "policy": None}, 12, NOW - 60.5)


RETIRED = {"host-b": LastSigns(NOW, registered=NOW - 1.5), "host-c": LastSigns(NOW - 9, published=NOW - 10.25)}


def fill(book: Ledger) -> None:
    """Write everything that a ledger can hold."""
    book.add_reclaimed(RECLAIMED)
    book.accept(TOLD)
    book.set_ids(IDS.ids, made=IDS.made)
    files = {name: (1, inode) for name, inode in FULL.used_files.items()}
    for name, at in FULL.last_used.items():
        book.seen_in_use({name: FULL.last_users.get(name, ())}, files, at)
    book.restart_ages(FULL.ages_since or 0.0)
    for name, at in FULL.last_used.items():
        book.seen_in_use({name: ()}, files, at)
    book.pin(SWAP, NOW + 7)
    for row in FULL.acknowledged:
        book.acknowledge(row)
    for (entry, inode, size), same in FULL.compared.items():
        book.compared(entry, cached(inode=(1, inode), size=size), same=same)
    assert FULL.present is not None
    book.set_present(FULL.present)
    assert FULL.clock is not None
    book.end_pass(FULL.clock, FULL.last_pass, FULL.breaker)
    book.set_removing(FULL.removing)
    book.contents.take(BASELINE, bytes(range(48)))
    book.contents.found(FINDING)
    book.contents.keep(READING)
    book.set_trips(FULL.trips, FULL.accepted_homeless)
    book.add_reset("UsersVanished-20261124T101500Z")
    book.set_evicting(evicting=FULL.evicting)
    book.set_retired(RETIRED)
    book.commit()


def recalled(book: Ledger) -> Memory:
    return book.memory(FULL.directories, FULL.directories_message)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a full ledger in it."""
    state = tmp_path / "state"
    with writing(state) as book:
        fill(book)
    return state


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_everything_that_was_remembered_is_recalled(state: Path, opened: Opener) -> None:
    with opened(state) as book:
        assert (recalled(book), book.ids(), book.lost) == (FULL, IDS, False)
        assert book.resets() == {"UsersVanished-20261124T101500Z"}
        assert (book.reclaimed(), book.accepted(), book.retired()) == (RECLAIMED, TOLD, RETIRED)
        known = book.contents.known()
        assert (known.baselines, known.findings) == ({"1:ab": BASELINE}, {"1:ab": FINDING})
        assert book.contents.digests("1:ab") == bytes(range(48))
        assert (book.contents.readings(), book.contents.reading("1:ef")) == ((READING,), READING)


def test_contents_of_files_that_are_long_gone_are_forgotten_and_no_others(state: Path) -> None:
    with writing(state) as book:
        for present, before in (({"1:ab", "1:ef"}, NOW + DAY), ((), NOW - DAY)):
            book.contents.forget(present, before)
            assert len(book.contents.known().baselines) == len(book.contents.readings()) == 1
        book.contents.forget((), NOW + DAY)
        assert (book.contents.known(), book.contents.readings()) == (Known(), ())


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_ledger_that_never_was_is_empty_and_not_lost(tmp_path: Path, opened: Opener) -> None:
    with opened(tmp_path / "a" / "b") as book:
        assert (book.memory(Directories.NEW, ""), book.ids(), book.lost) == (Memory(), None, False)
        assert (book.reclaimed(), book.accepted()) == (0, None)


def test_a_pass_without_complete_evidence_leaves_the_last_one_that_had_it(state: Path) -> None:
    with writing(state) as book:
        book.end_pass(Clock(NOW + 1, 13.5, "boot"), None, None)
        memory = recalled(book)
    assert (memory.last_pass, memory.breaker, memory.clock) == (FULL.last_pass, None, Clock(NOW + 1, 13.5, "boot"))


def test_what_was_not_committed_is_not_remembered(state: Path) -> None:
    with writing(state) as book:
        book.seen_in_use({OTHER: ()}, {}, NOW)
    with reading(state) as book:
        assert recalled(book) == FULL


@given(seen=st.lists(st.tuples(st.sampled_from([ORIGINAL, OTHER]), st.floats(0, 2e9)), max_size=8))
def test_when_a_base_was_last_used_never_moves_back(
    tmp_path_factory: pytest.TempPathFactory, seen: list[tuple[bytes, float]]
) -> None:
    with writing(tmp_path_factory.mktemp("state")) as book:
        for name, at in seen:
            book.seen_in_use({name: ()}, {}, at)
        latest = {name: max(at for other, at in seen if other == name) for name, _ in seen}
        assert recalled(book).last_used == latest


def test_a_word_that_came_while_a_pass_was_at_work_is_left_for_the_next_one(state: Path) -> None:
    with writing(state) as book:
        known = book.resets()
        book.add_reset("ClockJumped-20261124T101500Z")
        book.forget_resets(known)
        assert book.resets() == {"ClockJumped-20261124T101500Z"}


def test_the_file_that_a_name_was_when_it_was_last_seen_in_use_is_the_one_that_counts(state: Path) -> None:
    with writing(state) as book:
        assert recalled(book).has_seen_in_use(ORIGINAL, BIG)
        assert not recalled(book).has_seen_in_use(ORIGINAL, 7)
        book.seen_in_use({ORIGINAL: ()}, {ORIGINAL: (1, 7), OTHER: (1, 8)}, NOW + 1)
        assert recalled(book).used_files == {ORIGINAL: 7}


def test_restarted_ages_count_neither_from_before_nor_from_after_that_moment(state: Path) -> None:
    with writing(state) as book:
        book.seen_in_use({OTHER: ()}, {}, NOW + 9e6)
        book.restart_ages(NOW - 1)
        memory = recalled(book)
    assert memory.ages_since == NOW - 1
    assert memory.last_used == {ORIGINAL: NOW - 1, ODD: NOW - 1.5, OTHER: NOW - 1}


def test_only_names_that_are_gone_are_forgotten(state: Path) -> None:
    with writing(state) as book:
        book.forget_used(but=[ODD, SWAP])
        assert recalled(book).last_used == {ODD: NOW - 1.5}


def test_what_was_compared_of_entries_that_are_gone_is_forgotten(state: Path) -> None:
    with writing(state) as book:
        book.forget_compared(but=["entry", "one that was never compared"])
        assert recalled(book).compared == {("entry", BIG, 4096): True}


def test_a_pin_ends_with_the_first_pass_after_its_time(state: Path) -> None:
    with writing(state) as book:
        book.end_pass(Clock(NOW + 7, 1.0, "boot"), None, None)
        assert recalled(book).pins == FULL.pins
        book.end_pass(Clock(NOW + 7.5, 1.0, "boot"), None, None)
        assert recalled(book).pins == {}


def test_a_word_by_hand_and_the_policy_s_stand_beside_each_other(state: Path) -> None:
    with writing(state) as book:
        book.acknowledge(Acknowledged("a/disk", None, by_hand=False))
        book.forget_acknowledged(["a/disk", "b/disk"], by_hand=False)
        assert recalled(book).acknowledged == FULL.acknowledged[:1]


def test_a_later_comparison_replaces_the_earlier_one_of_the_same_entry(state: Path) -> None:
    with writing(state) as book:
        book.compared("entry", cached(inode=(1, 8), size=9), same=False)
        assert recalled(book).compared == {("entry", 8, 9): False, ("other entry", 7, 0): False}


def test_adopting_other_directories_forgets_what_concerned_the_old_ones(state: Path) -> None:
    with writing(state) as book:
        book.forget_last_pass()
        memory = recalled(book)
    assert (memory.last_pass, memory.breaker, memory.evicting) == (None, None, False)
    assert memory.last_used == FULL.last_used


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_ledger_of_a_release_that_kept_no_settings_is_whole(state: Path, opened: Opener) -> None:
    alter(state, "DELETE FROM meta WHERE key IN ('accepted', 'reclaimed')")
    with opened(state) as book:
        assert (recalled(book), book.lost, book.reclaimed(), book.accepted()) == (FULL, False, 0, None)


def test_bytes_that_purges_freed_add_up_from_pass_to_pass(state: Path) -> None:
    for freed in (0, 4096, 1):
        with writing(state) as book:
            book.add_reclaimed(freed)
            book.commit()
    with reading(state) as book:
        assert book.reclaimed() == RECLAIMED + 4097


def test_settings_that_are_forgotten_stay_forgotten(state: Path) -> None:
    with writing(state) as book:
        book.accept(None)
        book.commit()
    with reading(state) as book:
        assert (book.accepted(), book.lost, recalled(book)) == (None, False, FULL)


def test_adopting_other_directories_forgets_neither_settings_nor_sums(state: Path) -> None:
    with writing(state) as book:
        book.forget_last_pass()
        assert (book.reclaimed(), book.accepted()) == (RECLAIMED, TOLD)


# Damage


def damage_by(content: bytes) -> dict[str, bytes]:
    """Some ways in which a disk may hand back a ledger."""
    cut = {f"cut at {at}": content[:at] for at in range(0, len(content), 512)}
    lost = {f"sector {at} lost": content[:at] + bytes(512) + content[at + 512 :] for at in range(0, len(content), 512)}
    other = {"empty": b"", "another file": b"#!/bin/sh\n" * 900, "all zeros": bytes(len(content))}
    return cut | lost | other


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_damaged_ledger_is_lost_or_whole_and_never_ends_a_pass(state: Path, opened: Opener) -> None:
    for how, content in damage_by((state / FILE).read_bytes()).items():
        (state / FILE).write_bytes(content)
        with opened(state) as book:
            whole = (recalled(book), book.ids()) == (FULL, IDS)
            assert book.lost != whole, how


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize("content", [b"", b"SQLite", b"no ledger at all" * 999], ids=["empty", "short", "other"])
def test_what_is_no_ledger_is_lost(tmp_path: Path, content: bytes, opened: Opener) -> None:
    (tmp_path / FILE).write_bytes(content)
    with opened(tmp_path) as book:
        assert (book.lost, book.ids()) == (True, None)


@given(data=st.data())
def test_a_flipped_bit_never_ends_a_pass(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    state = tmp_path_factory.mktemp("state")
    with writing(state) as book:
        fill(book)
    content = bytearray((state / FILE).read_bytes())
    said = [at for at, byte in enumerate(content) if byte]
    content[data.draw(st.sampled_from(said))] ^= data.draw(st.integers(1, 255))
    (state / FILE).write_bytes(content)
    for opened in BOTH.values():
        try:
            with opened(state) as book:
                recalled(book)
                book.ids()
        except LedgerError as error:
            if "newer basekeeper" not in str(error):
                raise


NONSENSE: dict[str, str] = {
    "a value that is no JSON": "UPDATE meta SET value = '{'",
    "a value of another shape": "UPDATE meta SET value = '[]'",
    "a clock that is text": "UPDATE meta SET value = '{\"wall\": \"noon\"}' WHERE key = 'clock'",
    "a reason that nobody knows": "UPDATE meta SET value = replace(value, 'Users', 'Losers')",
    "text that is no UTF-8": "UPDATE acknowledged SET reason = cast(x'ff' AS TEXT)",
    "an identity that is no number": "UPDATE acknowledged SET identity = '[\"a\"]'",
    "a table that is gone": "DROP TABLE pin",
    "a column that is gone": "ALTER TABLE used RENAME COLUMN at TO since",
    "an unknown, older version": "PRAGMA user_version = 0",
    "a sum that is text": "UPDATE meta SET value = '\"12\"' WHERE key = 'reclaimed'",
    "a sum below nothing": "UPDATE meta SET value = '-1' WHERE key = 'reclaimed'",
    "a sum without an end": "UPDATE meta SET value = 'Infinity' WHERE key = 'reclaimed'",
    "settings of another shape": "UPDATE meta SET value = '\"Enforce\"' WHERE key = 'accepted'",
    "settings without a spec": "UPDATE meta SET value = json_remove(value, '$.spec') WHERE key = 'accepted'",
    "settings of no generation": "UPDATE meta SET value = json_set(value, '$.generation', 'x') WHERE key = 'accepted'",
    "settings of no time": "UPDATE meta SET value = json_set(value, '$.confirmed_at', 'x') WHERE key = 'accepted'",
    "settings of no time that is": 'UPDATE meta SET value = \'{"spec": 1, "generation": 1, "confirmed_at": NaN}\' '
    "WHERE key = 'accepted'",
    "settings of no time that a number can hold": "UPDATE meta SET value = "
    "'{\"spec\": 1, \"generation\": 1, \"confirmed_at\": 1' || printf('%0400d', 0) || '}' WHERE key = 'accepted'",
}


def alter(state: Path, command: str) -> None:
    connection = sqlite3.connect(state / FILE)
    connection.execute(command)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize("command", NONSENSE.values(), ids=NONSENSE)
def test_a_sound_file_with_nonsense_in_it_is_lost_too(state: Path, command: str, opened: Opener) -> None:
    alter(state, command)
    with opened(state) as book:
        assert (book.lost, book.ids(), recalled(book).last_used) == (True, None, {})
        assert (book.reclaimed(), book.accepted()) == (0, None)


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_ledger_stays_lost_until_every_age_has_started_anew(state: Path, opened: Opener) -> None:
    (state / FILE).write_bytes(b"damaged")
    with writing(state) as book:  # not by a pass: what a node is told is remembered first
        book.accept(TOLD)
        book.commit()
    with opened(state) as book:
        assert (book.lost, book.accepted()) == (True, TOLD)
    with writing(state) as book:
        book.restart_ages(NOW)
        book.commit()
    with opened(state) as book:
        assert (book.lost, recalled(book).ages_since) == (False, NOW)


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_ledger_that_was_moved_aside_by_a_killed_program_is_lost(state: Path, opened: Opener) -> None:
    (state / FILE).rename(state / f"{FILE}.damaged")
    with opened(state) as book:
        assert (book.lost, book.accepted()) == (True, None)


def test_a_damaged_ledger_is_kept_aside_and_a_new_one_begun(state: Path) -> None:
    (state / FILE).write_bytes(b"damaged")
    with writing(state) as book:
        fill(book)
    assert (state / f"{FILE}.damaged").read_bytes() == b"damaged"
    with writing(state) as book:
        assert (recalled(book), book.lost) == (FULL, False)


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_newer_version_s_ledger_is_refused_and_left_alone(state: Path, opened: Opener) -> None:
    alter(state, f"PRAGMA user_version = {VERSION + 1}")
    before = (state / FILE).read_bytes()
    with pytest.raises(LedgerError, match=rf"written by a newer basekeeper \(version {VERSION + 1}\)"), opened(state):
        pass
    assert (state / FILE).read_bytes() == before
    assert os.listdir(state) == [FILE]


# Ledgers of earlier releases


def write_version(state: Path, version: int) -> None:
    """A ledger as the release that had this version left it, with something in it."""
    (state / FILE).unlink()
    connection = sqlite3.connect(state / FILE)
    for script in MIGRATIONS[:version]:
        connection.executescript(script)
    connection.execute("INSERT INTO used (name, at, users) VALUES (?, ?, ?)", (ORIGINAL, NOW, '["u/disk"]'))
    connection.execute("INSERT INTO meta VALUES ('reclaimed', '4096')")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("version", range(1, VERSION + 1))
@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_an_earlier_release_s_ledger_is_taken_over(state: Path, opened: Opener, version: int) -> None:
    write_version(state, version)
    for _ in range(2):
        with opened(state) as book:
            memory = book.memory(Directories.KNOWN, "")
            assert (memory.last_used, memory.last_users) == ({ORIGINAL: NOW}, {ORIGINAL: ("u/disk",)})
            assert (book.reclaimed(), book.lost) == (4096, False)


# Reading only


def listing(root: Path) -> list[tuple[str, int, int]]:
    """Every path with its stamps, the directory's own included."""
    found = [root, *sorted(root.rglob("*"))]
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in found]


def nothing(state: Path) -> None:
    del state


def holding(content: bytes) -> Callable[[Path], None]:
    def make(state: Path) -> None:
        state.mkdir()
        (state / FILE).write_bytes(content)

    return make


def another_program_s(state: Path) -> None:
    state.mkdir()
    alter(state, "CREATE TABLE t (x)")


LEFT: dict[str, Callable[[Path], None]] = {
    "no state directory": nothing,
    "an empty one": Path.mkdir,
    "an empty file": holding(b""),
    "a damaged ledger": holding(b"damaged"),
    "another program's": another_program_s,
}


@pytest.mark.parametrize("made", LEFT.values(), ids=LEFT)
def test_reading_creates_and_changes_nothing(tmp_path: Path, made: Callable[[Path], None]) -> None:
    made(tmp_path / "state")
    before = listing(tmp_path)
    with reading(tmp_path / "state") as book:
        fill(book)
    assert listing(tmp_path) == before


def test_reading_a_full_ledger_changes_nothing(state: Path) -> None:
    before = listing(state)
    with reading(state) as book:
        recalled(book)
    assert listing(state) == before


def test_a_ledger_is_read_while_another_program_writes_it(state: Path) -> None:
    with writing(state) as book:
        book.seen_in_use({OTHER: ()}, {}, NOW)
        with reading(state) as other:
            assert recalled(other) == FULL


def test_what_a_killed_pass_wrote_in_part_is_taken_back(state: Path) -> None:
    connection = sqlite3.connect(state / FILE)
    connection.execute("PRAGMA cache_size = 1")
    connection.executemany("INSERT INTO used VALUES (?, 1.0, '[]', '1')", [(b"%d" % n,) for n in range(9999)])
    left = {path.name: path.read_bytes() for path in state.iterdir()}
    connection.close()
    for name, content in left.items():
        (state / name).write_bytes(content)
    assert sorted(left) == [FILE, f"{FILE}-journal"]
    with pytest.raises(LedgerError, match="a pass was killed while it wrote it; the next"), reading(state):
        pass
    with writing(state) as book:
        assert (recalled(book), book.lost) == (FULL, False)
    with reading(state) as book:
        assert recalled(book) == FULL


# A state directory that cannot be used


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "state"
    with pytest.raises(LedgerError) as caught, writing(place):
        pass
    wanted = "cannot be used: Not a directory; give a writable directory with --state-dir"
    assert str(caught.value) == f"{place / FILE} {wanted}"


def test_a_state_directory_below_a_file_holds_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with reading(tmp_path / "file" / "state") as book:
        assert (book.lost, book.ids()) == (False, None)


@pytest.mark.parametrize("opened", BOTH.values(), ids=BOTH)
def test_a_directory_in_place_of_the_ledger_is_told(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(LedgerError, match=r"unable to open|disk I/O error|Is a directory"), opened(tmp_path):
        pass
    assert (tmp_path / FILE).is_dir()


def test_a_disk_that_is_full_at_the_end_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(sqlite3.Connection):
        def commit(self) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=FullDisk))
    with writing(state) as book:
        book.seen_in_use({OTHER: ()}, {}, NOW)
        with pytest.raises(LedgerError, match="database or disk is full; is the disk of the state directory full"):
            book.commit()
    monkeypatch.undo()
    with reading(state) as book:
        assert recalled(book) == FULL


def test_a_ledger_that_another_program_holds_is_only_read(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options | {"timeout": 0}))
    other = connect(state / FILE)
    other.execute("BEGIN EXCLUSIVE")
    with reading(state) as book:
        assert recalled(book) == FULL
    with pytest.raises(LedgerError, match="database is locked"), writing(state):
        pass
    other.close()
    assert os.listdir(state) == [FILE]
