"""Directories without a domain are told with what they alone keep, and never where domains are not known."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.evidence import Inventory, Leftover, Shared, Spawn, User
from basekeeper.cache.memory import Memory
from basekeeper.cache.orphans import AFTER, OrphanKind, Orphans, judge
from basekeeper.cache.settings import Policy
from tests.unit.judging import CLOCK, DAY, HOUR, IMAGE, NOW, ORIGINAL, OTHER, UNKNOWN, cached, domain, overlay, used

FILES = (cached(), cached(OTHER, size=8192))


def left(path: str = "a_del", *, age: float = 30 * DAY, size: int = 100) -> Leftover:
    """A directory without a domain."""
    return Leftover(path, NOW - age, size)


def found(
    *leftovers: Leftover,
    users: dict[bytes, list[User]] | None = None,
    policy: Policy | None = None,
    older_than: float = AFTER,
    known: bool = True,
    **usage: Any,
) -> Orphans:
    """What is told of these directories, whose disks need these bases."""
    measured = leftovers if known else None
    return judge(
        Inventory(FILES, ()), used(users or {}, **usage), measured, policy or Policy(), Memory(), CLOCK, older_than
    )


def test_what_a_directory_alone_keeps_is_told_with_its_bytes() -> None:
    both = {ORIGINAL: [overlay("a_del/disk")], OTHER: [overlay("a_del/disk.swap"), overlay("b/disk")]}
    told = found(left(), users=both)
    (orphan,) = told.directories
    assert (orphan.kind, orphan.bytes, len(orphan.bases)) == (OrphanKind.DELETED, 100, 2)
    assert (orphan.alone, orphan.alone_bytes) == ((ORIGINAL.decode(),), 4096)
    assert (told.kept_by, told.alone_bytes, told.oldest) == ({ORIGINAL: ("a_del",)}, 4096, NOW - 30 * DAY)


def test_what_two_of_them_keep_together_no_one_of_them_keeps_alone() -> None:
    told = found(left(), left("b"), users={ORIGINAL: [overlay("a_del/disk"), overlay("b/disk")]})
    assert [orphan.alone for orphan in told.directories] == [(), ()]
    assert (told.kept_by, told.alone_bytes) == ({ORIGINAL: ("a_del", "b")}, 4096)


NEEDED: dict[str, dict[str, Any]] = {
    "another disk": {"users": {ORIGINAL: [overlay("a_del/disk"), overlay("b/disk")]}},
    "a domain": {"users": {ORIGINAL: [overlay("a_del/disk"), domain()]}},
    "a running qemu": {"qemu_locks": frozenset({cached().inode})},
    "nobody knows": {"unknown": (UNKNOWN,)},
    "a pin": {"policy": Policy(pinned_images=frozenset({IMAGE}))},
}


@pytest.mark.parametrize("more", NEEDED.values(), ids=NEEDED)
def test_what_has_another_reason_to_stay_is_not_kept_alone(more: dict[str, Any]) -> None:
    assert found(left(), **{"users": {ORIGINAL: [overlay("a_del/disk")]}, **more}).alone_bytes == 0


UNKNOWABLE: dict[str, dict[str, Any]] = {
    "libvirt does not answer": {"libvirt_failure": "no answer"},
    "there is no libvirt": {"known": False},
    "other hosts have domains too": {"shared": Shared("others use it")},
}


@pytest.mark.parametrize("why", UNKNOWABLE.values(), ids=UNKNOWABLE)
def test_where_it_is_not_known_what_has_a_domain_nothing_is_an_orphan(why: dict[str, Any]) -> None:
    told = found(left(), **why)
    assert (told.directories, told.kept_by, told.unknown is None) == ((), None, False)


def test_what_is_young_or_just_being_made_is_none() -> None:
    assert found(left(age=23 * HOUR)).directories == ()
    assert len(found(left(age=23 * HOUR), older_than=HOUR).directories) == 1
    assert found(left("b", age=60), older_than=0.0, spawns=(Spawn("b", NOW - 60),)).directories == ()


@pytest.mark.parametrize(
    ("path", "kind"), [("a_del", "Deleted"), ("a_resize", "Resized"), ("instance-0000001a", "Instance")]
)
def test_the_name_says_what_it_is_left_from(path: str, kind: str) -> None:
    assert [orphan.kind.value for orphan in found(left(path)).directories] == [kind]


@given(st.lists(st.tuples(st.sampled_from([ORIGINAL, OTHER]), st.sampled_from(["a_del", "b", "c"])), max_size=8))
def test_only_what_nothing_but_orphans_needs_is_kept_by_them(needs: list[tuple[bytes, str]]) -> None:
    users: dict[bytes, list[User]] = {}
    for name, path in needs:
        users.setdefault(name, []).append(overlay(f"{path}/disk"))
    told = found(left(), left("b"), users=users)
    alone = {name for name, some in users.items() if all(user.who[:2] != "c/" for user in some)}
    assert told.kept_by is not None
    assert set(told.kept_by) == alone
    assert told.alone_bytes == sum(file.reclaimable for file in FILES if file.name.raw in alone)


def test_it_changes_nothing_in_what_it_is_given() -> None:
    usage = used({ORIGINAL: [overlay("a_del/disk")]})
    before = replace(usage)
    judge(Inventory(FILES, ()), usage, (left(),), Policy(), Memory(), CLOCK, AFTER)
    assert usage == before
