"""Judgement, case by case: why a file stays, what holds it, when it goes, and what becomes of what was removed."""

from dataclasses import replace
from typing import Any

import pytest

from basekeeper.cache.anomalies import CLOCK_TOLERANCE
from basekeeper.cache.evidence import FileType, Identity, ImageUser, Note, Shared, Spawn, Unknown, Usage
from basekeeper.cache.memory import Acknowledged, Breaker, Clock, Directories, LastPass, Memory
from basekeeper.cache.names import parse
from basekeeper.cache.plan import NOVA_PASS_SETTLES
from basekeeper.cache.quarantine_plan import Decision, Hold
from basekeeper.cache.settings import AcknowledgedPath, CachedOnly, Drain, Limits, MinimumAge, Mode, Policy
from basekeeper.cache.verdicts import Reason, Verdict
from basekeeper.cache.windows import Window
from tests.unit.judging import (
    CLOCK,
    CLOSED_NOW,
    DAY,
    DEAF,
    EPHEMERAL,
    FOREIGN,
    HOUR,
    IMAGE,
    MINUTE,
    NFS,
    NO_LIMITS,
    NOW,
    OPEN_NOW,
    ORIGINAL,
    OTHER,
    PARTIAL,
    RESIZED,
    SPAWN,
    SWAP,
    UNKNOWN,
    before,
    cached,
    decision,
    domain,
    inode_of,
    judge,
    later,
    made_from,
    names,
    only,
    original,
    overlay,
    removed,
    used,
    verdict,
)

FINAL = {"original": ORIGINAL, "resized": RESIZED, "swap": SWAP, "ephemeral": EPHEMERAL}
EVERY = {**FINAL, "partial": PARTIAL}

EXPIRED = (Verdict.REMOVE, Reason.EXPIRED)
STALE = (Verdict.REMOVE, Reason.STALE_PARTIAL)
TOO_YOUNG = (Verdict.KEEP, Reason.TOO_YOUNG)


def keep(reason: Reason) -> tuple[Verdict, Reason]:
    return Verdict.KEEP, reason


def hold(reason: Reason) -> tuple[Verdict, Reason]:
    return Verdict.HOLD, reason


def policy(**fields: Any) -> Policy:
    """A policy whose limits do not bind."""
    return Policy(**{"limits": NO_LIMITS, **fields})


@pytest.mark.parametrize("name", EVERY.values(), ids=EVERY)
def test_what_nothing_has_used_for_long_goes(name: bytes) -> None:
    assert verdict(cached(name)) == (STALE if name == PARTIAL else EXPIRED)


OPEN_BY = "process 4711 (rsync)"
KEEPS: dict[str, tuple[bytes, Reason, dict[str, Any]]] = {
    "a disk names it": (ORIGINAL, Reason.IN_USE_BY_OVERLAY, {"usage": used({ORIGINAL: [overlay()]})}),
    "a disk names a swap base": (SWAP, Reason.IN_USE_BY_OVERLAY, {"usage": used({SWAP: [overlay()]})}),
    "a disk's chain reaches it": (
        RESIZED,
        Reason.IN_USE_BY_OVERLAY,
        {"usage": Usage(by_inode={inode_of(RESIZED): (overlay(),)})},
    ),
    "a disk's chain reaches a partial": (
        PARTIAL,
        Reason.IN_USE_BY_OVERLAY,
        {"usage": Usage(by_inode={inode_of(PARTIAL): (overlay(),)})},
    ),
    "a domain names it": (EPHEMERAL, Reason.IN_USE_BY_DOMAIN, {"usage": used({EPHEMERAL: [domain()]})}),
    "qemu holds its lock": (
        ORIGINAL,
        Reason.LOCKED_BY_QEMU,
        {"usage": Usage(qemu_locks=frozenset({inode_of(ORIGINAL)}))},
    ),
    "a process has it open": (
        PARTIAL,
        Reason.OPEN_IN_PROCESS,
        {"usage": Usage(open_files={inode_of(PARTIAL): OPEN_BY})},
    ),
    "an NFS client holds it": (NFS, Reason.OPEN_IN_PROCESS, {}),
    "nova holds its lock": (RESIZED, Reason.LOCKED_BY_NOVA, {"usage": Usage(nova_locks=frozenset({RESIZED}))}),
    "nova holds the lock of what a partial becomes": (
        PARTIAL,
        Reason.LOCKED_BY_NOVA,
        {"usage": Usage(nova_locks=frozenset({ORIGINAL}))},
    ),
    "its image is pinned": (ORIGINAL, Reason.PINNED, {"policy": policy(pinned_images=frozenset({IMAGE}))}),
    "its image is pinned, and it is a resized copy": (
        RESIZED,
        Reason.PINNED,
        {"policy": policy(pinned_images=frozenset({IMAGE}))},
    ),
    "it was restored by hand": (SWAP, Reason.PINNED, {"memory": Memory(pins={SWAP: NOW + 1})}),
    "a domain was made from its image": (ORIGINAL, Reason.IMAGE_OF_DOMAIN, {"usage": made_from()}),
    "a domain made from its image misses a disk": (
        ORIGINAL,
        Reason.IMAGE_OF_DOMAIN,
        {"usage": made_from(needed=True), "policy": policy(cached_only=CachedOnly.REMOVE)},
    ),
    "a domain made from its image misses a disk, which may have been a resized copy's": (
        RESIZED,
        Reason.IMAGE_OF_DOMAIN,
        {"usage": made_from(needed=True)},
    ),
}


@pytest.mark.parametrize(("name", "reason", "given"), KEEPS.values(), ids=KEEPS)
def test_evidence_of_use_keeps_a_file_of_any_age(name: bytes, reason: Reason, given: dict[str, Any]) -> None:
    assert verdict(cached(name, age=10_000 * DAY), **given) == keep(reason)


GOES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "another file is used": (ORIGINAL, {"usage": used({RESIZED: [overlay()], SWAP: [domain()]})}),
    "the same inode number on another device": (
        ORIGINAL,
        {"usage": Usage(qemu_locks=frozenset({(2, inode_of(ORIGINAL)[1])}))},
    ),
    "a name with no users left": (ORIGINAL, {"usage": used({ORIGINAL: []})}),
    "nova's lock of another name": (ORIGINAL, {"usage": Usage(nova_locks=frozenset({RESIZED, SWAP}))}),
    "another pinned image": (ORIGINAL, {"policy": policy(pinned_images=frozenset({"another image", ""}))}),
    "a pinned image's download": (PARTIAL, {"policy": policy(pinned_images=frozenset({IMAGE}))}),
    "a pin that is over": (ORIGINAL, {"memory": Memory(pins={ORIGINAL: NOW})}),
    "the image of a domain, with cachedOnly: Remove": (
        ORIGINAL,
        {"usage": made_from(), "policy": policy(cached_only=CachedOnly.REMOVE)},
    ),
    "a resized copy of the image of a domain": (RESIZED, {"usage": made_from()}),
    "a download of the image of a domain": (PARTIAL, {"usage": made_from(needed=True)}),
}


@pytest.mark.parametrize(("name", "given"), GOES.values(), ids=GOES)
def test_what_only_looks_like_evidence_keeps_nothing(name: bytes, given: dict[str, Any]) -> None:
    assert verdict(cached(name), **given)[0] is Verdict.REMOVE


def test_everything_that_needs_a_file_is_listed_but_the_weightiest_gives_the_reason() -> None:
    usage = used({ORIGINAL: [domain(), overlay()]}, by_inode={inode_of(ORIGINAL): (overlay("b/disk"), overlay())})
    item = only(judge(cached(), usage=usage).files)
    assert (item.reason, item.users) == (Reason.IN_USE_BY_OVERLAY, ("domain 7", "a/disk", "b/disk"))
    assert item.message == "needed by a/disk, b/disk"


ALL_AT_ONCE: dict[str, Any] = {
    "by_name": {ORIGINAL: (overlay(), domain())},
    "qemu_locks": frozenset({inode_of(ORIGINAL)}),
    "open_files": {inode_of(ORIGINAL): OPEN_BY},
    "nova_locks": frozenset({ORIGINAL}),
    "images": {ORIGINAL: (ImageUser("domain 7", True),)},
    "unknown": (UNKNOWN,),
    "spawns": (SPAWN,),
    "unidentified_raw": ("c/disk",),
    "homeless_domains": ("domain 8",),
}
ORDER: list[tuple[str | None, tuple[Verdict, Reason]]] = [
    (None, keep(Reason.IN_USE_BY_OVERLAY)),
    ("by_name", keep(Reason.LOCKED_BY_QEMU)),
    ("qemu_locks", keep(Reason.OPEN_IN_PROCESS)),
    ("open_files", keep(Reason.LOCKED_BY_NOVA)),
    ("nova_locks", keep(Reason.IMAGE_OF_DOMAIN)),
    ("images", hold(Reason.INSTANCES_VANISHED)),
    ("homeless_domains", hold(Reason.UNKNOWN_USAGE)),
    ("unknown", hold(Reason.SPAWN_IN_PROGRESS)),
    ("spawns", hold(Reason.IMAGE_UNKNOWN)),
    ("unidentified_raw", EXPIRED),
]


def test_questions_come_in_the_order_of_safety() -> None:
    left = dict(ALL_AT_ONCE)
    for taken, expected in ORDER:
        left.pop(taken or "", None)
        assert verdict(usage=Usage(**left)) == expected


def test_a_hold_always_means_a_removal_that_was_prevented() -> None:
    usage = Usage(unknown=(UNKNOWN,), spawns=(SPAWN,), unidentified_raw=("c/disk",))
    assert verdict(cached(age=HOUR), usage=usage) == TOO_YOUNG


AGES: dict[str, tuple[bytes, float]] = {
    "original": (ORIGINAL, 2.0),
    "resized": (RESIZED, 3.0),
    "swap": (SWAP, 4.0),
    "ephemeral": (EPHEMERAL, 5.0),
    "partial": (PARTIAL, 6.0),
}
OWN_AGES = MinimumAge(original=2.0, resized=3.0, swap=4.0, ephemeral=5.0, partial=6.0)


@pytest.mark.parametrize(("name", "minimum"), AGES.values(), ids=AGES)
def test_each_kind_waits_for_its_own_minimum_age(name: bytes, minimum: float) -> None:
    own = policy(minimum_age=OWN_AGES)
    young = only(judge(cached(name, age=minimum - 0.5), policy=own).files)
    assert (young.verdict, young.reason, young.removable_at) == (*TOO_YOUNG, NOW + 0.5)
    assert verdict(cached(name, age=minimum), policy=own)[0] is Verdict.REMOVE


def test_without_a_word_ages_are_nova_s() -> None:
    assert MinimumAge() == MinimumAge(original=DAY, resized=HOUR, swap=DAY, ephemeral=DAY, partial=DAY)


STAMPS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[Verdict, Reason]]] = {
    "used a moment ago, though its stamp is old": ({}, {"last_used": {ORIGINAL: NOW - HOUR}}, TOO_YOUNG),
    "another was used a moment ago": ({}, {"last_used": {OTHER: NOW - HOUR}}, EXPIRED),
    "used long before its stamp": ({"age": HOUR}, {"last_used": {ORIGINAL: NOW - 9 * DAY}}, TOO_YOUNG),
    "every age started anew a moment ago": ({}, {"ages_since": NOW - HOUR}, TOO_YOUNG),
    "every age started anew long ago": ({}, {"ages_since": NOW - 9 * DAY}, EXPIRED),
    "a stamp in the future": ({"age": -HOUR}, {}, TOO_YOUNG),
    "a stamp in the far future": ({"age": -9000 * DAY}, {}, TOO_YOUNG),
    "no stamp": ({"mtime": 0.0}, {}, TOO_YOUNG),
    "a stamp before all time": ({"mtime": -1.0}, {}, TOO_YOUNG),
}


@pytest.mark.parametrize(("file", "memory", "expected"), STAMPS.values(), ids=STAMPS)
def test_age_counts_from_the_latest_sign_of_use(
    file: dict[str, Any], memory: dict[str, Any], expected: tuple[Verdict, Reason]
) -> None:
    assert verdict(cached(**file), memory=Memory(**memory)) == expected


def test_a_file_that_is_never_old_says_why() -> None:
    future, stampless = cached(ORIGINAL, age=-HOUR), cached(OTHER, mtime=0.0)
    said = {item.file.name.raw: (item.message, item.removable_at) for item in judge(future, stampless).files}
    assert said[ORIGINAL] == ("its time stamp, or its last use, is in the future, so it is not old", None)
    assert said[OTHER] == ("it has no time stamp, so it is never old", None)


NOT_OURS: dict[str, tuple[bytes, FileType, Reason]] = {
    "a name of somebody's own": (FOREIGN, FileType.REGULAR, Reason.FOREIGN_NAME),
    "a directory with a base's name": (ORIGINAL, FileType.DIRECTORY, Reason.NOT_A_FILE),
    "a symbolic link with a base's name": (ORIGINAL, FileType.SYMLINK, Reason.NOT_A_FILE),
    "a pipe with a partial's name": (PARTIAL, FileType.OTHER, Reason.NOT_A_FILE),
}


@pytest.mark.parametrize(("name", "kind", "reason"), NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_nova_s_is_foreign_whatever_else_is_known(name: bytes, kind: FileType, reason: Reason) -> None:
    file = cached(name, age=9000 * DAY, type=kind)
    assert verdict(file) == (Verdict.FOREIGN, reason)
    assert verdict(file, usage=Usage(unknown=(DEAF,), homeless_domains=("d",))) == (Verdict.FOREIGN, reason)


# Holds


HELD_BY_UNKNOWN: dict[str, tuple[Unknown, bytes, bool]] = {
    "an unknown without bounds holds an original": (DEAF, ORIGINAL, True),
    "an unknown without bounds holds a resized copy": (DEAF, RESIZED, True),
    "an unknown without bounds holds swap": (DEAF, SWAP, True),
    "an unknown without bounds holds an ephemeral base": (DEAF, EPHEMERAL, True),
    "no disk is built on a partial": (DEAF, PARTIAL, False),
    "an unknown about this name": (replace(UNKNOWN, only=frozenset({ORIGINAL})), ORIGINAL, True),
    "an unknown about this partial": (replace(UNKNOWN, only=frozenset({PARTIAL})), PARTIAL, True),
    "an unknown about another name": (replace(UNKNOWN, only=frozenset({OTHER})), ORIGINAL, False),
    "an unknown about nothing here": (replace(UNKNOWN, only=frozenset()), ORIGINAL, False),
}


@pytest.mark.parametrize(("unknown", "name", "held"), HELD_BY_UNKNOWN.values(), ids=HELD_BY_UNKNOWN)
def test_an_unknown_holds_what_it_could_have_prevented_and_no_more(unknown: Unknown, name: bytes, held: bool) -> None:
    found = judge(cached(name), usage=Usage(unknown=(unknown,)))
    shown = [Hold(Reason.UNKNOWN_USAGE, unknown.message, unknown.path)] if held else []
    told = [] if held else [Note("NotAsked", unknown.message, unknown.path)]
    assert (only(found.files).verdict is Verdict.HOLD, list(found.holds), list(found.notes)) == (held, shown, told)
    assert not found.complete


def test_every_unknown_that_held_something_is_listed_with_its_path() -> None:
    both = (replace(UNKNOWN, only=frozenset({ORIGINAL})), replace(DEAF, only=frozenset({OTHER})))
    quiet = Unknown("c cannot be read", "c", only=frozenset({SWAP}))
    found = judge(cached(ORIGINAL), cached(OTHER), usage=Usage(unknown=(*both, quiet)))
    assert [(item.message, item.path) for item in found.holds] == [
        (DEAF.message, None),
        (UNKNOWN.message, "a/disk"),
    ]
    assert found.notes == (Note("NotAsked", "c cannot be read", "c"),)


def test_an_unknown_that_two_looks_report_twice_is_listed_once() -> None:
    assert len(judge(cached(), usage=Usage(unknown=(DEAF, DEAF))).holds) == 1


SPAWNED_ON = {"original": True, "resized": False, "swap": True, "ephemeral": True, "partial": False}


@pytest.mark.parametrize("kind", EVERY)
def test_a_spawn_holds_what_nova_spawns_on_and_nothing_else(kind: str) -> None:
    found = judge(cached(EVERY[kind]), usage=Usage(spawns=(SPAWN, Spawn("c", NOW))))
    assert (only(found.files).reason is Reason.SPAWN_IN_PROGRESS) == SPAWNED_ON[kind]
    assert [item.path for item in found.holds] == (["b", "c"] if SPAWNED_ON[kind] else [])


RAW = "c/disk"
TOUCHED = NOW - HOUR
IMAGES_UNKNOWN: dict[str, tuple[bytes, dict[str, Any], Policy, bool]] = {
    "nothing says which image": (ORIGINAL, {}, policy(), True),
    "no resized copy": (RESIZED, {}, policy(), False),
    "no swap": (SWAP, {}, policy(), False),
    "no partial": (PARTIAL, {}, policy(), False),
    "the operator does not mind": (ORIGINAL, {}, policy(cached_only=CachedOnly.REMOVE), False),
    "nova touched what it knows, and not this": (ORIGINAL, {"nova_pass_at": TOUCHED}, policy(), False),
    "nova may still be touching": (ORIGINAL, {"nova_pass_at": NOW - NOVA_PASS_SETTLES + 1}, policy(), True),
    "nova has just done touching": (ORIGINAL, {"nova_pass_at": NOW - NOVA_PASS_SETTLES}, policy(), False),
    "nova's stamp is in the future": (ORIGINAL, {"nova_pass_at": NOW + DAY}, policy(), True),
    "nova touched this one too, or something did": (ORIGINAL, {"nova_pass_at": NOW - 31 * DAY}, policy(), True),
    "nova touched this one in that very second": (ORIGINAL, {"nova_pass_at": NOW - 30 * DAY}, policy(), True),
}


@pytest.mark.parametrize(("name", "usage", "wanted", "held"), IMAGES_UNKNOWN.values(), ids=IMAGES_UNKNOWN)
def test_an_unidentified_raw_disk_holds_originals_until_nova_s_touches_disprove_it(
    name: bytes, usage: dict[str, Any], wanted: Policy, held: bool
) -> None:
    found = judge(cached(name), usage=Usage(unidentified_raw=(RAW,), **usage), policy=wanted)
    assert (only(found.files).reason is Reason.IMAGE_UNKNOWN) == held
    assert [(item.reason, item.path) for item in found.holds] == ([(Reason.IMAGE_UNKNOWN, RAW)] if held else [])


STOPS: dict[str, tuple[Reason, bool, dict[str, Any]]] = {
    "other directories": (
        Reason.OTHER_DIRECTORY,
        True,
        {"memory": Memory(directories=Directories.OTHER, directories_message="mount the right ones")},
    ),
    "domains without directories": (Reason.INSTANCES_VANISHED, True, {"usage": Usage(homeless_domains=("d", "e"))}),
    "a breaker": (
        Reason.USERS_VANISHED,
        True,
        {"memory": Memory(breaker=Breaker(Reason.USERS_VANISHED, NOW, frozenset(map(original, range(3)))))},
    ),
    "a clock that jumped": (Reason.CLOCK_JUMPED, True, {"memory": Memory(clock=before(HOUR, jump=DAY))}),
    "storage of several hosts": (Reason.SHARED_STORAGE, False, {"usage": Usage(shared=Shared("nfs"))}),
    "a suspended policy": (Reason.SUSPENDED, False, {"policy": policy(suspend=True)}),
}


@pytest.mark.parametrize(("reason", "anomaly", "given"), STOPS.values(), ids=STOPS)
def test_a_stop_holds_every_removal_and_every_purge(reason: Reason, anomaly: bool, given: dict[str, Any]) -> None:
    del anomaly
    found = judge(*(cached(name) for name in EVERY.values()), removed(OTHER), **given)
    assert {item.reason for item in found.files} == {reason}
    assert (only(found.entries).decision, only(found.entries).reason) == (Decision.HOLD, reason)
    assert found.purge_blocked is not None
    assert [item.reason for item in found.holds] == [reason]


@pytest.mark.parametrize(("reason", "anomaly", "given"), STOPS.values(), ids=STOPS)
def test_only_an_anomaly_is_told_when_nothing_would_have_gone(
    reason: Reason, anomaly: bool, given: dict[str, Any]
) -> None:
    found = judge(cached(age=MINUTE), **given)
    assert only(found.files).reason is Reason.TOO_YOUNG
    assert [item.reason for item in found.holds] == ([reason] if anomaly else [])
    assert found.held == anomaly


SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "one domain": ({"usage": Usage(homeless_domains=("domain 7",))}, "domain 7 has local disks, but"),
    "three domains": ({"usage": Usage(homeless_domains=("d", "e", "f"))}, "d and 2 more has local disks, but"),
    "a leap forward": ({"memory": Memory(clock=before(HOUR, jump=DAY))}, "the clock went forward by 86400 s"),
    "a leap back": ({"memory": Memory(clock=before(HOUR, jump=-DAY))}, "the clock went back by 86400 s"),
}


@pytest.mark.parametrize(("given", "said"), SENTENCES.values(), ids=SENTENCES)
def test_an_anomaly_says_what_was_seen(given: dict[str, Any], said: str) -> None:
    (hold_shown,) = judge(**given).holds
    assert hold_shown.message.startswith(said)


@pytest.mark.parametrize(("reason", "anomaly", "given"), STOPS.values(), ids=STOPS)
def test_no_stop_stands_in_the_way_of_a_restore(reason: Reason, anomaly: bool, given: dict[str, Any]) -> None:
    del reason, anomaly
    usage = replace(given.get("usage", Usage()), by_name={OTHER: (overlay(),)})
    assert decision(removed(OTHER), **(given | {"usage": usage}))[0] is Decision.RESTORE


# Maintenance windows

NEXT_ONE = "no maintenance window is open (maintenanceWindows); the next one opens at 2027-01-16T07:00:00Z"


def test_outside_every_window_all_that_would_go_is_held_and_told_once_with_the_time_of_the_next() -> None:
    found = judge(*(cached(name) for name in EVERY.values()), removed(OTHER), policy=policy(windows=(CLOSED_NOW,)))
    assert {(item.verdict, item.reason) for item in found.files} == {hold(Reason.OUTSIDE_WINDOW)}
    assert (only(found.entries).decision, only(found.entries).reason) == (Decision.HOLD, Reason.OUTSIDE_WINDOW)
    assert found.holds == (Hold(Reason.OUTSIDE_WINDOW, NEXT_ONE),)
    assert found.purge_blocked == (Reason.OUTSIDE_WINDOW, NEXT_ONE)
    assert found.stops == ()


@pytest.mark.parametrize("windows", [(), (OPEN_NOW,), (CLOSED_NOW, OPEN_NOW)], ids=["none", "open", "one of two"])
def test_while_a_window_is_open_what_may_go_goes(windows: tuple[Window, ...]) -> None:
    found = judge(cached(), removed(OTHER), policy=policy(windows=windows))
    assert (len(found.removals), len(found.purges), found.holds) == (1, 1, ())


def test_outside_every_window_what_is_kept_is_kept_for_its_own_reason_and_what_waits_waits() -> None:
    found = judge(cached(age=MINUTE), removed(OTHER, ago=HOUR), policy=policy(windows=(CLOSED_NOW,)))
    assert (only(found.files).reason, only(found.entries).reason) == (Reason.TOO_YOUNG, Reason.IN_QUARANTINE)
    assert (found.holds, found.held) == ((), False)


def test_no_window_stands_in_the_way_of_a_restore() -> None:
    needed = used({OTHER: [overlay()]})
    assert decision(removed(OTHER), usage=needed, policy=policy(windows=(CLOSED_NOW,)))[0] is Decision.RESTORE


MENDABLE: dict[str, tuple[Reason, dict[str, Any]]] = {
    **{name: (reason, given) for name, (reason, _, given) in STOPS.items() if "policy" not in given},
    "something unknown": (Reason.UNKNOWN_USAGE, {"usage": Usage(unknown=(DEAF,))}),
    "a starting instance": (Reason.SPAWN_IN_PROGRESS, {"usage": Usage(spawns=(SPAWN,))}),
    "a raw disk": (Reason.IMAGE_UNKNOWN, {"usage": Usage(unidentified_raw=(RAW,))}),
}


@pytest.mark.parametrize(("reason", "given"), MENDABLE.values(), ids=MENDABLE)
def test_what_has_to_be_mended_is_told_between_windows_too(reason: Reason, given: dict[str, Any]) -> None:
    found = judge(cached(), **given, policy=policy(windows=(CLOSED_NOW,)))
    assert only(found.files).reason is reason
    assert reason in {item.reason for item in found.holds}


# Acknowledged unknowns


def in_policy(path: str = "a/disk", until: float | None = None) -> Policy:
    return policy(acknowledged=(AcknowledgedPath(path, "gone for good", until),))


def noted(identity: Identity | None = UNKNOWN.identity, *, path: str = "a/disk", **fields: Any) -> Acknowledged:
    return Acknowledged(path, identity, **{"by_hand": False, **fields})


SOMETHING_ELSE = Identity(8, 6, 7)
WORDS: dict[str, tuple[Unknown, Policy, tuple[Acknowledged, ...], bool]] = {
    "nobody's word": (UNKNOWN, policy(), (), False),
    "the policy's, first met": (UNKNOWN, in_policy(), (), True),
    "the policy's, met before": (UNKNOWN, in_policy(), (noted(),), True),
    "the policy's, and the path is something else now": (UNKNOWN, in_policy(), (noted(SOMETHING_ELSE),), False),
    "the policy's, about another path": (UNKNOWN, in_policy("b/disk"), (), False),
    "the policy's, for a while": (UNKNOWN, in_policy(until=NOW + 1), (), True),
    "the policy's, for a while that is over": (UNKNOWN, in_policy(until=NOW), (), False),
    "a row that left the policy": (UNKNOWN, policy(), (noted(),), False),
    "by hand": (UNKNOWN, policy(), (noted(by_hand=True),), True),
    "by hand, and the path is something else now": (
        UNKNOWN,
        policy(),
        (noted(SOMETHING_ELSE, by_hand=True),),
        False,
    ),
    "by hand, about a path that could not be looked at then": (UNKNOWN, policy(), (noted(None, by_hand=True),), False),
    "by hand, for a while": (UNKNOWN, policy(), (noted(by_hand=True, until=NOW + 1),), True),
    "by hand, for a while that is over": (UNKNOWN, policy(), (noted(by_hand=True, until=NOW),), False),
    "by hand, after the policy's word became void": (
        UNKNOWN,
        in_policy(),
        (noted(SOMETHING_ELSE), noted(by_hand=True)),
        True,
    ),
    "the policy's, after a word by hand became void": (
        UNKNOWN,
        in_policy(),
        (noted(), noted(SOMETHING_ELSE, by_hand=True)),
        True,
    ),
    "the policy's, while an old word by hand is void": (
        UNKNOWN,
        in_policy(),
        (noted(SOMETHING_ELSE), noted(Identity(9, 9, 9), by_hand=True)),
        False,
    ),
    "what is no path cannot be acknowledged": (DEAF, in_policy(""), (noted(None, path="", by_hand=True),), False),
}


@pytest.mark.parametrize(("unknown", "wanted", "memory", "harmless"), WORDS.values(), ids=WORDS)
def test_an_operator_s_word_holds_for_this_path_while_it_is_what_it_was(
    unknown: Unknown, wanted: Policy, memory: tuple[Acknowledged, ...], harmless: bool
) -> None:
    found = judge(cached(), usage=Usage(unknown=(unknown,)), policy=wanted, memory=Memory(acknowledged=memory))
    assert (only(found.files).verdict is Verdict.REMOVE, found.complete) == (harmless, harmless)


def test_no_word_waives_a_reference_that_can_be_read() -> None:
    usage = used({ORIGINAL: [overlay("a/disk")]}, unknown=(UNKNOWN,))
    memory = Memory(acknowledged=(noted(by_hand=True),))
    assert verdict(usage=usage, policy=in_policy(), memory=memory) == keep(Reason.IN_USE_BY_OVERLAY)


# Files that were never seen in use

PATIENT = policy(minimum_age=MinimumAge(never_used=60 * DAY))
NEVER: dict[str, tuple[bytes, Policy, Memory, tuple[Verdict, Reason]]] = {
    "an original that was never seen in use": (ORIGINAL, PATIENT, Memory(), TOO_YOUNG),
    "one that was": (ORIGINAL, PATIENT, Memory(last_used={ORIGINAL: NOW - 29 * DAY}), EXPIRED),
    "one that was, as the same file": (
        ORIGINAL,
        PATIENT,
        Memory(last_used={ORIGINAL: NOW - 29 * DAY}, used_files={ORIGINAL: inode_of(ORIGINAL)[1]}),
        EXPIRED,
    ),
    "one that was fetched anew under a name that was": (
        ORIGINAL,
        PATIENT,
        Memory(last_used={ORIGINAL: NOW - 40 * DAY}, used_files={ORIGINAL: 1}),
        TOO_YOUNG,
    ),
    "another original was": (ORIGINAL, PATIENT, Memory(last_used={OTHER: NOW - 29 * DAY}), TOO_YOUNG),
    "a resized copy": (RESIZED, PATIENT, Memory(), EXPIRED),
    "a swap base": (SWAP, PATIENT, Memory(), EXPIRED),
    "a leftover": (PARTIAL, PATIENT, Memory(), STALE),
    "no such age": (ORIGINAL, policy(), Memory(), EXPIRED),
    "such an age that is over": (ORIGINAL, policy(minimum_age=MinimumAge(never_used=29 * DAY)), Memory(), EXPIRED),
    "such an age that is shorter than that of all originals": (
        ORIGINAL,
        policy(minimum_age=MinimumAge(original=40 * DAY, never_used=DAY)),
        Memory(),
        TOO_YOUNG,
    ),
}


@pytest.mark.parametrize(("name", "wanted", "memory", "expected"), NEVER.values(), ids=NEVER)
def test_an_original_that_was_never_seen_in_use_waits_for_its_own_age(
    name: bytes, wanted: Policy, memory: Memory, expected: tuple[Verdict, Reason]
) -> None:
    assert verdict(cached(name), policy=wanted, memory=memory) == expected


def test_what_waits_because_it_was_never_seen_in_use_says_so_and_when_it_may_go() -> None:
    item = only(judge(cached(), policy=PATIENT).files)
    assert item.message == "unused for 30d; may go after 60d, as it was never seen in use"
    assert item.removable_at == NOW + 30 * DAY


# Limits


def limited(**limits: Any) -> Policy:
    return Policy(limits=Limits(**{"max_files": 10**9, "max_percent": 100, **limits}))


def aged(count: int, *, size: int = 4096) -> list[Any]:
    """Originals, each a day older than the one before it, listed youngest first."""
    return [cached(original(number), age=(10 + number) * DAY, size=size) for number in range(count)]


LIMITS: dict[str, tuple[int, Policy, int]] = {
    "no limit binds": (8, limited(), 8),
    "so many files": (8, limited(max_files=3), 3),
    "no files at all is one": (8, limited(max_files=0), 1),
    "a quarter of the cache": (8, limited(max_percent=25), 2),
    "a quarter of a small cache is one": (3, limited(max_percent=25), 1),
    "the stricter of the two": (8, limited(max_files=3, max_percent=25), 2),
    "so many bytes": (8, limited(max_bytes=3 * 4096), 3),
    "not quite so many bytes": (8, limited(max_bytes=3 * 4096 - 1), 2),
    "fewer bytes than any file has is one": (8, limited(max_bytes=1), 1),
    "nova's cache and the defaults": (8, Policy(), 2),
    "a big cache and the defaults": (100, Policy(), 20),
}


@pytest.mark.parametrize(("count", "wanted", "gone"), LIMITS.values(), ids=LIMITS)
def test_a_pass_removes_within_its_limits_the_longest_unused_first(count: int, wanted: Policy, gone: int) -> None:
    found = judge(*aged(count), policy=wanted)
    going = [item.file.name.raw for item in found.removals]
    assert going == [original(number) for number in reversed(range(count - gone, count))]
    waiting = [item for item in found.files if item.verdict is Verdict.HOLD]
    assert {item.reason for item in waiting} <= {Reason.LIMIT_REACHED}
    assert len(waiting) == count - gone
    assert len(found.holds) == (1 if waiting else 0)


def test_a_percentage_counts_the_files_that_are_nova_s() -> None:
    strangers = [cached(b"notes-%d" % number) for number in range(100)]
    kept = [cached(original(100 + number), age=0) for number in range(4)]
    found = judge(*aged(4), *strangers, *kept, policy=limited(max_percent=25))
    assert len(found.removals) == 2


def test_a_file_of_which_another_hard_link_exists_uses_up_no_bytes() -> None:
    linked = [cached(original(number), links=2, size=10**9) for number in range(3)]
    assert len(judge(*linked, policy=limited(max_bytes=1)).removals) == 3


def test_limits_choose_among_what_may_go_and_held_files_use_up_nothing() -> None:
    usage = Usage(unknown=(replace(UNKNOWN, only=frozenset({original(3)})),))
    found = judge(*aged(4), usage=usage, policy=limited(max_files=1))
    assert names(found.files, Verdict.REMOVE) == [original(2)]


def test_of_equally_old_files_the_same_ones_go_every_time() -> None:
    files = [cached(original(number)) for number in range(6)]
    one, other = (judge(*some, policy=limited(max_files=2)) for some in (files, files[::-1]))
    assert one == other


# Clocks and memory


JUMPS: dict[str, tuple[Clock | None, bool]] = {
    "the first pass": (None, False),
    "an hour that took an hour": (before(HOUR), False),
    "a slewed clock": (before(HOUR, jump=CLOCK_TOLERANCE), False),
    "a clock slewed back": (before(HOUR, jump=-CLOCK_TOLERANCE), False),
    "forward": (before(HOUR, jump=CLOCK_TOLERANCE + 1), True),
    "back": (before(HOUR, jump=-CLOCK_TOLERANCE - 1), True),
    "a long pause, suspend included": (before(100 * HOUR), False),
    "another boot, later": (Clock(NOW - DAY, 9e9, "that boot"), False),
    "another boot, before the last pass": (Clock(NOW + HOUR, 10.0, "that boot"), True),
    "another boot, a moment before the last pass": (Clock(NOW + MINUTE, 10.0, "that boot"), False),
    "another boot that has no id, later": (replace(CLOCK, wall=NOW - DAY, boot="", uptime=10.0), False),
}


@pytest.mark.parametrize(("clock", "jumped"), JUMPS.values(), ids=JUMPS)
def test_a_clock_that_jumped_stops_the_pass_and_starts_every_age_anew(clock: Clock | None, jumped: bool) -> None:
    found = judge(cached(), memory=Memory(clock=clock))
    assert (only(found.files).reason is Reason.CLOCK_JUMPED, found.restart_ages) == (jumped, jumped)


def test_without_boot_ids_two_boots_are_never_taken_for_one() -> None:
    memory = Memory(clock=Clock(NOW - 30 * DAY, CLOCK.uptime - HOUR, ""))
    assert verdict(memory=memory, now=replace(CLOCK, boot="")) == EXPIRED


@pytest.mark.parametrize("ages_since", [None, NOW - 99 * DAY])
def test_a_lost_memory_starts_every_age_anew_and_says_so(ages_since: float | None) -> None:
    memory = Memory(ages_since=ages_since, directories=Directories.MEMORY_LOST, directories_message="it was lost")
    found = judge(*(cached(name) for name in EVERY.values()), memory=memory)
    assert {item.reason for item in found.files} == {Reason.TOO_YOUNG}
    assert found.restart_ages
    assert found.notes == (Note("MemoryLost", "it was lost"),)
    assert not found.held


@pytest.mark.parametrize("directories", [Directories.NEW, Directories.KNOWN])
def test_the_first_pass_trusts_time_stamps(directories: Directories) -> None:
    assert verdict(memory=Memory(directories=directories)) == EXPIRED


# The breaker


SIX = [original(number) for number in range(6)]


def breaker_case(gone: int, *, was: int = 10, left: int = 10, **usage: Any) -> Breaker | None:
    """The breaker after `gone` of six used bases lost all users, with `left` of `was` places left."""
    still = used({name: [overlay()] for name in SIX[gone:]}, directories=left, **usage)
    memory = Memory(last_pass=LastPass(frozenset(SIX), was))
    return judge(*map(cached, SIX), usage=still, memory=memory).breaker


def test_the_breaker_opens_when_most_bases_lose_all_users_at_once() -> None:
    assert breaker_case(4) == Breaker(Reason.USERS_VANISHED, NOW, frozenset(SIX))


STAYS_CLOSED: dict[str, dict[str, Any]] = {
    "half of the bases": {"gone": 3},
    "the node was drained": {"gone": 6, "left": 5},
    "domains count as places too": {"gone": 6, "left": 2, "domains": 3},
    "the evidence is not complete": {"gone": 6, "unknown": (DEAF,)},
}


@pytest.mark.parametrize("case", STAYS_CLOSED.values(), ids=STAYS_CLOSED)
def test_the_breaker_stays_closed_when_the_loss_has_another_explanation(case: dict[str, Any]) -> None:
    assert breaker_case(**case) is None


def test_domains_that_are_still_there_make_a_loss_suspect() -> None:
    assert breaker_case(6, left=3, domains=3) is not None


def test_two_bases_are_too_few_for_the_breaker() -> None:
    memory = Memory(last_pass=LastPass(frozenset(SIX[:2]), 10))
    assert judge(*map(cached, SIX), usage=Usage(directories=10), memory=memory).breaker is None


@pytest.mark.parametrize("evidence", ["inode", "qemu"])
def test_a_base_that_is_only_reached_or_locked_has_not_lost_its_users(evidence: str) -> None:
    reached = {inode_of(name): (overlay(),) for name in SIX}
    usage = Usage(by_inode=reached) if evidence == "inode" else Usage(qemu_locks=frozenset(reached))
    memory = Memory(last_pass=LastPass(frozenset(SIX), 10))
    assert judge(*map(cached, SIX), usage=replace(usage, directories=10), memory=memory).breaker is None


SINCE = NOW - DAY + HOUR
OPEN = Breaker(Reason.USERS_VANISHED, SINCE, frozenset(SIX))
CLOSING: dict[str, tuple[Clock, dict[str, Any], dict[str, Any], float | None]] = {
    "still gone": (CLOCK, {}, {}, SINCE),
    "half are back": (CLOCK, {"by_name": dict.fromkeys(SIX[:3], (overlay(),))}, {}, None),
    "too few are back": (CLOCK, {"by_name": dict.fromkeys(SIX[:2], (overlay(),))}, {}, SINCE),
    "a minimum age is over": (later(HOUR), {}, {}, None),
    "almost": (later(HOUR - 1), {}, {}, SINCE),
    "incomplete evidence starts that time again": (later(HOUR), {"unknown": (DEAF,)}, {}, NOW + HOUR),
    "a leap forward ends nothing": (CLOCK, {}, {"clock": before(HOUR, jump=DAY)}, NOW),
    "a leap back lengthens nothing": (CLOCK, {}, {"clock": before(HOUR, jump=-9 * DAY)}, NOW),
}


@pytest.mark.parametrize(("now", "usage", "memory", "since"), CLOSING.values(), ids=CLOSING)
def test_the_breaker_closes_when_users_are_back_or_after_a_minimum_age_of_complete_evidence(
    now: Clock, usage: dict[str, Any], memory: dict[str, Any], since: float | None
) -> None:
    found = judge(*map(cached, SIX), usage=Usage(**usage), memory=Memory(breaker=OPEN, **memory), now=now)
    assert found.breaker == (None if since is None else replace(OPEN, since=since))


# The quarantine


WAIT = (Decision.WAIT, Reason.IN_QUARANTINE)
PURGE = (Decision.PURGE, Reason.RETENTION_OVER)


def test_a_removed_file_waits_until_its_side_car_says_that_it_is_due() -> None:
    entry = removed(ago=HOUR, retention=HOUR)
    assert decision(replace(entry, due_at=NOW + 0.5)) == WAIT
    assert decision(entry) == PURGE


RESTORES: dict[str, tuple[Reason, dict[str, Any]]] = {
    "a disk names it": (Reason.IN_USE_BY_OVERLAY, {"usage": used({ORIGINAL: [overlay()]})}),
    "a chain reaches it in the quarantine": (
        Reason.IN_USE_BY_OVERLAY,
        {"usage": Usage(by_inode={removed().inode: (overlay(),)})},
    ),
    "a domain names it": (Reason.IN_USE_BY_DOMAIN, {"usage": used({ORIGINAL: [domain()]})}),
    "qemu holds its lock": (Reason.LOCKED_BY_QEMU, {"usage": Usage(qemu_locks=frozenset({removed().inode}))}),
    "its image is pinned": (Reason.PINNED, {"policy": policy(pinned_images=frozenset({IMAGE}))}),
    "its name is pinned by hand": (Reason.PINNED, {"memory": Memory(pins={ORIGINAL: NOW + 1})}),
    "a domain was made from its image": (Reason.IMAGE_OF_DOMAIN, {"usage": made_from()}),
    "a domain made from its image misses a disk": (
        Reason.IMAGE_OF_DOMAIN,
        {"usage": made_from(needed=True), "policy": policy(cached_only=CachedOnly.REMOVE)},
    ),
}


@pytest.mark.parametrize("ago", [0.0, 99 * DAY], ids=["just removed", "long due"])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(("reason", "given"), RESTORES.values(), ids=RESTORES)
def test_a_needed_file_goes_back_in_every_mode(reason: Reason, given: dict[str, Any], mode: Mode, ago: float) -> None:
    wanted = replace(given.get("policy", policy()), mode=mode)
    usage = replace(given.get("usage", Usage()), unknown=(DEAF,), spawns=(SPAWN,))
    assert decision(removed(ago=ago), **(given | {"policy": wanted, "usage": usage})) == (Decision.RESTORE, reason)


WAITS: dict[str, tuple[Reason, Usage]] = {
    "nova holds its lock": (Reason.LOCKED_BY_NOVA, Usage(nova_locks=frozenset({ORIGINAL}))),
    "a process has it open": (Reason.OPEN_IN_PROCESS, Usage(open_files={removed().inode: OPEN_BY})),
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a newer one"])
@pytest.mark.parametrize(("reason", "usage"), WAITS.values(), ids=WAITS)
def test_what_may_pass_in_a_moment_neither_restores_nor_purges(reason: Reason, usage: Usage, beside: bool) -> None:
    files = [cached()] if beside else []
    assert decision(removed(), *files, usage=usage) == (Decision.WAIT, reason)


BLOCKS: dict[str, tuple[Reason, Usage]] = {
    "anything unknown": (Reason.UNKNOWN_USAGE, Usage(unknown=(DEAF,))),
    "an unknown about other names": (Reason.UNKNOWN_USAGE, Usage(unknown=(replace(UNKNOWN, only=frozenset({SWAP})),))),
    "a spawn": (Reason.SPAWN_IN_PROGRESS, Usage(spawns=(SPAWN,))),
}


@pytest.mark.parametrize("name", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(("reason", "usage"), BLOCKS.values(), ids=BLOCKS)
def test_a_purge_needs_complete_evidence_whatever_the_file(reason: Reason, usage: Usage, name: bytes) -> None:
    found = judge(removed(name), usage=usage)
    assert (only(found.entries).decision, only(found.entries).reason) == (Decision.HOLD, reason)
    assert found.purge_blocked is not None
    assert [item.path for item in found.holds] == [
        usage.unknown[0].path if usage.unknown else SPAWN.path,
    ]
    assert found.notes == ()


def test_what_is_not_due_is_held_by_nothing() -> None:
    found = judge(removed(ago=MINUTE), usage=Usage(unknown=(DEAF,), spawns=(SPAWN,)))
    assert (only(found.entries).decision, found.holds, found.held) == (Decision.WAIT, (), False)


LEAPS: dict[str, tuple[float, float, tuple[Decision, Reason]]] = {
    "removed before a leap forward, a moment after it": (NOW - 9 * DAY, NOW - HOUR, WAIT),
    "removed before a leap forward, a retention after it": (NOW - 9 * DAY, NOW - 6 * HOUR, PURGE),
    "removed since": (NOW - 6 * HOUR, NOW - 9 * DAY, PURGE),
    "removed since, a moment ago": (NOW - HOUR, NOW - 9 * DAY, WAIT),
    "removed in a future that the clock left": (NOW + 900 * DAY, NOW - 6 * HOUR, PURGE),
    "removed in a future that the clock has just left": (NOW + 900 * DAY, NOW - HOUR, WAIT),
    "removed a second ahead of a clock that was put right": (NOW + 1, NOW - 9 * DAY, WAIT),
}


@pytest.mark.parametrize(("removed_at", "ages_since", "expected"), LEAPS.values(), ids=LEAPS)
def test_a_retention_lasts_its_time_whatever_the_clock_did(
    removed_at: float, ages_since: float, expected: tuple[Decision, Reason]
) -> None:
    entry = removed(removed_at=removed_at, due_at=removed_at + 6 * HOUR)
    assert decision(entry, memory=Memory(ages_since=ages_since)) == expected


def test_a_lost_memory_starts_retentions_anew() -> None:
    assert decision(removed(), memory=Memory(directories=Directories.MEMORY_LOST)) == WAIT


CONFLICT = (Decision.HOLD, Reason.CONFLICT)
NEEDED = used({ORIGINAL: [overlay()]})
NEWER = cached(age=0)
COMPARED = (removed().id, NEWER.inode[1], NEWER.size)
BESIDE: dict[str, tuple[Any, Usage, Memory, tuple[Decision, Reason]]] = {
    "nobody has compared them": (NEWER, NEEDED, Memory(), CONFLICT),
    "they differ": (NEWER, NEEDED, Memory(compared={COMPARED: False}), CONFLICT),
    "they are the same": (NEWER, NEEDED, Memory(compared={COMPARED: True}), PURGE),
    "another file was compared": (
        NEWER,
        NEEDED,
        Memory(compared={(removed().id, NEWER.inode[1], NEWER.size + 1): True}),
        CONFLICT,
    ),
    "another entry was compared": (NEWER, NEEDED, Memory(compared={("other", *COMPARED[1:]): True}), CONFLICT),
    "a chain reaches the old one itself": (
        NEWER,
        Usage(by_inode={removed().inode: (overlay(),)}),
        Memory(compared={COMPARED: True}),
        CONFLICT,
    ),
    "qemu reads the old one itself": (
        NEWER,
        Usage(qemu_locks=frozenset({removed().inode})),
        Memory(compared={COMPARED: True}),
        CONFLICT,
    ),
    "the operator gave the old one up": (NEWER, NEEDED, Memory(given_up=frozenset({removed().id})), PURGE),
    "the operator gave up what qemu reads": (
        NEWER,
        Usage(qemu_locks=frozenset({removed().inode})),
        Memory(given_up=frozenset({removed().id})),
        CONFLICT,
    ),
    "the operator gave another one up": (NEWER, NEEDED, Memory(given_up=frozenset({"other"})), CONFLICT),
    "it is the same file under both names": (replace(NEWER, inode=removed().inode), NEEDED, Memory(), PURGE),
    "nothing needs either": (NEWER, Usage(), Memory(), PURGE),
    "a directory has its name": (replace(NEWER, type=FileType.DIRECTORY), NEEDED, Memory(), CONFLICT),
}


@pytest.mark.parametrize(("newer", "usage", "memory", "expected"), BESIDE.values(), ids=BESIDE)
def test_a_needed_file_whose_name_is_taken_goes_only_as_a_copy(
    newer: Any, usage: Usage, memory: Memory, expected: tuple[Decision, Reason]
) -> None:
    found = judge(newer, removed(), usage=usage, memory=memory)
    entry = only(found.entries)
    assert (entry.decision, entry.reason) == expected
    assert entry.as_copy == (memory.compared == {COMPARED: True} and expected == PURGE)
    assert [item.reason for item in found.holds] == ([Reason.CONFLICT] if expected == CONFLICT else [])


def test_an_operator_s_word_purges_nothing_that_is_needed_and_has_no_other_file_of_its_name() -> None:
    given_up = Memory(given_up=frozenset({removed().id}))
    assert decision(removed(), usage=NEEDED, memory=given_up)[0] is Decision.RESTORE


def test_a_copy_is_purged_no_earlier_and_on_no_weaker_evidence_than_any_other() -> None:
    memory = Memory(compared={COMPARED: True})
    assert decision(NEWER, replace(removed(), due_at=NOW + 1), usage=NEEDED, memory=memory) == WAIT
    unsure = replace(NEEDED, unknown=(DEAF,))
    assert decision(NEWER, removed(), usage=unsure, memory=memory) == (Decision.HOLD, Reason.UNKNOWN_USAGE)
    for busy in (usage for _, usage in WAITS.values()):
        at_work = replace(busy, by_name=NEEDED.by_name)
        assert decision(NEWER, removed(), usage=at_work, memory=memory) == WAIT


OLD, NEW = removed(tag="old", ago=9 * DAY), removed(tag="new", ago=8 * DAY)
RIVALS: dict[str, tuple[Any, Any, Usage, str]] = {
    "the newer one": (OLD, NEW, NEEDED, "new"),
    "the one that this user used last": (replace(OLD, last_users=("a/disk",)), NEW, NEEDED, "old"),
    "the one that a chain reaches": (
        OLD,
        replace(NEW, last_users=("a/disk",)),
        Usage(by_inode={OLD.inode: (overlay(),)}, by_name={ORIGINAL: (overlay(),)}),
        "old",
    ),
    "the one that qemu reads": (OLD, NEW, replace(NEEDED, qemu_locks=frozenset({OLD.inode})), "old"),
}


@pytest.mark.parametrize(("old", "new", "usage", "back"), RIVALS.values(), ids=RIVALS)
def test_of_two_removed_files_of_one_name_one_goes_back_and_the_other_stays(
    old: Any, new: Any, usage: Usage, back: str
) -> None:
    found = judge(old, new, usage=usage)
    became = {item.entry.id.rpartition(".")[2]: item.decision for item in found.entries}
    assert became == {back: Decision.RESTORE, ({"old", "new"} - {back}).pop(): Decision.HOLD}
    assert [item.reason for item in found.holds] == [Reason.CONFLICT]


def test_only_the_removed_file_that_qemu_reads_is_needed_when_nothing_names_it() -> None:
    found = judge(OLD, NEW, usage=Usage(qemu_locks=frozenset({OLD.inode})))
    assert [(item.entry.id, item.decision) for item in found.entries] == [
        (OLD.id, Decision.RESTORE),
        (NEW.id, Decision.PURGE),
    ]


# Emptying the quarantine


def emptying(drain: Drain, **fields: Any) -> Policy:
    """A policy that empties the quarantine."""
    return policy(**{"mode": Mode.ENFORCE, "drain": drain, **fields})


BACK = (Decision.RESTORE, Reason.DRAINING)
GONE = (Decision.PURGE, Reason.DRAINING)
OVERLAID = (Decision.RESTORE, Reason.IN_USE_BY_OVERLAY)
YOUNG = removed(ago=MINUTE)
GIVEN_UP = Memory(given_up=frozenset({removed().id}))
DRAINED: dict[str, tuple[list[Any], dict[str, Any], tuple[Decision, Reason], tuple[Decision, Reason]]] = {
    "nothing speaks for it": ([YOUNG], {}, BACK, GONE),
    "its time is over": ([removed()], {}, BACK, GONE),
    "it is needed": ([YOUNG], {"usage": NEEDED}, OVERLAID, OVERLAID),
    "its image is pinned": (
        [YOUNG],
        {"memory": Memory(pins={ORIGINAL: NOW + 1})},
        (Decision.RESTORE, Reason.PINNED),
        (Decision.RESTORE, Reason.PINNED),
    ),
    "something is unknown": ([YOUNG], {"usage": Usage(unknown=(DEAF,))}, BACK, (Decision.HOLD, Reason.UNKNOWN_USAGE)),
    "an instance starts": ([YOUNG], {"usage": Usage(spawns=(SPAWN,))}, BACK, (Decision.HOLD, Reason.SPAWN_IN_PROGRESS)),
    "the storage is shared": (
        [YOUNG],
        {"usage": Usage(shared=Shared("nfs"))},
        BACK,
        (Decision.HOLD, Reason.SHARED_STORAGE),
    ),
    "the clock jumped": (
        [YOUNG],
        {"memory": Memory(clock=before(HOUR, jump=DAY))},
        BACK,
        (Decision.HOLD, Reason.CLOCK_JUMPED),
    ),
    "the directories are others": (
        [YOUNG],
        {"memory": Memory(directories=Directories.OTHER)},
        BACK,
        (Decision.HOLD, Reason.OTHER_DIRECTORY),
    ),
    "the memory was lost": ([YOUNG], {"memory": Memory(directories=Directories.MEMORY_LOST)}, BACK, GONE),
    "nova holds its lock": (
        [YOUNG],
        {"usage": Usage(nova_locks=frozenset({ORIGINAL}))},
        (Decision.WAIT, Reason.LOCKED_BY_NOVA),
        (Decision.WAIT, Reason.LOCKED_BY_NOVA),
    ),
    "a process has it open": (
        [YOUNG],
        {"usage": Usage(open_files={YOUNG.inode: OPEN_BY})},
        (Decision.WAIT, Reason.OPEN_IN_PROCESS),
        (Decision.WAIT, Reason.OPEN_IN_PROCESS),
    ),
    "qemu reads it": (
        [YOUNG],
        {"usage": Usage(qemu_locks=frozenset({YOUNG.inode}))},
        (Decision.RESTORE, Reason.LOCKED_BY_QEMU),
        (Decision.RESTORE, Reason.LOCKED_BY_QEMU),
    ),
    "its name is taken, and it is not due": ([YOUNG, NEWER], {}, WAIT, GONE),
    "its name is taken, and it is due": ([removed(), NEWER], {}, PURGE, GONE),
    "its name is a directory's": ([YOUNG, replace(NEWER, type=FileType.DIRECTORY)], {}, WAIT, GONE),
    "its name is taken, and it is needed": ([YOUNG, NEWER], {"usage": NEEDED}, CONFLICT, CONFLICT),
    "its name is taken by a copy, and it is needed": (
        [YOUNG, NEWER],
        {"usage": NEEDED, "memory": Memory(compared={COMPARED: True})},
        WAIT,
        GONE,
    ),
    "its name is taken, and qemu reads it": (
        [YOUNG, NEWER],
        {"usage": Usage(qemu_locks=frozenset({YOUNG.inode})), "memory": GIVEN_UP},
        CONFLICT,
        CONFLICT,
    ),
}


@pytest.mark.parametrize(("things", "given", "restored", "purged"), DRAINED.values(), ids=DRAINED)
def test_an_emptied_quarantine_gives_back_or_purges_as_the_evidence_allows(
    things: list[Any], given: dict[str, Any], restored: tuple[Decision, Reason], purged: tuple[Decision, Reason]
) -> None:
    assert decision(*things, policy=emptying(Drain.RESTORE), **given) == restored
    assert decision(*things, policy=emptying(Drain.PURGE), **given) == purged


def test_a_suspended_policy_empties_the_quarantine_into_the_cache_only() -> None:
    assert decision(YOUNG, policy=emptying(Drain.RESTORE, suspend=True)) == BACK
    assert decision(YOUNG, policy=emptying(Drain.PURGE, suspend=True)) == (Decision.HOLD, Reason.SUSPENDED)


@pytest.mark.parametrize("drain", Drain)
def test_nothing_is_removed_while_the_quarantine_is_emptied(drain: Drain) -> None:
    files = [cached(name) for name in EVERY.values()]
    found = judge(*files, cached(OTHER, age=0), policy=emptying(drain))
    assert {item.file.name.raw: (item.verdict, item.reason) for item in found.files} == {
        **dict.fromkeys(EVERY.values(), hold(Reason.DRAINING)),
        OTHER: TOO_YOUNG,
    }
    assert [item.reason for item in found.holds] == [Reason.DRAINING]


@pytest.mark.parametrize("drain", Drain)
def test_in_audit_no_quarantine_is_emptied(drain: Drain) -> None:
    audit = emptying(drain, mode=Mode.AUDIT)
    assert decision(YOUNG, policy=audit) == WAIT
    assert decision(removed(), policy=audit) == PURGE
    assert verdict(cached(), policy=audit) == EXPIRED


DRAINED_RIVALS: dict[str, tuple[Usage, dict[str, Decision]]] = {
    "nothing needs either": (Usage(), {"old": Decision.WAIT, "new": Decision.RESTORE}),
    "qemu reads the old one": (
        Usage(qemu_locks=frozenset({OLD.inode})),
        {"old": Decision.RESTORE, "new": Decision.WAIT},
    ),
    "a process has the old one open": (
        Usage(open_files={OLD.inode: OPEN_BY}),
        {"old": Decision.WAIT, "new": Decision.WAIT},
    ),
    "a process has the new one open": (
        Usage(open_files={NEW.inode: OPEN_BY}),
        {"old": Decision.WAIT, "new": Decision.WAIT},
    ),
    "something needs the name": (NEEDED, {"old": Decision.HOLD, "new": Decision.RESTORE}),
}


@pytest.mark.parametrize(("usage", "expected"), DRAINED_RIVALS.values(), ids=DRAINED_RIVALS)
def test_of_two_removed_files_of_one_name_an_emptied_quarantine_gives_back_one(
    usage: Usage, expected: dict[str, Decision]
) -> None:
    rivals = [replace(entry, due_at=NOW + HOUR) for entry in (OLD, NEW)]
    found = judge(*rivals, usage=usage, policy=emptying(Drain.RESTORE))
    assert {item.entry.id.rpartition(".")[2]: item.decision for item in found.entries} == expected


def test_a_plan_is_sorted_and_says_what_it_would_do_in_which_order() -> None:
    files = [cached(original(number), age=(40 - number) * DAY) for number in range(3)]
    entries = [removed(original(number)) for number in (7, 8, 9)]
    found = judge(*files[::-1], *entries[::-1], usage=used({original(8): [overlay()]}))
    assert [item.file.name.raw for item in found.files] == sorted(file.name.raw for file in files)
    assert [item.file for item in found.removals] == files
    assert [item.entry.name.raw for item in found.restores] == [original(8)]
    assert [item.entry.name.raw for item in found.purges] == sorted([original(7), original(9)])


SPANS: dict[str, tuple[float, str]] = {
    "seconds": (59.9, "59s"),
    "minutes": (61, "1m 1s"),
    "days": (DAY + MINUTE, "1d 1m"),
    "the two largest units": (DAY + HOUR + MINUTE, "1d 1h"),
}


@pytest.mark.parametrize(("age", "said"), SPANS.values(), ids=SPANS)
def test_an_age_is_told_as_people_say_it(age: float, said: str) -> None:
    item = only(judge(cached(age=age), policy=policy(minimum_age=MinimumAge(original=0))).files)
    assert item.message == f"nothing has used it for {said}"


def test_a_name_in_a_message_is_the_lock_s_as_nova_writes_it() -> None:
    item = only(judge(cached(PARTIAL), usage=Usage(nova_locks=frozenset({ORIGINAL}))).files)
    assert item.message == f"somebody holds nova's lock nova-{ORIGINAL.decode()}"
    assert parse(PARTIAL).lock_name == ORIGINAL
