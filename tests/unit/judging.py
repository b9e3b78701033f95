"""Short words for what judgement takes, so that a case in a table shows only what it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TypeVar

from basekeeper.cache.evidence import (
    CachedFile,
    FileType,
    Identity,
    ImageUser,
    Inode,
    Inventory,
    QuarantineEntry,
    Room,
    Source,
    Spawn,
    Unknown,
    Usage,
    User,
)
from basekeeper.cache.judged import Judged
from basekeeper.cache.memory import Clock, Memory
from basekeeper.cache.names import original_of, parse
from basekeeper.cache.plan import Plan, plan
from basekeeper.cache.quarantine_plan import Decision, JudgedEntry
from basekeeper.cache.settings import Limits, Policy
from basekeeper.cache.verdicts import Reason, Verdict
from basekeeper.cache.windows import Window

Item = TypeVar("Item", Judged, JudgedEntry)

NOW = 1_800_000_000.0
CLOCK = Clock(wall=NOW, uptime=500_000.0, boot="this boot")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

IMAGE = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
ORIGINAL = original_of(IMAGE)
OTHER = original_of("another image")
RESIZED = ORIGINAL + b"_20"
SWAP = b"swap_512"
EPHEMERAL = b"ephemeral_20_0706d66"
PARTIAL = ORIGINAL + b".part"
NFS = b".nfs000000000012ab3400000001"
FOREIGN = b"notes.txt"

OPEN_NOW, CLOSED_NOW = Window("0 8 * * *", HOUR, UTC), Window("0 7 * * *", HOUR, UTC)
"""Windows of which one opens at `NOW`, in the morning of a day, and one closes."""

NO_LIMITS = Limits(max_files=10**9, max_bytes=None, max_percent=100)


def original(number: int) -> bytes:
    """The name of one original of many."""
    return original_of(f"image {number}")


def inode_of(name: bytes) -> Inode:
    """The inode that `cached` gives to a name."""
    return (1, int.from_bytes(original_of(repr(name))[:7]))


def cached(name: bytes = ORIGINAL, *, age: float = 30 * DAY, size: int = 4096, **other: object) -> CachedFile:
    """A regular file of the cache, unused for long."""
    fields: dict[str, object] = {"type": FileType.REGULAR, "inode": inode_of(name), "allocated": size, "links": 1}
    fields |= {"mtime": NOW - age, **other}
    return CachedFile(name=parse(name), size=size, **fields)  # type: ignore[arg-type]


def removed(
    name: bytes = ORIGINAL, *, ago: float = 7 * HOUR, retention: float = 6 * HOUR, tag: str = "", **other: object
) -> QuarantineEntry:
    """A quarantined file whose time is over."""
    fields: dict[str, object] = {
        "id": f"{name.decode()}.{tag or 'entry'}",
        "inode": (1, inode_of(name + tag.encode())[1] + 1),
        "size": 4096,
        "allocated": 4096,
        "links": 1,
        "mtime": NOW - 30 * DAY,
        "removed_at": NOW - ago,
        "due_at": NOW - ago + retention,
        "reason": Reason.EXPIRED.value,
    }
    return QuarantineEntry(name=parse(name), **(fields | other))  # type: ignore[arg-type]


def overlay(who: str = "a/disk") -> User:
    """A disk that needs a base."""
    return User(Source.OVERLAY, who)


def domain(who: str = "domain 7") -> User:
    """A domain that names a base."""
    return User(Source.DOMAIN, who)


def used(users: Mapping[bytes, Sequence[User]], **other: object) -> Usage:
    """Usage in which these names have these users."""
    return Usage(by_name={name: tuple(some) for name, some in users.items()}, **other)  # type: ignore[arg-type]


def made_from(name: bytes = ORIGINAL, *, needed: bool = False, **other: object) -> Usage:
    """Usage in which a domain was made from the image of this original."""
    return Usage(images={name: (ImageUser("domain 7", needed),)}, **other)  # type: ignore[arg-type]


UNKNOWN = Unknown("a/disk cannot be read: Permission denied", "a/disk", Identity(5, 6, 7))
DEAF = Unknown("libvirt does not answer")
SPAWN = Spawn("b", NOW - MINUTE)


def judge(
    *things: CachedFile | QuarantineEntry,
    usage: Usage | None = None,
    policy: Policy | None = None,
    memory: Memory | None = None,
    now: Clock = CLOCK,
    room: Room | None = None,
    shared: Mapping[Inode, int] | None = None,
) -> Plan:
    """The plan for these files and entries; limits do not bind unless a policy is given."""
    inventory = Inventory(
        files=tuple(thing for thing in things if isinstance(thing, CachedFile)),
        entries=tuple(thing for thing in things if isinstance(thing, QuarantineEntry)),
        room=room,
        shared=shared or {},
    )
    unlimited = Policy(limits=NO_LIMITS)
    return plan(inventory, usage or Usage(), policy or unlimited, memory or Memory(), now)


def verdict(
    thing: CachedFile | None = None,
    *,
    usage: Usage | None = None,
    policy: Policy | None = None,
    memory: Memory | None = None,
    now: Clock = CLOCK,
) -> tuple[Verdict, Reason]:
    """What becomes of one file and why."""
    item = only(judge(thing or cached(), usage=usage, policy=policy, memory=memory, now=now).files)
    return item.verdict, item.reason


def decision(
    *things: CachedFile | QuarantineEntry,
    usage: Usage | None = None,
    policy: Policy | None = None,
    memory: Memory | None = None,
    now: Clock = CLOCK,
) -> tuple[Decision, Reason]:
    """What becomes of the one entry among these and why."""
    item = only(judge(*things, usage=usage, policy=policy, memory=memory, now=now).entries)
    return item.decision, item.reason


def only(items: Sequence[Item]) -> Item:
    """The one item."""
    assert len(items) == 1
    return items[0]


def later(seconds: float, *, clock: Clock = CLOCK, jump: float = 0.0) -> Clock:
    """A clock some seconds later in the same boot, whose wall clock was set by `jump` meanwhile."""
    return replace(clock, wall=clock.wall + seconds + jump, uptime=clock.uptime + seconds)


def before(seconds: float, *, jump: float = 0.0) -> Clock:
    """The clock of a pass that ended some seconds ago, before the wall clock was set by `jump`."""
    return Clock(wall=NOW - seconds - jump, uptime=CLOCK.uptime - seconds, boot=CLOCK.boot)


def names(items: Sequence[Judged], wanted: Verdict) -> list[bytes]:
    """The names of the files with this verdict, as listed."""
    return [item.file.name.raw for item in items if item.verdict is wanted]
