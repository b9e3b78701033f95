"""Between judgement and pressure: which judged files pressure may take, and what becomes of them. Pure.

Pressure comes last. It sees a cache that was judged without it, and changes two things only: the verdict of files that
nothing but their own minimum age keeps, and the time of quarantined files that nothing but their time keeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from .evidence import CachedFile, Inventory
from .judged import Judged
from .memory import Memory
from .pressure import Candidate, Kept, Relief, Seen, relieve
from .quarantine_plan import Decision, JudgedEntry
from .settings import Policy
from .verdicts import Reason, Verdict

Held = tuple[Reason, str] | None
"""What holds something, if anything does."""


def relief_of(
    inventory: Inventory,
    files: Sequence[Judged],
    entries: Sequence[JudgedEntry],
    policy: Policy,
    memory: Memory,
    now: float,
    blocked: Held,
    held: Callable[[CachedFile], Held],
) -> Relief | None:
    """What pressure asks of a cache that was judged without it; None where the policy asks for nothing of the kind.

    `blocked` says why nothing may be evicted at all, `held` why one file may not.
    """
    ripe = {item.file.name.raw: at for item in files if (at := _ripe_at(item, policy)) is not None}
    stays = [item for item in files if item.verdict is not Verdict.REMOVE]
    candidates = [
        Candidate(file.name.raw, file.inode, item.unused_since, file.reclaimable, held(file))
        for item in stays
        for file in [item.file]
        if item.unused_since is not None and ripe.get(file.name.raw, float("inf")) <= now
    ]
    seen = Seen(
        entries=entries,
        candidates=candidates,
        going=[(item.file.inode, item.file.reclaimable) for item in files if item.verdict is Verdict.REMOVE],
        kept={item.file.name.raw: Kept(item.reason, item.file.reclaimable) for item in stays},
        blocked=blocked,
        soonest=min((at for at in ripe.values() if at > now), default=None),
    )
    return relieve(inventory, policy, seen, now, evicting=memory.evicting)


def _ripe_at(item: Judged, policy: Policy) -> float | None:
    """When a file that nothing but its own age keeps is old enough for pressure; None: something else keeps it.

    One that is old enough and waits for a window is a candidate where pressure may break it.
    """
    if item.reason is Reason.OUTSIDE_WINDOW and policy.ignores_windows:
        return item.unused_since
    young = item.verdict is Verdict.KEEP and item.reason is Reason.TOO_YOUNG
    if not young or item.unused_since is None or item.removable_at is None:
        return None
    return min(item.removable_at, item.unused_since + policy.eviction_age)


def relieved(files: Sequence[Judged], relief: Relief | None) -> list[Judged]:
    """The files, with what pressure decided about some of them."""
    if relief is None:
        return list(files)
    decided = {name: (Verdict.REMOVE, *why) for name, why in relief.evicted.items()}
    decided |= {name: (Verdict.HOLD, *why) for name, why in relief.held.items()}
    return [_decided(item, *decided[item.file.name.raw]) if item.file.name.raw in decided else item for item in files]


def _decided(item: Judged, verdict: Verdict, reason: Reason, message: str) -> Judged:
    return replace(item, verdict=verdict, reason=reason, message=message, removable_at=None)


def purged_early(entries: Sequence[JudgedEntry], relief: Relief | None) -> tuple[JudgedEntry, ...]:
    """The quarantined files, with what pressure decided about some of them."""
    if relief is None:
        return tuple(entries)
    decided = {entry: (Decision.PURGE, *why) for entry, why in relief.purged.items()}
    decided |= {entry: (Decision.HOLD, *why) for entry, why in relief.purges_held.items()}
    return tuple(_shortened(item, *decided[item.entry.id]) if item.entry.id in decided else item for item in entries)


def _shortened(item: JudgedEntry, decision: Decision, reason: Reason, message: str) -> JudgedEntry:
    return replace(item, decision=decision, reason=reason, message=message)
