"""What is seen of nova's own manager: a touch is proof, one base that it left out is none, and ours are not its."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from basekeeper.cache.evidence import CachedFile, Inventory, Shared, Usage
from basekeeper.cache.memory import Memory, NovaSeen
from basekeeper.cache.nova_manager import REGISTERED, REMEMBERED, NovaManager, Sign, judge, restarted, seen_after
from basekeeper.cache.settings import NovaSays
from tests.unit.judging import DAY, HOUR, MINUTE, NOW, ORIGINAL, OTHER, cached

LONG = {ORIGINAL: NOW - 3 * DAY, OTHER: NOW - 3 * DAY}
OLD = (cached(age=2 * DAY), cached(OTHER, age=2 * DAY))
RAN = NOW - 20 * MINUTE
"""nova's manager registered then."""
SHARED = Shared("others use it")
NEVER = NovaSays(runs=False, runs_origin="nova.conf:3, [image_cache] manager_interval = -1")
KEEPS = NovaSays(removes=False, removes_origin="nova.conf:2, [image_cache] remove_unused_base_images = false")
REMOVES = NovaSays(removes_origin="nova's default, [image_cache] remove_unused_base_images = true")
UNREAD = NovaSays(problem="nova.conf does not say what nova's manager does: /nova.conf: cannot be read")


def known(
    files: tuple[CachedFile, ...] = OLD,
    *,
    entry: float | None = RAN,
    since: Mapping[bytes, float] = LONG,
    says: NovaSays | None = None,
    vanished: bool = False,
    seen: NovaSeen | None = None,
    **usage: Any,
) -> NovaManager:
    """What one pass knows that found these bases under root disks of nova's domains."""
    before = Memory(nova=seen or NovaSeen(used_since=since))
    found = Usage(nova_bases=frozenset((ORIGINAL, OTHER)), nova_pass_at=entry, **usage)
    inventory = Inventory(files=files, entries=())
    after = seen_after(before, inventory, found, {}, vanished=vanished, now=NOW)
    return judge(inventory, found, after, says, NOW)


def mine(file: CachedFile) -> NovaSeen:
    """The memory of having given a base its time stamp."""
    return NovaSeen(used_since=LONG, stamped={file.name.raw: file.mtime})


TOUCHED = cached(mtime=RAN + 2)
TOUCHES: dict[str, tuple[dict[str, Any], bool | None, Sign]] = {
    "it registered and touched": ({"files": (TOUCHED,)}, True, Sign.TOUCHED),
    "it touched one of two": ({"files": (TOUCHED, OLD[1])}, True, Sign.TOUCHED),
    "on storage where another host touched later": (
        {"files": (cached(age=MINUTE),), "shared": SHARED}, True, Sign.TOUCHED,
    ),
    "a spawn touched what nobody used before": ({"files": (cached(age=MINUTE),), "since": {}}, None, Sign.NO_SIGN),
    "it left two out for over a day": ({}, False, Sign.NOT_TOUCHED),
    "it left one out, which is no proof": ({"files": OLD[:1]}, None, Sign.NO_SIGN),
    "nothing has been in use for long": ({"since": {}}, None, Sign.NO_SIGN),
    "there is no instance": ({"files": ()}, None, Sign.NO_SIGN),
    "only basekeeper touched": (
        {"files": (TOUCHED, OLD[1]), "seen": mine(TOUCHED)}, False, Sign.NOT_TOUCHED,
    ),
    "it was seen to touch half a day ago": (
        {"seen": NovaSeen(used_since=LONG, touched_at=NOW - 12 * HOUR)}, True, Sign.TOUCHED,
    ),
    "it was seen to touch two days ago": (
        {"seen": NovaSeen(used_since=LONG, touched_at=NOW - 2 * DAY)}, False, Sign.NOT_TOUCHED,
    ),
    "it has not registered for a day": ({"entry": NOW - REGISTERED}, False, Sign.NOT_REGISTERED),
    "no entry, and nothing touched": ({"entry": None}, False, Sign.NOT_REGISTERED),
    "no registry at all": (
        {"entry": None, "registry_problem": "does not exist", "registry_absent": True}, False, Sign.NOT_REGISTERED,
    ),
    "no entry, but touches: another name": ({"entry": None, "files": (cached(age=HOUR),)}, None, Sign.NO_SIGN),
    "no entry, and nothing in use": ({"entry": None, "files": ()}, None, Sign.NO_SIGN),
    "a registry that cannot be read": ({"entry": None, "registry_problem": "is no JSON"}, None, Sign.NO_SIGN),
    "nova.conf turns it off": ({"files": (TOUCHED,), "says": NEVER}, False, Sign.NOVA_CONF),
    "a nova.conf that cannot be read says nothing": ({"files": (TOUCHED,), "says": UNREAD}, True, Sign.TOUCHED),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "answer", "sign"), TOUCHES.values(), ids=TOUCHES)
def test_whether_it_touches_is_told_from_its_entry_and_from_time_stamps(
    seen: dict[str, Any], answer: bool | None, sign: Sign
) -> None:
    found = known(**seen).touches
    assert (found.known, found.sign) == (answer, sign)


REMOVAL: dict[str, tuple[dict[str, Any], bool | None, Sign]] = {
    "nothing tells": ({}, None, Sign.NO_SIGN),
    "files vanished": ({"vanished": True}, True, Sign.FILES_VANISHED),
    "files vanished, whatever nova.conf says": ({"vanished": True, "says": KEEPS}, True, Sign.FILES_VANISHED),
    "files vanished within the week": (
        {"seen": NovaSeen(vanished_at=NOW - REMEMBERED + 1)}, True, Sign.FILES_VANISHED,
    ),
    "files vanished a week ago": ({"seen": NovaSeen(vanished_at=NOW - REMEMBERED)}, None, Sign.NO_SIGN),
    "nova.conf says so": ({"says": REMOVES}, True, Sign.NOVA_CONF),
    "nova.conf says that it does not": ({"says": KEEPS}, False, Sign.NOVA_CONF),
    "nova.conf turns the whole manager off": ({"says": NEVER}, False, Sign.NOVA_CONF),
    "others' nova.conf is not ours": ({"says": KEEPS, "shared": SHARED}, None, Sign.NO_SIGN),
    "nova.conf cannot be read": ({"says": UNREAD}, None, Sign.NO_SIGN),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "answer", "sign"), REMOVAL.values(), ids=REMOVAL)
def test_only_nova_conf_says_that_it_does_not_remove(seen: dict[str, Any], answer: bool | None, sign: Sign) -> None:
    found = known(**seen).removes
    assert (found.known, found.sign) == (answer, sign)


def test_where_libvirt_does_not_answer_no_base_counts_as_out_of_use() -> None:
    deaf = Usage(libvirt_failure="no answer")
    assert (
        seen_after(Memory(nova=NovaSeen(LONG)), Inventory((), ()), deaf, {}, vanished=False, now=NOW).used_since == LONG
    )
    answers = replace(deaf, libvirt_failure=None)
    assert (
        seen_after(Memory(nova=NovaSeen(LONG)), Inventory((), ()), answers, {}, vanished=False, now=NOW).used_since
        == {}
    )


def test_after_a_clock_jumped_nothing_was_in_use_before() -> None:
    seen = restarted(NovaSeen(used_since=LONG, touched_at=NOW - HOUR), NOW)
    assert (set(seen.used_since.values()), seen.touched_at) == ({NOW}, None)


def test_a_stamp_is_forgotten_with_its_file() -> None:
    stamped = {ORIGINAL: NOW, OTHER: NOW}
    after = seen_after(
        Memory(nova=NovaSeen(stamped=stamped)), Inventory((cached(),), ()), Usage(), {}, vanished=False, now=NOW
    )
    assert after.stamped == {ORIGINAL: NOW}
