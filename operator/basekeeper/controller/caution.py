"""Which of two settings removes more, and what is the safer of both. Pure.

Every setting has a rule here, and a test counts them: a setting without one would reach the whole fleet at once
however aggressive it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from basekeeper.cache.settings import CachedOnly, Drain, Mode
from basekeeper.resources.node_settings import Limits, MinimumAge, NodeSettings, Quarantine

Settings = Mapping[str, Any]
"""The fields of `NodeSettings`, by their Python names; values as the models have them."""

_DRAIN_RISK = {Drain.RESTORE: 0, None: 1, Drain.PURGE: 2}


def _ages(ours: MinimumAge, theirs: MinimumAge) -> MinimumAge:
    longer = {kind: max(getattr(ours, kind), getattr(theirs, kind)) for kind in MinimumAge.model_fields}
    return MinimumAge.model_construct(**longer)


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


def _common_rows(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> tuple[Any, ...]:
    """An acknowledged path lets removals go on: only what both say counts."""
    return tuple(row for row in theirs if row in ours)


def _both_pins(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    return (*theirs, *(image for image in ours if image not in theirs))


SAFER: dict[str, Callable[[Any, Any], Any]] = {
    "mode": lambda ours, theirs: Mode.AUDIT if Mode.AUDIT in (ours, theirs) else Mode.ENFORCE,
    "suspend": lambda ours, theirs: ours or theirs,
    "interval": max,
    "minimum_age": _ages,
    "cached_only": lambda ours, theirs: CachedOnly.KEEP if CachedOnly.KEEP in (ours, theirs) else CachedOnly.REMOVE,
    "pinned_images": _both_pins,
    "limits": _limits,
    "quarantine": _quarantine,
    "acknowledged": _common_rows,
    "shared_storage": lambda _ours, theirs: theirs,  # there is one mode only
}
"""For each setting the safer of two values: what a node has now, and what it is to have."""


def acts(settings: NodeSettings | None) -> bool:
    """Whether a node with these settings removes or purges anything."""
    return settings is not None and settings.mode is Mode.ENFORCE and not settings.suspend


def is_more_aggressive(now: NodeSettings | None, wanted: NodeSettings) -> bool:
    """Whether `wanted` could remove something that `now` would not; None: nothing is told, nothing removed."""
    if not acts(wanted):
        return False
    if now is None or not acts(now):
        return True
    return any(_safer(name, now, wanted) != _comparable(name, wanted) for name in SAFER)


def safer_of(now: NodeSettings | None, wanted: NodeSettings) -> dict[str, Any]:
    """What a node may be told at once of `wanted`, by Python names: nothing in it removes more than `now` did.

    A node that removes nothing now reports as `wanted` would have it, in Audit.
    """
    if now is None or not acts(now):
        return {**_fields(wanted), "mode": Mode.AUDIT}
    return {name: SAFER[name](getattr(now, name), getattr(wanted, name)) for name in SAFER}


def _fields(settings: NodeSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in SAFER}


def _safer(name: str, now: NodeSettings, wanted: NodeSettings) -> Any:
    safer = SAFER[name](getattr(now, name), getattr(wanted, name))
    return frozenset(safer) if name == "pinned_images" else safer


def _comparable(name: str, settings: NodeSettings) -> Any:
    value = getattr(settings, name)
    return frozenset(value) if name == "pinned_images" else value
