"""Whether nova's own manager of the cache touches the bases in use, and whether it removes. Pure.

What it does shows on disk in two places: `compute_nodes`, into which it enters this host right before each of its
passes, and the time stamps of the bases that its database knows to be used, which it sets right after that. One base
that it did not touch proves nothing: it overlooks instances whose row is on another host, rescue disks, second
ephemeral disks. One that it touched proves that it works, for as long as nova itself trusts an entry. A spawn touches
too, and basekeeper's own stamps are known. That it removes does not show until a file is gone: the two settings look
alike, so only nova.conf can say that it does not.

Other hosts' managers touch the bases of this host's instances as well where they share the storage, and only as long
as this host registers: so what counts is that it does, and that somebody touched since. Their nova.conf is not ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .evidence import CachedFile, FileType, Inventory, Usage
from .memory import Memory, NovaSeen
from .settings import HOUR, NovaSays

REGISTERED = 25 * HOUR
"""Seconds for which an entry of `compute_nodes` counts: nova's 24 hours and its longest usual interval."""
SETTLES = 300.0
"""Seconds after nova's manager registered until its touches are surely done (they come right after it)."""
REMEMBERED = 7 * 24 * HOUR
"""Seconds for which a file that another hand removed says that nova removes."""
_CLOCKS = 60.0
"""Seconds by which the clock that stamps files, on NFS the server's, may be behind nova's."""
_SEVERAL = 2


class Sign(StrEnum):
    """What an answer comes from."""

    TOUCHED = "Touched"
    NOT_TOUCHED = "NotTouched"
    NOT_REGISTERED = "NotRegistered"
    NOVA_CONF = "NovaConf"
    FILES_VANISHED = "FilesVanished"
    NO_SIGN = "NoSign"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one thing that the manager does."""

    known: bool | None
    """None: nothing tells."""
    sign: Sign
    message: str


@dataclass(frozen=True, slots=True)
class NovaManager:
    """What is known of nova's own manager."""

    touches: Answer
    removes: Answer


def judge(inventory: Inventory, usage: Usage, seen: NovaSeen, says: NovaSays | None, now: float) -> NovaManager:
    """What is known at `now`, Unix seconds; `says` is nova.conf, None where it is not given."""
    return NovaManager(_touches(inventory, usage, seen, says, now), _removes(usage, seen, says, now))


def seen_after(
    memory: Memory, inventory: Inventory, usage: Usage, stamped: Mapping[bytes, float], *, vanished: bool, now: float
) -> NovaSeen:
    """What to remember after a pass that gave these time stamps and, if so, missed files. Nothing is from the future.

    Where libvirt did not list all domains, a base that seems to be out of use may not be.
    """
    before = memory.nova
    used_since = {name: min(now, before.used_since.get(name, now)) for name in usage.nova_bases}
    if usage.libvirt_failure is not None:
        used_since = {**before.used_since, **used_since}
    present = {file.name.raw for file in inventory.files} | stamped.keys()
    stamps = {name: at for name, at in {**before.stamped, **stamped}.items() if name in present}
    touched_at = _touched_at(_bases(inventory, usage), usage, before, now)
    return NovaSeen(used_since, stamps, touched_at, now if vanished else before.vanished_at)


def restarted(seen: NovaSeen, now: float) -> NovaSeen:
    """The same where no age counts from before now."""
    return replace(seen, used_since=dict.fromkeys(seen.used_since, now), touched_at=None)


def _bases(inventory: Inventory, usage: Usage) -> list[CachedFile]:
    return [file for file in inventory.files if file.name.raw in usage.nova_bases and file.type is FileType.REGULAR]


def _touched_at(bases: Sequence[CachedFile], usage: Usage, seen: NovaSeen, now: float) -> float | None:
    """When nova's manager last registered and a base was touched that it knew by then; as far as was ever seen."""
    entry = usage.nova_pass_at
    if entry is None or now - entry >= REGISTERED:
        return seen.touched_at

    def by_manager(file: CachedFile) -> bool:
        if _is_ours(file, seen) or not entry - _CLOCKS <= file.mtime <= now + _CLOCKS:
            return False
        # Later than that it may be a spawn's touch: then it counts for a base only that was in use before.
        return file.mtime <= entry + SETTLES or seen.used_since.get(file.name.raw, now) <= entry

    return entry if any(map(by_manager, bases)) else seen.touched_at


# --- does it touch? -------------------------------------------------------------------------------------------------
# Messages carry no times and no counts that move with each pass: a status is written only when something changed.

_ALONE = "; basekeeper goes by disks, domains and locks alone"
_BUILT_ON = "bases that instances here are built on"


def _touches(inventory: Inventory, usage: Usage, seen: NovaSeen, says: NovaSays | None, now: float) -> Answer:
    if says is not None and says.problem is None and not says.runs:
        return Answer(False, Sign.NOVA_CONF, f"nova's manager never runs here ({says.runs_origin}){_ALONE}")
    bases, entry = _bases(inventory, usage), usage.nova_pass_at
    if entry is None:
        return _without_entry(bases, usage, seen, now)
    if now - entry >= REGISTERED:
        message = f"nova's manager has not registered this host for over a day, so it does not run{_ALONE}"
        return Answer(False, Sign.NOT_REGISTERED, message + _endangered(usage))
    return _with_entry(bases, seen, now)


def _with_entry(bases: Sequence[CachedFile], seen: NovaSeen, now: float) -> Answer:
    """The manager registered within the day: has it touched?"""
    registers = "nova's manager registers this host"
    if seen.touched_at is not None and now - seen.touched_at < REGISTERED:
        return Answer(True, Sign.TOUCHED, f"{registers}, and touches {_BUILT_ON}")
    if len(long_untouched := _long_untouched(bases, seen, now)) >= _SEVERAL and not _any_touched(bases, seen, now):
        message = f"{registers}, but has touched none of the {_BUILT_ON} for over a day; nova-compute's log says why"
        return Answer(False, Sign.NOT_TOUCHED, message)
    few = "one base that it did not touch is no proof" if long_untouched else f"none of the {_BUILT_ON} can tell yet"
    return Answer(None, Sign.NO_SIGN, f"{registers}; whether it touches is not known: {few}")


def _without_entry(bases: Sequence[CachedFile], usage: Usage, seen: NovaSeen, now: float) -> Answer:
    """This host is not in nova's registry: a new one, one whose manager is off, or one of another name."""
    if usage.registry_problem is not None and not usage.registry_absent:
        return Answer(None, Sign.NO_SIGN, f"nova's registry compute_nodes {usage.registry_problem}")
    absent = "compute_nodes has no entry of this host"
    if _any_touched(bases, seen, now):
        message = f"{absent}, but bases were touched within the day; if nova has another name for it, give --nova-host"
        return Answer(None, Sign.NO_SIGN, message)
    if _long_untouched(bases, seen, now):
        message = f"{absent}, and none of the {_BUILT_ON} has been touched for over a day, so its manager does not run"
        return Answer(False, Sign.NOT_REGISTERED, f"{message}{_ALONE}{_endangered(usage)}")
    return Answer(None, Sign.NO_SIGN, f"{absent}, and no base has been seen in use for long enough to tell")


def _long_untouched(bases: Sequence[CachedFile], seen: NovaSeen, now: float) -> list[CachedFile]:
    """Bases in use for longer than nova needs for a pass, and not touched for as long but by basekeeper."""
    return [
        file
        for file in bases
        if now - seen.used_since.get(file.name.raw, now) >= REGISTERED and not _any_touched((file,), seen, now)
    ]


def _any_touched(bases: Sequence[CachedFile], seen: NovaSeen, now: float) -> bool:
    return any(now - file.mtime < REGISTERED and not _is_ours(file, seen) for file in bases)


def _is_ours(file: CachedFile, seen: NovaSeen) -> bool:
    return seen.stamped.get(file.name.raw) == file.mtime


def _endangered(usage: Usage) -> str:
    """What it means for this host's bases that other hosts do not count it any more."""
    if usage.shared is None:
        return ""
    return "; on this shared storage other hosts' managers then remove bases that only this host uses"


# --- does it remove? ------------------------------------------------------------------------------------------------

_TURN_OFF = "set [image_cache] remove_unused_base_images = false for nova-compute and restart it (docs/hand-over.md)"


def _removes(usage: Usage, seen: NovaSeen, says: NovaSays | None, now: float) -> Answer:
    off = says is not None and says.problem is None and not (says.runs and says.removes)
    if seen.vanished_at is not None and now - seen.vanished_at < REMEMBERED:
        what_to_do = "nova.conf says that it does not: has nova-compute been restarted since?" if off else _TURN_OFF
        message = f"within the last week finished files went that basekeeper did not remove; {what_to_do}"
        return Answer(True, Sign.FILES_VANISHED, message)
    if says is None:
        message = (
            "files do not show whether nova's manager removes; give nova.conf with --nova-conf (docs/hand-over.md)"
        )
        return Answer(None, Sign.NO_SIGN, message)
    if says.problem is not None:
        return Answer(None, Sign.NO_SIGN, says.problem)
    if not off:
        return Answer(True, Sign.NOVA_CONF, f"{says.removes_origin}; {_TURN_OFF}")
    origin = says.removes_origin if says.runs else says.runs_origin
    if usage.shared is not None:
        message = f"not this host's ({origin}); other hosts' managers on this storage go by their own nova.conf"
        return Answer(None, Sign.NO_SIGN, message)
    return Answer(False, Sign.NOVA_CONF, origin)
