"""What one host publishes for the others that share its storage, as values and as JSON. Pure.

Only what the others cannot see is needed of it: domains and what they name, locks, open files, which directories
belong to a domain. All that the host saw is in it all the same, because a network file system shows a change late to
whoever did not make it. A document is taken whole or not at all: one that is cut off, of another version or out of
bounds raises ValueError, so that nobody can mistake it for "needs nothing".
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeVar

from .evidence import ImageUser, Kept, Source, Spawn, User
from .names import display, from_display
from .verdicts import Reason

VERSION = 1
MAX_BYTES = 8 << 20
"""Of a document: a host with 5,000 domains over 1,000 bases stays under one of these eight MiB."""
_MOST_USERS = 8
"""Users that are told of one base; that there are some is what counts."""
_MOST_TROUBLES = 32
_LONGEST = 1024
"""Characters of a sentence or a name."""
_KEPT_FOR = frozenset({Reason.TOO_YOUNG, Reason.PINNED, Reason.IMAGE_OF_DOMAIN})
T = TypeVar("T")


class NoEvidence(Exception):
    """What lies in the name of a host is not its evidence; the end of a sentence says why."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that one host could not ask, or that makes its evidence suspect."""

    message: str
    only: frozenset[bytes] | None = None
    """The base names that it is about; None: any."""


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """What one host saw in one look, and what its own policy and memory make of it."""

    host: str
    """nova's name of it."""
    node: str
    instance: str
    """The id of whoever publishes; two hosts that were given one name have two."""
    boot: str
    """The kernel's boot id."""
    round: int
    """The look began after this round had been seen; 0: none."""
    time: float
    """When the look began, Unix seconds by the host's own clock."""
    skew: float
    """Seconds that the file server's clock is ahead of the host's."""
    seconds: float = 0.0
    """How long the look took."""
    resident: bool = False
    """A program goes on living there that answers rounds between its passes."""
    leader_lock_seen: bool = False
    """Whether it saw that another held the leader's lock: file locks work between the two."""
    objection: str | None = None
    """Why its policy lets nothing go from the cache; None: it does not object."""
    troubles: tuple[Trouble, ...] = ()
    used: Mapping[bytes, tuple[User, ...]] = field(default_factory=dict)
    used_files: Mapping[int, tuple[User, ...]] = field(default_factory=dict)
    """By inode number, on the file system of the cache."""
    images: Mapping[bytes, tuple[ImageUser, ...]] = field(default_factory=dict)
    qemu_locks: frozenset[int] = frozenset()
    nova_locks: frozenset[bytes] = frozenset()
    open_files: Mapping[int, str] = field(default_factory=dict)
    spawns: tuple[Spawn, ...] = ()
    claimed: Mapping[str, bool] = field(default_factory=dict)
    """Instance directories that belong to a domain there, as shown; whether that names the image of its disks."""
    kept: Mapping[bytes, Kept] = field(default_factory=dict)
    purged: tuple[bytes, ...] = ()
    """Names of what it purged lately."""
    nova_pass_at: float | None = None
    domains: int = 0


def encode(found: HostEvidence) -> bytes:
    """The document of a host's evidence; one that is too large says so instead of telling a part."""
    raw = _text_of(found)
    if len(raw) <= MAX_BYTES:
        return raw
    large = Trouble(f"what it saw takes {len(raw)} bytes, and no more than {MAX_BYTES} are published")
    who = (found.host, found.node, found.instance, found.boot, found.round, found.time, found.skew, found.seconds)
    seen = found.leader_lock_seen
    return _text_of(HostEvidence(*who, resident=found.resident, leader_lock_seen=seen, troubles=(large,)))


def _text_of(found: HostEvidence) -> bytes:
    return json.dumps(_document(found), separators=(",", ":")).encode()


def decode(raw: bytes, host: str) -> HostEvidence:
    """The evidence of `host`. Raises NoEvidence for anything but its whole document."""
    if len(raw) > MAX_BYTES:
        raise NoEvidence(f"is larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NoEvidence("is no complete JSON") from error
    try:
        if (version := document["version"]) != VERSION:
            raise NoEvidence(f"has version {version!r}, and this program knows version {VERSION}")
        found = _read(document)
    except ValueError as error:
        raise NoEvidence(f"has what cannot be: {error}") from error
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise NoEvidence(f"lacks something or has it in a wrong form ({error!r})") from error
    if found.host != host:
        raise NoEvidence(f"is about host {found.host}")
    return found


def _document(found: HostEvidence) -> dict[str, Any]:
    return {
        "version": VERSION,
        "host": found.host,
        "node": found.node,
        "instance": found.instance,
        "boot": found.boot,
        "round": found.round,
        "time": found.time,
        "skew": found.skew,
        "seconds": found.seconds,
        "resident": found.resident,
        "leaderLockSeen": found.leader_lock_seen,
        "objection": found.objection,
        "troubles": _troubles(found.troubles),
        "used": {display(name): _users(users) for name, users in found.used.items() if users},
        "usedFiles": {str(number): _users(users) for number, users in found.used_files.items() if users},
        "images": {
            display(name): [[user.who, user.needed] for user in _some(users, lambda user: user.needed)]
            for name, users in found.images.items()
        },
        "qemuLocks": sorted(found.qemu_locks),
        "novaLocks": sorted(map(display, found.nova_locks)),
        "openFiles": {str(number): who for number, who in found.open_files.items()},
        "spawns": [[spawn.path, spawn.changed_at] for spawn in found.spawns],
        "claimed": dict(found.claimed),
        "kept": {display(name): [kept.reason.value, kept.message, kept.since] for name, kept in found.kept.items()},
        "purged": [display(name) for name in found.purged],
        "novaPassAt": found.nova_pass_at,
        "domains": found.domains,
    }


def _troubles(troubles: tuple[Trouble, ...]) -> list[dict[str, Any]]:
    told = [
        {"message": one.message[:_LONGEST], "only": None if one.only is None else sorted(map(display, one.only))}
        for one in troubles[:_MOST_TROUBLES]
    ]
    more = len(troubles) - len(told)
    return told + ([{"message": f"{more} more things could not be asked", "only": None}] if more > 0 else [])


def _users(users: tuple[User, ...]) -> list[list[str]]:
    return [[user.source.value, user.who] for user in users[:_MOST_USERS]]


def _some(items: tuple[T, ...], weighty: Callable[[T], bool]) -> list[T]:
    """A few of them, the weighty ones first: one of those must never be among what is left out."""
    return sorted(items, key=lambda item: not weighty(item))[:_MOST_USERS]


def _read(document: Mapping[str, Any]) -> HostEvidence:
    """The values of a document. Raises ValueError, LookupError, TypeError, AttributeError or OverflowError."""
    nova_pass_at, objection = document["novaPassAt"], document["objection"]
    return HostEvidence(
        host=_text(document["host"]),
        node=_text(document["node"]),
        instance=_text(document["instance"]),
        boot=_text(document["boot"]),
        round=_count(document["round"]),
        time=_moment(document["time"]),
        skew=_number(document["skew"]),
        seconds=_number(document["seconds"]),
        resident=_flag(document["resident"]),
        leader_lock_seen=_flag(document["leaderLockSeen"]),
        objection=None if objection is None else _text(objection),
        troubles=tuple(
            Trouble(_text(one["message"]), None if one["only"] is None else frozenset(map(_name, one["only"])))
            for one in document["troubles"]
        ),
        used={_name(name): _read_users(users) for name, users in document["used"].items()},
        used_files={_inode(number): _read_users(users) for number, users in document["usedFiles"].items()},
        images={
            _name(name): tuple(ImageUser(_text(who), _flag(needed)) for who, needed in users)
            for name, users in document["images"].items()
        },
        qemu_locks=frozenset(map(_count, document["qemuLocks"])),
        nova_locks=frozenset(map(_name, document["novaLocks"])),
        open_files={_inode(number): _text(who) for number, who in document["openFiles"].items()},
        spawns=tuple(Spawn(_text(path), _number(at)) for path, at in document["spawns"]),
        claimed={_text(path): _flag(named) for path, named in document["claimed"].items()},
        kept={_name(name): _kept(*why) for name, why in document["kept"].items()},
        purged=tuple(map(_name, document["purged"])),
        nova_pass_at=None if nova_pass_at is None else _moment(nova_pass_at),
        domains=_count(document["domains"]),
    )


def _read_users(users: Any) -> tuple[User, ...]:
    found = tuple(User(Source(source), _text(who)) for source, who in users)
    if not found:
        raise ValueError("a base in use without a user")
    return found


def _kept(reason: Any, message: Any, since: Any) -> Kept:
    kept = Kept(Reason(reason), _text(message), None if since is None else _number(since))
    if kept.reason not in _KEPT_FOR:
        raise ValueError(f"a file is kept for {kept.reason}")
    return kept


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _name(value: Any) -> bytes:
    return from_display(_text(value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or abs(value) > 1e12:
        raise ValueError(f"{value!r} where a number of seconds belongs")
    return float(value)


def _moment(value: Any) -> float:
    if (moment := _number(value)) <= 0:
        raise ValueError(f"{value!r} where a time belongs")
    return moment


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} where a whole number belongs")
    return value


def _inode(value: Any) -> int:
    return _count(int(_text(value)))


def keeps(reason: Reason) -> bool:
    """Whether a file that is kept for this reason is told of: those that are in use are told of by their users."""
    return reason in _KEPT_FOR
