"""Verification in the agent: never in a pass, at once when it may, ended between two blocks; and what is told of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from basekeeper.agent.events import of_pass
from basekeeper.agent.status import BUDGET, after_pass, differs
from basekeeper.agent.verifying import Verifying
from basekeeper.cache.integrity import BLOCK
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Algorithm, Integrity, Policy
from basekeeper.cache.wholeness import Baseline, Finding, Flaw, Known, Wholeness, summed
from basekeeper.resources.conditions import NodeCondition
from tests.unit.contents import NAME, Cache, block, make
from tests.unit.judging import CLOSED_NOW, DAY, NOW, original
from tests.unit.test_agent_status import HOST, SPEC, condition, order, report, told, whole

PATIENCE = 20.0
FAST = Policy(integrity=Integrity(max_bytes_per_second=1 << 40))
SLOW = Policy(integrity=Integrity(max_bytes_per_second=BLOCK))


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


class Told:
    """What the thread told."""

    def __init__(self) -> None:
        self.read = 0
        self.news = threading.Event()

    def count(self, read: int, _seconds: float) -> None:
        self.read += read


@contextmanager
def verifying(cache: Cache, heard: Told) -> Iterator[Verifying]:
    found = Verifying(cache.host, heard.count, heard.news.set)
    found.start()
    try:
        yield found
    finally:
        found.stop(PATIENCE)
        assert not found._thread.is_alive()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with a base of six blocks."""
    found = make(tmp_path)
    found.write(b"".join(map(block, range(1, 7))))
    return found


def test_a_policy_has_bases_verified_and_what_was_found_is_news(cache: Cache) -> None:
    heard = Told()
    with verifying(cache, heard) as found:
        found.told(Policy())
        time.sleep(0.1)
        assert cache.known().baselines == {}
        found.told(FAST)
        assert heard.news.wait(PATIENCE)
    assert len(cache.known().baselines) == 1
    assert heard.read == 6 * BLOCK


FORBIDDEN = {
    "no policy": None,
    "a policy without integrity": Policy(),
    "a policy that is suspended": replace(FAST, suspend=True),
    "a window that is closed": replace(FAST, windows=(replace(CLOSED_NOW, schedule="0 0 29 2 *", duration=1.0),)),
}


@pytest.mark.parametrize("policy", FORBIDDEN.values(), ids=FORBIDDEN)
def test_nothing_is_read_while_nothing_may_be(cache: Cache, policy: Policy | None) -> None:
    heard = Told()
    with verifying(cache, heard) as found:
        found.told(policy)
        time.sleep(0.3)
    assert (heard.read, cache.known().baselines) == (0, {})


@pytest.mark.parametrize("policy", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_reading_ends_between_two_blocks_when_it_may_not_go_on(cache: Cache, policy: Policy | None) -> None:
    heard = Told()
    with verifying(cache, heard) as found:
        found.told(SLOW)
        eventually(lambda: heard.read >= BLOCK)
        found.told(policy)
        time.sleep(0.5)
        stopped_at = heard.read
        time.sleep(1.5)
        assert heard.read == stopped_at < 6 * BLOCK
        found.told(FAST)
        assert heard.news.wait(PATIENCE)
    assert heard.read == 6 * BLOCK, "what was read before was not read again"


def test_nothing_is_read_in_a_pass_and_the_pass_waits_for_nothing(cache: Cache) -> None:
    heard = Told()
    with verifying(cache, heard) as found:
        found.told(SLOW)
        eventually(lambda: heard.read >= BLOCK)
        with found.paused():
            time.sleep(0.4)
            before = heard.read
            time.sleep(1.5)
            assert heard.read == before
        found.told(FAST)
        assert heard.news.wait(PATIENCE)


def test_a_stop_ends_a_reading_and_keeps_what_was_read(cache: Cache) -> None:
    heard = Told()
    with verifying(cache, heard) as found:
        found.told(SLOW)
        eventually(lambda: heard.read >= BLOCK)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    rest: list[tuple[int, int]] = []
    cache.verifier(told=rest).verify(NAME.encode())
    assert sum(read for _, read in rest) == 6 * BLOCK - heard.read


def test_a_corrupt_file_is_news(cache: Cache) -> None:
    cache.verify()
    cache.change(0, b"\xfe")
    heard = Told()
    with verifying(cache, heard) as found:
        found.told(Policy(integrity=Integrity(interval=0.0, max_bytes_per_second=1 << 40)))
        assert heard.news.wait(PATIENCE)
    assert cache.finding().flaw is Flaw.CORRUPT


def test_a_state_directory_that_cannot_be_used_ends_nothing(cache: Cache, tmp_path: Path) -> None:
    blocked = Cache(replace(cache.host, state=tmp_path / "file" / "state"))
    (tmp_path / "file").write_bytes(b"")
    with verifying(blocked, Told()) as found:
        found.told(FAST)
        time.sleep(0.2)
        assert found._thread.is_alive()


# --- what is told of it --------------------------------------------------------------------------------------------


def known(
    count: int = 3,
    corrupt: int = 0,
    unreadable: int = 0,
    *,
    used: bool = False,
    pending: int = 0,
    found_at: float = NOW,
    verified_at: float = NOW,
) -> Wholeness:
    """So many bases, of which the first are corrupt, the next unreadable and the last pending."""
    names = [original(number) for number in range(count)]
    flaws = [Flaw.CORRUPT] * corrupt + [Flaw.UNREADABLE] * unreadable
    findings = {
        name.decode(): Finding(name.decode(), name, flaw, "it is damaged", (4096,), found_at + number, NOW)
        for number, (name, flaw) in enumerate(zip(names, flaws, strict=False))
    }
    baselines = {
        name.decode(): Baseline(name.decode(), name, Algorithm.XXH3, 2**40, "ab" * 16, NOW - DAY, verified_at)
        for name in names[: count - pending]
    }
    rows = [(name, name.decode(), True) for name in names]
    return summed(rows, Known(baselines, findings), names if used else (), 7 * DAY, NOW)


ENFORCED = Policy(name="compute", integrity=Integrity())


def of(wholeness: Wholeness | None, policy: Policy = ENFORCED) -> Report:
    return report(wholeness=wholeness, policy=policy)


CONDITIONS: dict[str, tuple[Report, tuple[str, str]]] = {
    "all whole": (of(known()), ("True", "Verified")),
    "no base at all": (of(known(0)), ("True", "Verified")),
    "one pending": (of(known(pending=1)), ("Unknown", "NotReadYet")),
    "one not read for long": (of(known(verified_at=NOW - 15 * DAY)), ("Unknown", "NotReadYet")),
    "one corrupt": (of(known(corrupt=1, pending=1)), ("False", "Corrupt")),
    "one unreadable": (of(known(unreadable=1)), ("False", "Unreadable")),
    "one of each": (of(known(corrupt=1, unreadable=1)), ("False", "Corrupt")),
    "nothing wanted": (of(None, Policy()), ("Unknown", "NotVerified")),
    "nothing wanted, and verified by hand": (of(known(), Policy()), ("Unknown", "NotVerified")),
    "nothing wanted, and found by hand": (of(known(corrupt=1), Policy()), ("False", "Corrupt")),
}


@pytest.mark.parametrize(("made", "said"), CONDITIONS.values(), ids=CONDITIONS)
def test_the_condition_says_whether_all_is_whole(made: Report, said: tuple[str, str]) -> None:
    assert condition(told(made), NodeCondition.INTEGRITY_VERIFIED) == said


def test_a_status_counts_and_names_a_few_findings_the_latest_first() -> None:
    found = told(of(known(20, corrupt=7, unreadable=2, used=True, pending=1)))["integrity"]
    assert {key: found[key] for key in found if key.endswith(("Files", "InUse"))} == {
        "verifiedFiles": 10,
        "baselinedFiles": 19,
        "pendingFiles": 1,
        "corruptFiles": 7,
        "corruptInUse": 7,
        "unreadableFiles": 2,
    }
    assert [item["kind"] for item in found["findings"]] == ["Unreadable"] * 2 + ["Corrupt"] * 3
    assert found["findings"][-1] == {
        "name": original(4).decode(),
        "kind": "Corrupt",
        "inUse": True,
        "offset": 4096,
        "time": "2027-01-15T08:00:04Z",
    }


def test_digests_take_the_room_that_there_is_and_no_more() -> None:
    few = told(of(known(3)))["integrity"]["digests"]
    assert few == {original(number).decode(): f"XXH3:{2**40}:{'ab' * 16}" for number in range(3)}
    crowded = told(of(known(400, corrupt=6)), by=order(name="n" * 63), host=replace(HOST, node="n" * 63))
    assert 5 < len(crowded["integrity"]["digests"]) <= 64
    assert whole(crowded, SPEC, "n" * 63) <= BUDGET


def test_a_later_verification_alone_is_no_news() -> None:
    before = told(of(known(verified_at=NOW - DAY)))
    assert not differs(told(of(known()), before), before)
    assert differs(told(of(known(corrupt=1)), before), before)


def test_a_pass_that_failed_ends_no_finding() -> None:
    before = told(of(known(corrupt=1)))
    after = told(report(error="the ledger is full"), before)
    assert after["integrity"] == before["integrity"]
    assert condition(after, NodeCondition.INTEGRITY_VERIFIED) == ("False", "Corrupt")


def said(*sums: Wholeness) -> list[list[str]]:
    """The events of passes that follow one another; what outlives the agent is the status."""
    there: dict[str, Any] = {}
    events = []
    for wholeness in sums:
        made = of(wholeness)
        after = after_pass(order(), made, HOST, None, there, NOW)
        events.append([event.message for event in of_pass(made, there, after) if event.reason == "BaseImageCorrupt"])
        there = after
    return events


def test_a_finding_is_one_event_and_never_again() -> None:
    events = said(known(), known(corrupt=1, used=True), known(corrupt=1, used=True), known(corrupt=2, used=True))
    assert [len(some) for some in events] == [0, 1, 0, 1]
    assert events[1] == [f"1 base image changed since its baseline: {original(0).decode()} at byte 4096, in use"]
    assert original(1).decode() in events[3][0]


def test_findings_that_come_back_to_a_list_that_was_cut_are_no_events() -> None:
    many = known(9, corrupt=9)
    assert [len(some) for some in said(many, replace(many, findings=many.findings[2:]))] == [1, 0]


def test_what_cannot_be_read_is_no_event() -> None:
    assert said(known(unreadable=3)) == [[]]
