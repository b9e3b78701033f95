"""Which of two settings removes more, and what is the safer of both. Pure.

Every setting has a rule here, and a test counts them: a setting without one would reach the whole fleet at once
however aggressive it is.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from basekeeper.cache.settings import CachedOnly, Drain, Mode, SharedStorageMode
from basekeeper.resources.maintenance_window import MaintenanceWindow
from basekeeper.resources.node_image_cache import MAX_SHARERS, NodeSpec
from basekeeper.resources.node_settings import (
    Acknowledged,
    Integrity,
    Limits,
    MinimumAge,
    NodeSettings,
    Pressure,
    Quarantine,
    SharedStorage,
)

Settings = Mapping[str, Any]
"""The fields of `NodeSettings`, by their Python names; values as the models have them."""
V = TypeVar("V")
Windows = tuple[MaintenanceWindow, ...]

MOST_PINS = 512
"""Images that a node's object can pin."""
_FOR_EVER = datetime.max.replace(tzinfo=UTC)
_DRAIN_RISK = {Drain.RESTORE: 0, None: 1, Drain.PURGE: 2}


def _careful(value: V) -> Callable[[V, V], V]:
    """A rule for a choice with one careful value."""
    return lambda ours, theirs: value if value in (ours, theirs) else theirs


def _ages(ours: MinimumAge, theirs: MinimumAge) -> MinimumAge:
    kinds = MinimumAge.model_fields.keys() - {"never_used"}
    longer: dict[str, Any] = {kind: max(getattr(ours, kind), getattr(theirs, kind)) for kind in kinds}
    never_used = [age for age in (ours.never_used, theirs.never_used) if age is not None]
    return MinimumAge.model_construct(**longer, never_used=max(never_used, default=None))


def _limits(ours: Limits, theirs: Limits) -> Limits:
    given = [limit for limit in (ours.max_bytes, theirs.max_bytes) if limit is not None]
    return Limits.model_construct(
        max_files=min(ours.max_files, theirs.max_files),
        max_bytes=min(given) if given else None,
        max_percent=min(ours.max_percent, theirs.max_percent),
    )


def _quarantine(ours: Quarantine, theirs: Quarantine) -> Quarantine:
    return Quarantine.model_construct(
        retention=max(ours.retention, theirs.retention),
        drain=min((ours.drain, theirs.drain), key=_DRAIN_RISK.__getitem__),
    )


def _pressure(ours: Pressure | None, theirs: Pressure | None) -> Pressure | None:
    """Without it nothing goes before its own age; higher marks, and a longer age, let less go."""
    if ours is None or theirs is None:
        return None
    return Pressure.model_construct(
        high_percent=max(ours.high_percent, theirs.high_percent),
        low_percent=max(ours.low_percent, theirs.low_percent),
        minimum_age=max(ours.minimum_age, theirs.minimum_age),
        ignore_windows=ours.ignore_windows and theirs.ignore_windows,
    )


def _integrity(ours: Integrity | None, theirs: Integrity | None) -> Integrity | None:
    """Without it no file goes because it is corrupt; how often and how fast files are read removes none."""
    return None if ours is None else theirs


def _budget(ours: int | None, theirs: int | None) -> int | None:
    """Without one nothing goes for it."""
    return None if ours is None or theirs is None else max(ours, theirs)


def _eviction_age(settings: NodeSettings) -> float:
    """Seconds that a file must have been unused to go for the budget: it uses the age of `pressure`, or its default."""
    return (settings.pressure or Pressure()).minimum_age


def _common_rows(ours: tuple[Acknowledged, ...], theirs: tuple[Acknowledged, ...]) -> tuple[Acknowledged, ...]:
    """An acknowledged path lets removals go on: only what both say counts, and only as long as both say it."""
    until = _until(ours)
    return tuple(_ended(row, until[row.path]) for row in theirs if row.path in until)


def _ended(row: Acknowledged, until: datetime) -> Acknowledged:
    return row if _end(row) <= until else row.model_copy(update={"until": until})


def _until(rows: Iterable[Acknowledged]) -> dict[str, datetime]:
    """Each acknowledged path, and when that ends."""
    found: dict[str, datetime] = {}
    for row in rows:
        found[row.path] = max(_end(row), found.get(row.path, _end(row)))
    return found


def _end(row: Acknowledged) -> datetime:
    return row.until if row.until is not None else _FOR_EVER


def _sharing(ours: SharedStorage, theirs: SharedStorage) -> SharedStorage:
    """A retired host's silence holds nothing any more: only those count that both name."""
    if theirs.mode is SharedStorageMode.REFUSE:
        return theirs
    if ours.mode is SharedStorageMode.REFUSE:
        return SharedStorage.model_construct(mode=SharedStorageMode.REFUSE, retired_hosts=())
    known = {host.lower() for host in ours.retired_hosts}
    both = tuple(host for host in theirs.retired_hosts if host.lower() in known)
    return SharedStorage.model_construct(mode=SharedStorageMode.COORDINATE, retired_hosts=both)


def _both_pins(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*theirs, *ours)))


def _windows(
    ours: tuple[MaintenanceWindow, ...], theirs: tuple[MaintenanceWindow, ...]
) -> tuple[MaintenanceWindow, ...]:
    """The narrower of two sets, of which none at all is the widest.

    When both are open is no set of windows that could be told: where neither lies within the other, what a node has
    stays until a wave brings the new ones.
    """
    narrower = bool(theirs) and all(any(_lies_within(window, other) for other in ours) for window in theirs)
    return theirs if not ours or narrower else ours


def _lies_within(window: MaintenanceWindow, other: MaintenanceWindow) -> bool:
    """Whether both open at the same times, and this one closes no later."""
    same_times = (window.schedule, window.time_zone) == (other.schedule, other.time_zone)
    return same_times and window.duration <= other.duration


SAFER: dict[str, Callable[[Any, Any], Any]] = {
    "mode": _careful(Mode.AUDIT),
    "suspend": lambda ours, theirs: ours or theirs,
    "interval": max,
    "minimum_age": _ages,
    "cached_only": _careful(CachedOnly.KEEP),
    "pinned_images": _both_pins,
    "limits": _limits,
    "quarantine": _quarantine,
    "pressure": _pressure,
    "max_cache_bytes": _budget,
    "integrity": _integrity,
    "acknowledged": _common_rows,
    "shared_storage": _sharing,
    # A touched file is younger: it goes later, and nova keeps it too.
    "touch_in_use": lambda ours, theirs: ours or theirs,
    "maintenance_windows": _windows,
    # Not one of a fleet's settings: it ends one trip that stands on one node, and a rollout waits for that very node.
    "reset_trips": lambda _ours, theirs: theirs,
}
"""For each setting the safer of two values: what a node has now, and what it is to have."""

_EFFECT: dict[str, Callable[[Any], Any]] = {
    # As the engine reads them: each id as it is written and in lower case, in any order.
    "pinned_images": lambda images: {form for image in images for form in (image, image.lower())},
    "acknowledged": _until,
    "shared_storage": lambda sharing: (
        sharing.mode is SharedStorageMode.COORDINATE and {host.lower() for host in sharing.retired_hosts}
    ),
    "maintenance_windows": frozenset,
    # An age for files never used that is no longer than that of the others is none.
    "minimum_age": lambda ages: ages.model_copy(
        update={"never_used": max(ages.original, ages.never_used or ages.original)}
    ),
}
"""What of a setting makes a difference, where that is not its value."""


def acts(settings: NodeSettings | None) -> bool:
    """Whether a node with these settings removes or purges anything."""
    return settings is not None and settings.mode is Mode.ENFORCE and not settings.suspend


def is_more_aggressive(now: NodeSettings | None, wanted: NodeSettings) -> bool:
    """Whether `wanted` could remove something that `now` would not; None: nothing is told, nothing removed."""
    if not acts(wanted):
        return False
    told = safer_of(now, wanted)
    return any(_effect(name, told[name]) != _effect(name, getattr(wanted, name)) for name in SAFER)


def safer_of(now: NodeSettings | None, wanted: NodeSettings) -> dict[str, Any]:
    """What a node may be told at once of `wanted`, by Python names: nothing in it removes more than `now` did.

    Where both have no common part that is safe, as with a node that removes nothing now, it reports as `wanted`
    would have it, in Audit.
    """
    whole = {name: getattr(wanted, name) for name in SAFER}
    if not acts(wanted):
        return whole
    in_audit = {**whole, "mode": Mode.AUDIT}
    if now is None or not acts(now) or _are_opposed(now.quarantine.drain, wanted.quarantine.drain):
        return in_audit
    merged = {name: safer(getattr(now, name), whole[name]) for name, safer in SAFER.items()}
    if merged["pressure"] is None and max(_eviction_age(now), _eviction_age(wanted)) > Pressure().minimum_age:
        merged["max_cache_bytes"] = None  # without the longer age it would remove more
    return merged if len(merged["pinned_images"]) <= MOST_PINS else in_audit


def sharers_to_tell(now: tuple[str, ...], wanted: tuple[str, ...], *, waits: bool) -> tuple[str, ...]:
    """With whom a node is told to share its storage: more at once; that nobody does, in a wave."""
    return tuple(sorted({*now, *wanted})[:MAX_SHARERS]) if waits else wanted


def ends_sharing(now: NodeSpec | None, wanted: NodeSettings, sharers: tuple[str, ...]) -> bool:
    """Whether a node that removes nothing because others see its directories would begin to."""
    return acts(wanted) and now is not None and bool(now.shared_storage_with) and not sharers


def _are_opposed(ours: Drain | None, theirs: Drain | None) -> bool:
    """Whether each does what the other does not: Purge empties the quarantine and removes nothing, None removes."""
    return {ours, theirs} == {None, Drain.PURGE}


def _effect(name: str, value: Any) -> Any:
    return _EFFECT[name](value) if name in _EFFECT else value
