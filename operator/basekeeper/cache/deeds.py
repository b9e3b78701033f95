"""What a pass does to the cache: put back, remove, settle, purge; always what a look decided. Never judges.

Removals and purges come on a second look of their own, and end between two files when the window closes or the program
is to stop. The act on one file is `removal`'s.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from . import removal, reserve, windows
from .acts import Action, Done, Doubt
from .evidence import Inode, QuarantineEntry
from .judged import Judged
from .look import Adjust, Look, Looker, Watch
from .report import Acts
from .settings import Host, Policy
from .verdicts import EVICTION_REASONS, Reason

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of how many."""

Stop = Callable[[], bool]
"""Asked between files: whether to begin no further one."""


def never() -> bool:
    """The answer of a pass that nobody interrupts."""
    return False


def restore_needed(host: Host, look: Look, acts: Acts, progress: Progress) -> None:
    """Put back what is needed. The caller is the only acting program on this cache."""
    needed = look.plan.restores
    for at, item in enumerate(needed, 1):
        progress("restoring", at, len(needed))
        acts.entries[item.entry.id] = reserve.used_by(host.base, partial(removal.restore, host, item.entry))
        acts.returned.append(item)


def remove_and_purge(looker: Looker, before: Look, acts: Acts, progress: Progress, stop: Stop) -> Look:
    """Remove and purge on a second look, which is returned; ends between two files when the window closes."""
    progress("looking again", 0, 1)
    look = looker.look()
    looker.announce(look)
    closed = windows.closing(looker.policy.windows, look.now.wall)

    def halted() -> bool:
        return stop() or closed(time.time())

    first = {(item.file.name.raw, item.file.inode) for item in before.plan.removals}
    _remove(looker, look, first, acts, progress, halted)
    _settle(looker, look, acts, progress, halted)
    if closed(now := time.time()):
        _note_closed(looker.policy, look, acts, now)
    return look


def _note_closed(policy: Policy, look: Look, acts: Acts, now: float) -> None:
    """Say of what was to go and is still there that its window has closed."""
    if (message := windows.look(policy.windows, now).closed) is None:
        return
    left = Done(Action.SKIPPED, Doubt(Reason.OUTSIDE_WINDOW, message))
    for file in look.plan.removals:
        acts.files.setdefault(file.file.name.raw, left)
    for entry in look.plan.purges:
        acts.entries.setdefault(entry.entry.id, left)


def _remove(
    looker: Looker, look: Look, first: set[tuple[bytes, Inode]], acts: Acts, progress: Progress, stop: Stop
) -> None:
    """Quarantine what both looks let go, the longest unused first."""
    watch = Watch(looker, look)
    going = [item for item in look.plan.removals if (item.file.name.raw, item.file.inode) in first]
    acts.target_bytes = sum(item.file.reclaimable for item in going)
    acts.target_bytes += sum(item.entry.reclaimable for item in look.plan.purges)
    for at, item in enumerate(going, 1):
        if stop():
            break
        progress("removing", at, len(going))
        remove = partial(
            removal.remove,
            looker.host,
            item,
            now=look.now.wall,
            retention=_retention(looker, item),
            last_users=look.memory.last_users.get(item.file.name.raw, ()),
            third_look=watch.about_removal,
            may_act=looker.may_act,
            round_number=looker.round,
        )
        acts.files[item.file.name.raw] = reserve.used_by(looker.host.base, remove)


def _retention(looker: Looker, item: Judged) -> float:
    """Seconds that a file lies in the quarantine: what goes for want of room, no longer than a spawn may take."""
    retention = looker.policy.retention
    return min(retention, looker.host.spawn_grace) if item.reason in EVICTION_REASONS else retention


def _settle(looker: Looker, before: Look, acts: Acts, progress: Progress, stop: Stop) -> None:
    """Look at everything once more after the removals, put back what is needed now, and purge on this look only.

    The look at each removed file sees directories that changed. A disk that was rebased in place and a domain that was
    defined outside of the instances path change none; what they need must not wait for the next pass, or be purged.
    """
    progress("looking once more", 0, 1)
    look = looker.look()
    restore_needed(looker.host, look, acts, progress)
    _purge(looker, before, look, acts, progress, stop)
    if stop():
        return
    spared = {item.entry.id for item in before.plan.purges} - acts.entries.keys()
    for item in look.plan.entries:
        if item.entry.id in spared:
            acts.entries[item.entry.id] = Done(Action.SKIPPED, Doubt(item.reason, item.message))


def _purge(looker: Looker, before: Look, look: Look, acts: Acts, progress: Progress, stop: Stop) -> None:
    """Delete what is due, what this pass removed with `retention: 0s` included, if nothing was left unasked.

    Want of room shortens a time, never to nothing: without that setting what `before` did not see in the quarantine
    waits for a second pass, also what came there by an act that failed half way.
    """
    if look.plan.purge_blocked is not None:
        return
    just_now = {
        done.entry.id: name
        for name, done in acts.files.items()
        if done.action is Action.QUARANTINED and done.entry is not None
    }
    lay_there = {entry.id for entry in before.inventory.entries}
    at_once = looker.policy.retention == 0
    due = [item.entry for item in look.plan.purges if at_once or item.entry.id in lay_there]
    due.sort(key=lambda entry: (entry.removed_at, entry.id))
    purged = purge_entries(Watch(looker, look), look, due, None, progress, stop)
    for entry_id, done in purged.items():
        if entry_id not in just_now:
            acts.entries[entry_id] = done
        elif done.action is not Action.SKIPPED:
            acts.files[just_now[entry_id]] = done
    acts.purged_bytes += sum(entry.reclaimable for entry in due if is_purged(purged.get(entry.id)))


def purge_entries(
    watch: Watch, look: Look, due: Sequence[QuarantineEntry], adjust: Adjust | None, progress: Progress, stop: Stop
) -> dict[str, Done]:
    """Delete these quarantined files unless a last look speaks for one. `look` has complete evidence."""
    copies = {item.entry.id for item in look.plan.purges if item.as_copy}
    done: dict[str, Done] = {}
    for at, entry in enumerate(due, 1):
        if stop():
            break
        progress("purging", at, len(due))
        done[entry.id] = removal.purge(
            watch.host, entry, lambda item: watch.about_purge(item, adjust), as_copy=entry.id in copies
        )
    return done


def is_purged(done: Done | None) -> bool:
    """Whether an act was a purge that succeeded."""
    return done is not None and done.action is Action.PURGED
