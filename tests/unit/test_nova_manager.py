"""What is known of nova's own manager: a touch proves, one untouched base does not, our own stamps say nothing."""

from dataclasses import replace
from typing import Any

import pytest

from basekeeper.cache import nova_manager
from basekeeper.cache.evidence import Inventory, Shared, Usage
from basekeeper.cache.memory import Memory, NovaSeen
from basekeeper.cache.nova_manager import NovaManager, Sign, judge, restarted, seen_after
from basekeeper.cache.settings import NovaSays
from tests.unit.judging import DAY, HOUR, MINUTE, NOW, SWAP, cached, original

A, B, C = original(1), original(2), original(3)
LONG = dict.fromkeys((A, B, C), NOW - 9 * DAY)
"""All three have been seen in use for long."""


def answer(
    ages: dict[bytes, float],
    *,
    entry: float | None = None,
    used: dict[bytes, float] | None = None,
    ours: tuple[bytes, ...] = (),
    says: NovaSays | None = None,
    vanished: float | None = None,
    **usage: Any,
) -> NovaManager:
    """What is known where bases under root disks have stamps of these ages, and nova registered `entry` seconds ago."""
    files = tuple(cached(name, age=age) for name, age in ages.items())
    stamped = {file.name.raw: file.mtime for file in files if file.name.raw in ours}
    seen = NovaSeen(LONG if used is None else used, stamped, None if vanished is None else NOW - vanished)
    bases = frozenset(name for name in ages if name != SWAP)
    registered = None if entry is None else NOW - entry
    return judge(Inventory(files), Usage(nova_bases=bases, nova_pass_at=registered, **usage), seen, says, NOW)


OFF = NovaSays(runs=False, runs_origin="nova.conf:3, [image_cache] manager_interval = -1")
KEEPS = NovaSays(removes=False, removes_origin="nova.conf:4, [image_cache] remove_unused_base_images = false")
REMOVES = NovaSays(removes_origin="nova's default, [image_cache] remove_unused_base_images = true")
UNREADABLE = NovaSays(problem="nova.conf cannot be read")
FRESH = 40 * MINUTE

TOUCHES: dict[str, tuple[dict[str, Any], tuple[bool | None, Sign]]] = {
    "registered, and touched right after it": ({"ages": {A: FRESH - 1}, "entry": FRESH}, (True, Sign.TOUCHED)),
    "one touched among many that are not": (
        {"ages": {A: FRESH - 1, B: 9 * DAY, C: 9 * DAY}, "entry": FRESH},
        (True, Sign.TOUCHED),
    ),
    "the clock of the files is a little behind": ({"ages": {A: FRESH + 30}, "entry": FRESH}, (True, Sign.TOUCHED)),
    "one that is not touched proves nothing": ({"ages": {A: 9 * DAY}, "entry": FRESH}, (None, Sign.NO_SIGN)),
    "several that are not": ({"ages": {A: 9 * DAY, B: 9 * DAY}, "entry": FRESH}, (False, Sign.NOT_TOUCHED)),
    "several, in use for a moment only": (
        {"ages": {A: 9 * DAY, B: 9 * DAY}, "entry": FRESH, "used": {A: NOW, B: NOW}},
        (None, Sign.NO_SIGN),
    ),
    "a stamp of ours is no touch": ({"ages": {A: 5 * MINUTE}, "entry": FRESH, "ours": (A,)}, (None, Sign.NO_SIGN)),
    "a stamp of ours beside a touch": (
        {"ages": {A: 5 * MINUTE, B: FRESH - 1}, "entry": FRESH, "ours": (A,)},
        (True, Sign.TOUCHED),
    ),
    "just registered, the touches of the last pass are there": (
        {"ages": {A: FRESH}, "entry": 2.0},
        (True, Sign.TOUCHED),
    ),
    "just registered, and nothing touched yet": (
        {"ages": {A: 9 * DAY, B: 9 * DAY}, "entry": 2.0},
        (None, Sign.NO_SIGN),
    ),
    "no base in use": ({"ages": {}, "entry": FRESH}, (None, Sign.NO_SIGN)),
    "a stamp from the future": ({"ages": {A: -DAY}, "entry": FRESH}, (None, Sign.NO_SIGN)),
    "registered the day before": ({"ages": {A: 26 * HOUR}, "entry": 26 * HOUR}, (False, Sign.NOT_REGISTERED)),
    "not registered for a day, though touched by others": (
        {"ages": {A: 60.0}, "entry": 30 * HOUR, "shared": Shared("others")},
        (False, Sign.NOT_REGISTERED),
    ),
    "never registered, old stamps": ({"ages": {A: 26 * HOUR}}, (False, Sign.NOT_REGISTERED)),
    "never registered, a fresh node": ({"ages": {A: 26 * HOUR}, "used": {}}, (None, Sign.NO_SIGN)),
    "never registered, no base in use": ({"ages": {}}, (None, Sign.NO_SIGN)),
    "never registered, but touched: another name": ({"ages": {A: 60.0, B: 9 * DAY}}, (None, Sign.NO_SIGN)),
    "never registered, stamps of ours alone": (
        {"ages": {A: 5 * MINUTE, B: 9 * DAY}, "ours": (A,)},
        (False, Sign.NOT_REGISTERED),
    ),
    "a registry that cannot be read": (
        {"ages": {A: 9 * DAY, B: 9 * DAY}, "registry_problem": "is no complete JSON"},
        (None, Sign.NO_SIGN),
    ),
    "nova.conf says that it never runs": ({"ages": {A: 1.0}, "entry": FRESH, "says": OFF}, (False, Sign.NOVA_CONF)),
    "a nova.conf that cannot be read says nothing": (
        {"ages": {A: FRESH - 1}, "entry": FRESH, "says": UNREADABLE},
        (True, Sign.TOUCHED),
    ),
}


@pytest.mark.parametrize(("case", "expected"), TOUCHES.values(), ids=TOUCHES)
def test_whether_it_touches(case: dict[str, Any], expected: tuple[bool | None, Sign]) -> None:
    touches = answer(**case).touches
    assert (touches.known, touches.sign) == expected
    assert touches.message


def test_on_shared_storage_a_host_that_does_not_register_is_in_danger_and_that_is_said() -> None:
    told = answer({A: 26 * HOUR}, entry=26 * HOUR, shared=Shared("others")).touches.message
    assert "other hosts' managers then remove" in told
    assert "other hosts" not in answer({A: 26 * HOUR}, entry=26 * HOUR).touches.message


REMOVING: dict[str, tuple[dict[str, Any], tuple[bool | None, Sign], str]] = {
    "nothing tells": ({}, (None, Sign.NO_SIGN), "--nova-conf"),
    "nova.conf says yes": ({"says": REMOVES}, (True, Sign.NOVA_CONF), "remove_unused_base_images = false"),
    "nova.conf says no": ({"says": KEEPS}, (False, Sign.NOVA_CONF), "nova.conf:4"),
    "nova.conf says never": ({"says": OFF}, (False, Sign.NOVA_CONF), "manager_interval = -1"),
    "nova.conf cannot be read": ({"says": UNREADABLE}, (None, Sign.NO_SIGN), "cannot be read"),
    "files vanished": ({"vanished": 6 * DAY}, (True, Sign.FILES_VANISHED), "docs/hand-over.md"),
    "files vanished long ago": ({"vanished": 7 * DAY}, (None, Sign.NO_SIGN), ""),
    "whatever nova.conf says": ({"vanished": DAY, "says": KEEPS}, (True, Sign.FILES_VANISHED), "restarted"),
    "others share the storage": ({"says": KEEPS, "shared": Shared("x")}, (False, Sign.NOVA_CONF), "other hosts"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "expected", "words"), REMOVING.values(), ids=REMOVING)
def test_whether_it_removes(case: dict[str, Any], expected: tuple[bool | None, Sign], words: str) -> None:
    removes = answer({A: FRESH}, entry=FRESH, **case).removes
    assert (removes.known, removes.sign) == expected
    assert words in removes.message


# --- what is remembered ---------------------------------------------------------------------------------------------


def after(memory: NovaSeen, *names: bytes, stamped: dict[bytes, float] | None = None, **usage: Any) -> NovaSeen:
    """What is remembered after a pass that sees these bases in use."""
    inventory = Inventory(tuple(cached(name) for name in (A, B, C)))
    seen = Usage(nova_bases=frozenset(names), **usage)
    return seen_after(Memory(nova=memory), inventory, seen, stamped or {}, vanished=False, now=NOW)


def test_since_when_a_base_is_used_counts_while_it_is_used() -> None:
    before = NovaSeen(used_since={A: NOW - DAY, B: NOW - DAY})
    assert after(before, A, C).used_since == {A: NOW - DAY, C: NOW}


def test_without_libvirt_no_use_is_forgotten() -> None:
    before = NovaSeen(used_since={A: NOW - DAY})
    assert after(before, libvirt_failure="hangs").used_since == {A: NOW - DAY}


def test_nothing_is_remembered_from_the_future_and_nothing_from_before_ages_began() -> None:
    seen = after(NovaSeen(used_since={A: NOW + DAY}), A)
    assert seen.used_since == {A: NOW}
    assert restarted(replace(seen, used_since={A: NOW - DAY}), NOW).used_since == {A: NOW}


def test_stamps_are_remembered_as_long_as_their_files() -> None:
    before = NovaSeen(stamped={A: 1.0, original(9): 2.0})
    assert after(before, stamped={B: 3.0}).stamped == {A: 1.0, B: 3.0}


def test_when_files_vanished_is_remembered_until_others_do() -> None:
    seen = seen_after(Memory(nova=NovaSeen(vanished_at=5.0)), Inventory(), Usage(), {}, vanished=True, now=NOW)
    assert seen.vanished_at == NOW
    assert after(NovaSeen(vanished_at=5.0)).vanished_at == 5.0
    assert nova_manager.REMEMBERED == 7 * DAY
