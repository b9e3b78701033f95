"""Verification on real files: what is damage and what is not, what interrupts it, and what a baseline needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from basekeeper.cache.integrity import BLOCK
from basekeeper.cache.locks import nova_lock
from basekeeper.cache.settings import Algorithm
from basekeeper.cache.verification import Outcome
from tests.unit.contents import GRACE, LONG_AGO, NAME, Cache, after, block, make, once

CONTENT = block(1) + block(2) + block(3, 100_001)
"""Three blocks, the last of a length that is no multiple of anything."""

_WRITER = "import sys; f = open(sys.argv[1], 'r+b'); print(flush=True); sys.stdin.read()"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with one original, which has a baseline."""
    found = make(tmp_path)
    found.write(CONTENT)
    assert found.outcome() is Outcome.BASELINED
    return found


def test_a_whole_file_is_whole_each_time(cache: Cache) -> None:
    first = cache.verify()
    assert (first.outcome, first.read, first.root) == (Outcome.WHOLE, len(CONTENT), cache.verify().root)
    assert cache.known().findings == {}


DAMAGE: dict[str, tuple[int, bytes, tuple[int, ...]]] = {
    "a flipped bit in the first block": (17, b"\xfe", (0,)),
    "the last byte": (len(CONTENT) - 1, b"\xff", (2 * BLOCK,)),
    "the first byte of a block": (BLOCK, b"\xff", (BLOCK,)),
    "bytes across two blocks": (BLOCK - 1, b"\xff\xff", (0, BLOCK)),
    "zeros for content": (BLOCK, bytes(BLOCK), (BLOCK,)),
}


@pytest.mark.parametrize(("offset", "content", "where"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_corrupt_and_says_where(cache: Cache, offset: int, content: bytes, where: tuple[int, ...]) -> None:
    cache.change(offset, content)
    result = cache.verify()
    assert (result.outcome, result.is_news) == (Outcome.CORRUPT, True)
    assert cache.finding().offsets == where
    assert f"at byte {where[0]}" in cache.finding().message


def test_a_finding_is_news_once_and_keeps_its_time(cache: Cache) -> None:
    cache.change(0, b"\xff")
    first = cache.verify().finding
    again = cache.verify()
    assert first is not None
    assert not again.is_news
    assert cache.finding().found_at == first.found_at < cache.finding().checked_at


def test_a_finding_is_over_when_the_file_is_as_it_was(cache: Cache) -> None:
    cache.change(0, b"\xff")
    cache.verify()
    cache.change(0, CONTENT[:1])
    assert cache.outcome() is Outcome.WHOLE
    assert cache.known().findings == {}


@pytest.mark.parametrize(("size", "where"), [(BLOCK + 1, BLOCK + 1), (0, 0), (len(CONTENT) + 1, len(CONTENT))])
def test_another_size_is_corrupt_from_where_it_begins(cache: Cache, size: int, where: int) -> None:
    os.truncate(cache.path, size)
    assert cache.outcome() is Outcome.CORRUPT
    assert cache.finding().offsets == (where,)


def test_fifty_touches_and_chowns_are_no_change(cache: Cache) -> None:
    for turn in range(50):
        cache.touch()
        os.chown(cache.path, 1000 + turn, 1000)
    assert cache.outcome() is Outcome.WHOLE


def test_a_file_fetched_anew_gets_a_baseline_of_its_own(cache: Cache) -> None:
    before = cache.verify().root
    inode = cache.path.stat().st_ino
    cache.path.unlink()
    for _ in range(100):  # until the new file has the number of the old one, as file systems like to give it
        cache.write(block(9))
        if cache.path.stat().st_ino == inode:
            break
    result = cache.verify()
    assert result.outcome is Outcome.BASELINED
    assert result.root != before
    assert cache.known().findings == {}


def test_a_sparse_copy_in_its_place_has_the_same_digest(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(block(1) + bytes(3 * BLOCK) + block(2, 5000))
    full = cache.verify()
    copy = cache.path.with_name("copy")
    subprocess.run(["cp", "--sparse=always", cache.path, copy], check=True)
    copy.rename(cache.path)
    cache.touch(age=LONG_AGO)
    sparse = cache.verify()
    assert (full.outcome, sparse.outcome) == (Outcome.BASELINED, Outcome.BASELINED)
    assert sparse.root == full.root
    assert (full.read, sparse.read) == (4 * BLOCK + 5000, BLOCK + 5000)


def test_content_that_became_a_hole_is_corrupt(cache: Cache) -> None:
    subprocess.run(["fallocate", "--punch-hole", "-o", str(BLOCK), "-l", str(BLOCK), cache.path], check=True)
    assert cache.outcome() is Outcome.CORRUPT
    assert cache.finding().offsets == (BLOCK,)


def test_zeros_that_became_a_hole_are_no_change(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(block(1) + bytes(BLOCK) + block(2))
    cache.verify()
    subprocess.run(["fallocate", "--dig-holes", cache.path], check=True)
    assert cache.outcome() is Outcome.WHOLE


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_files_of_every_size_are_verified_to_their_end(tmp_path: Path, size: int) -> None:
    cache = make(tmp_path)
    cache.write(block(7, size))
    assert (cache.outcome(), cache.outcome()) == (Outcome.BASELINED, Outcome.WHOLE)
    if size:
        cache.change(size - 1, b"\xfe")
        assert cache.outcome() is Outcome.CORRUPT


def test_another_algorithm_verifies_with_the_old_one_first(cache: Cache) -> None:
    cache.change(BLOCK, b"\xfe")
    assert cache.outcome(algorithm=Algorithm.SHA256) is Outcome.CORRUPT
    cache.change(BLOCK, CONTENT[BLOCK : BLOCK + 1])
    moved = cache.verify(algorithm=Algorithm.SHA256)
    assert moved.outcome is Outcome.WHOLE
    assert str(moved.root).startswith(f"SHA256:{len(CONTENT)}:")
    cache.change(0, b"\xfe")
    assert cache.outcome(algorithm=Algorithm.SHA256) is Outcome.CORRUPT


# --- what a baseline needs -----------------------------------------------------------------------------------------


def test_a_young_file_gets_no_baseline_yet(tmp_path: Path) -> None:
    cache = make(tmp_path, grace=GRACE)
    cache.write(CONTENT)  # its ctime is of now
    result = cache.verify()
    assert result.outcome is Outcome.PENDING
    assert "a moment ago" in result.message
    assert cache.known().baselines == {}


def test_a_file_whose_nova_lock_is_held_gets_no_baseline(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    with nova_lock(cache.host.locks, NAME.encode()):
        result = cache.verify()
    assert (result.outcome, cache.known().baselines) == (Outcome.PENDING, {})
    assert "nova's lock" in result.message
    assert cache.outcome() is Outcome.BASELINED


def test_a_file_that_another_process_may_write_gets_no_baseline(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; f = open(sys.argv[1], 'r+b'); print(flush=True); sys.stdin.read()",
            cache.path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        result = cache.verify()
        writer.communicate()
    assert (result.outcome, cache.known().baselines) == (Outcome.PENDING, {})
    assert "open for writing" in result.message


def test_a_reader_of_a_file_does_not_keep_it_from_its_baseline(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    with subprocess.Popen(["tail", "-f", cache.path], stdout=subprocess.DEVNULL) as reader:
        assert cache.outcome() is Outcome.BASELINED
        reader.kill()


def test_a_touch_while_it_is_read_takes_a_second_equal_reading(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    verifier = cache.verifier(stop=once(cache.touch))
    assert verifier.verify(NAME.encode()).outcome is Outcome.PENDING
    assert cache.known().baselines == {}
    verifier = cache.verifier(stop=once(cache.touch))
    assert verifier.verify(NAME.encode()).outcome is Outcome.BASELINED


def test_a_write_while_it_is_read_makes_no_baseline_of_two_contents(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    rest = iter(range(1, 100))

    def write_behind() -> None:
        with cache.path.open("r+b") as stream:
            stream.write(block(90 + next(rest), 64))

    for _ in range(3):
        verifier = cache.verifier(stop=once(write_behind, blocks=2))
        assert verifier.verify(NAME.encode()).outcome is Outcome.PENDING
        assert cache.known().baselines == {}
    assert cache.outcome() is Outcome.BASELINED
    assert cache.outcome() is Outcome.WHOLE


def test_a_file_that_grows_while_it_is_read_makes_no_baseline(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)

    def grow() -> None:
        with cache.path.open("ab") as stream:
            stream.write(b"more")

    verifier = cache.verifier(stop=once(grow))
    result = verifier.verify(NAME.encode())
    assert (result.outcome, cache.known().baselines) == (Outcome.PENDING, {})
    assert "changed while it was read" in result.message


@pytest.mark.parametrize("baselined", [False, True])
def test_a_file_that_is_replaced_or_cut_while_it_is_read_is_left_for_later(tmp_path: Path, baselined: bool) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    if baselined:
        cache.verify()
    for disturb in (lambda: cache.write(CONTENT), lambda: os.truncate(cache.path, BLOCK + 5)):
        verifier = cache.verifier(stop=once(disturb))
        assert verifier.verify(NAME.encode()).outcome is Outcome.PENDING
        assert cache.known().findings == {}
    assert len(cache.known().baselines) == baselined


def test_a_file_that_is_touched_all_the_time_gets_its_baseline_from_two_equal_readings(tmp_path: Path) -> None:
    cache = make(tmp_path, grace=0.3)
    cache.write(CONTENT)
    outcomes = []
    for _ in range(6):
        cache.touch()
        outcomes.append(cache.outcome())
        subprocess.run(["sleep", "0.32"], check=True)
    assert Outcome.BASELINED in outcomes
    assert outcomes[:2] == [Outcome.PENDING, Outcome.PENDING]


# --- interruptions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
@pytest.mark.parametrize("baselined", [False, True])
def test_what_was_read_before_an_interruption_is_not_read_again(tmp_path: Path, blocks: int, baselined: bool) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    if baselined:
        cache.verify()
    read: list[tuple[int, int]] = []
    interrupted = cache.verifier(stop=after(blocks), told=read).verify(NAME.encode())
    assert interrupted.outcome is (Outcome.INTERRUPTED if blocks < 3 else ended(baselined))
    assert len(cache.known().baselines) == (baselined or blocks == 3)
    if blocks < 3:
        finished = cache.verifier(told=read).verify(NAME.encode())
        assert finished.outcome is ended(baselined)
    assert [done for done, _ in read] == [BLOCK, 2 * BLOCK, len(CONTENT)]
    cache.change(0, b"\xfe")
    assert cache.outcome() is Outcome.CORRUPT


def test_damage_before_an_interruption_is_not_forgotten(cache: Cache) -> None:
    cache.change(0, b"\xfe")
    assert cache.verifier(stop=after(2)).verify(NAME.encode()).outcome is Outcome.INTERRUPTED
    assert cache.known().findings == {}
    assert cache.outcome() is Outcome.CORRUPT
    assert cache.finding().offsets == (0,)


def test_a_reading_of_a_file_that_was_fetched_anew_meanwhile_begins_anew(cache: Cache) -> None:
    assert cache.verifier(stop=after(2)).verify(NAME.encode()).outcome is Outcome.INTERRUPTED
    cache.write(block(8) * 3)
    read: list[tuple[int, int]] = []
    assert cache.verifier(told=read).verify(NAME.encode()).outcome is Outcome.BASELINED
    assert len(read) == 3


def test_a_reading_that_began_too_long_ago_begins_anew(cache: Cache) -> None:
    assert cache.verifier(stop=after(2)).verify(NAME.encode()).outcome is Outcome.INTERRUPTED
    read: list[tuple[int, int]] = []
    cache.verifier(told=read, interval=0.0).verify(NAME.encode())
    assert len(read) == 3


def test_a_file_written_to_between_two_halves_of_its_first_reading_gets_no_baseline(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    assert cache.verifier(stop=after(2)).verify(NAME.encode()).outcome is Outcome.INTERRUPTED
    with cache.path.open("r+b") as stream:
        stream.write(b"other")
    assert cache.outcome() is Outcome.PENDING
    assert cache.known().baselines == {}


def ended(baselined: bool) -> Outcome:
    return Outcome.WHOLE if baselined else Outcome.BASELINED


# --- what cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gone", "directory", "link"])
def test_what_is_no_regular_file_is_passed_over(tmp_path: Path, name: str) -> None:
    cache = make(tmp_path)
    (cache.host.base / "directory").mkdir()
    (cache.host.base / "link").symlink_to("directory")
    assert cache.outcome(name) is Outcome.GONE


# --- what is due ---------------------------------------------------------------------------------------------------


def test_all_that_has_no_baseline_is_due_at_once_and_then_nothing_is(tmp_path: Path) -> None:
    cache = make(tmp_path)
    names = [NAME, f"{NAME}_20", "swap_512", "ephemeral_20_0706d66"]
    for number, name in enumerate(names):
        cache.write(block(number, 5000), name=name)
    for name in (f"{NAME}.part", "notes.txt", "swap_512.img"):
        cache.write(b"not a base", name=name)
    found = {result.name.decode(): result.outcome for result in cache.verifier().due()}
    assert found == dict.fromkeys(names, Outcome.BASELINED)
    assert list(cache.verifier().due()) == []
    assert 0 < cache.verifier().wait() <= LONG_AGO


def test_what_an_interruption_left_comes_first(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT, name="swap_512")
    assert cache.verifier(stop=after(1)).verify(b"swap_512").outcome is Outcome.INTERRUPTED
    cache.write(CONTENT)
    assert [result.name for result in cache.verifier().due()] == [b"swap_512", NAME.encode()]


def test_what_is_not_quiet_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.write(CONTENT)
    cache.write(CONTENT, name="swap_512")
    with nova_lock(cache.host.locks, NAME.encode()):
        verifier = cache.verifier()
        found = {result.name: result.outcome for result in verifier.due()}
        assert found == {NAME.encode(): Outcome.PENDING, b"swap_512": Outcome.BASELINED}
        assert 0 < verifier.wait() <= 60


def test_an_empty_or_missing_cache_has_nothing_due(tmp_path: Path) -> None:
    cache = make(tmp_path)
    assert list(cache.verifier().due()) == []
    cache.host.base.rmdir()
    assert list(cache.verifier().due()) == []
