"""One pass, start to end: observe, judge, act, report, remember. Reads as a list; the rules are elsewhere.

`judge_now` changes nothing at all. `run` restores what is needed in every mode, and in Enforce removes and
purges, always on a second look of its own.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from . import (
    beside_nova,
    contents,
    identity,
    ledger_file,
    leftovers,
    locks,
    orphans,
    presence,
    quarantine,
    removal,
    reserve,
    windows,
)
from .acts import Action, Done, Doubt
from .adoption import remembered, with_resets
from .baselines import FORGOTTEN_AFTER
from .beside_nova import Beside
from .coordination import in_turn, member_of
from .evidence import Inode, Inventory, Note, QuarantineEntry
from .files import Unobservable
from .judged import Judged
from .ledger import Ledger, LedgerError
from .look import Adjust, Look, Looker, Watch, as_shown, remember
from .machines import is_missing
from .memory import Acknowledged, Directories, LastPass, Memory, Removing
from .names import display
from .plan import used_names
from .report import Acts, Report, Seconds, rows_of
from .settings import Host, Mode, Policy
from .verdicts import EVICTION_REASONS, USE_REASONS, Reason

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of how many."""


Stop = Callable[[], bool]
"""Asked between files: whether to begin no further one."""


def never() -> bool:
    """The answer of a pass that nobody interrupts."""
    return False


class PassFailed(Exception):
    """The pass could not be made; one sentence says why and what to do."""


class Busy(PassFailed):
    """Another acting program is at work on this cache."""

    def __init__(self, host: Host) -> None:
        super().__init__(f"another basekeeper is at work on {host.base}; wait until it is done")


def judge_now(host: Host, policy: Policy) -> tuple[Report, Look]:
    """Say what a pass would do, and change nothing. Raises PassFailed."""
    policy = as_shown(policy, host)
    with failures(), ledger_file.reading(host.state) as book:
        policy = with_resets(policy, book)
        member = member_of(host, policy, book, acts=removes(policy), make=False)
        look = Looker(host, policy, remember(host, book), member).look()
        vanished = _vanished(host, look, look.inventory)
        beside = beside_nova.without_act(host, look, vanished=bool(vanished))
        return _report("Plan", host, policy, look, Acts(), vanished, beside, 0.0, book), look


def run(host: Host, policy: Policy, progress: Progress, *, stop: Stop = never, resident: bool = False) -> Report:
    """Make one pass as the policy's mode allows. Raises PassFailed when it could not be made.

    When `stop` says so, it ends between two files and reports what it did; the next pass does the rest. `resident`: the
    program goes on living after it, and answers the hosts that share the cache between its passes.
    """
    policy = as_shown(policy, host)
    with failures():
        try:
            with ledger_file.writing(host.state) as book:
                return _pass(host, policy, book, progress, stop, resident=resident)
        except LedgerError as error:
            # What is needed goes back whatever became of the memory: the quarantine depends on none.
            back = _restore_without_memory(host, policy, progress)
            raise LedgerError(
                f"{error}; {back} needed files were put back all the same" if back else str(error)
            ) from error


def _restore_without_memory(host: Host, policy: Policy, progress: Progress) -> int:
    acts = Acts()
    restore_needed(host, Looker(host, policy, Memory()).look(), acts, locked=False, progress=progress)
    return sum(done.action is Action.RESTORED for done in acts.entries.values())


def removes(policy: Policy) -> bool:
    """Whether a pass under this policy removes or purges anything."""
    return policy.mode is Mode.ENFORCE and not policy.suspend


def _pass(host: Host, policy: Policy, book: Ledger, progress: Progress, stop: Stop, *, resident: bool) -> Report:
    policy = with_resets(policy, book)
    member = member_of(host, policy, book, acts=removes(policy), resident=resident)
    looker = Looker(host, policy, remembered(host, policy, book), member)
    with in_turn(member, lambda: looker.look().plan, progress, stop) as may_act:
        return _pass_of(looker, book, progress, stop, may_act=may_act)


def _pass_of(looker: Looker, book: Ledger, progress: Progress, stop: Stop, *, may_act: bool) -> Report:
    host, policy, memory = looker.host, looker.policy, looker.memory
    able = policy.mode is Mode.ENFORCE and memory.directories is not Directories.OTHER and host.base.is_dir()
    acting = able and may_act
    with alone(host, wanted=acting):
        progress("looking", 0, 1)
        look = looker.look()
        looker.publish(look)
        seen = look.inventory
        _note_acknowledged(book, policy, look)
        if look.plan.restart_ages:
            book.restart_ages(look.now.wall)
        _settle_ids(host, book, memory.directories, acting=acting)
        if acting and look.plan.removals:
            # Were this pass killed, the next one must not take what this one removes for the work of others.
            _note_present(book, look, without={item.file.name.raw for item in look.plan.removals})
            corrupt = (item.file.name.raw for item in look.plan.removals if item.reason is Reason.CORRUPT)
            under_way = Removing(frozenset(corrupt), look.now.wall)
            book.set_removing(under_way)
            looker = replace(looker, memory=replace(memory, removing=under_way))
        book.commit()

        started = time.monotonic()
        acts = Acts()
        restore_needed(host, look, acts, locked=acting, progress=progress)
        if acting and not policy.suspend and (look.plan.removals or look.plan.purges) and not stop():
            look = _act(looker, look, acts, progress, stop)
        if acting and not stop():
            quarantine.sweep(host.base)
            reserve.keep(host.base, wanted=policy.pressure is not None or policy.max_cache_bytes is not None)
            _compare_conflicts(host, book, look)
        _remember_pass(book, look, acts)
        if looker.member is not None:
            looker.member.note_retired(book, look.usage, look.now)
        book.forget_resets(policy.reset_trips)
        _forget_contents(host, book, look)
        vanished = _vanished(host, look, seen)
        beside = beside_nova.attend(host, policy, book, look, acts, acting=acting, vanished=bool(vanished))
        acted = time.monotonic() - started
        report = _report("Pass", host, policy, look, acts, vanished, beside, acted, book)
        book.commit()
    return report


@contextmanager
def alone(host: Host, *, wanted: bool = True) -> Iterator[None]:
    """Be the only acting program on this cache, if wanted. Raises Busy, or OSError if it cannot be asked."""
    if not wanted:
        yield
        return
    quarantine.prepare(host.base)
    try:
        with locks.program_lock(host.base / quarantine.OWN_DIRECTORY / "lock"):
            yield
    except locks.HeldByAnother as error:
        raise Busy(host) from error


@contextmanager
def failures() -> Iterator[None]:
    """Turn what ends a pass into one sentence: PassFailed."""
    try:
        yield
    except (Unobservable, LedgerError, locks.LockError) as error:
        raise PassFailed(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise PassFailed(f"{where}{error.strerror or error}") from error


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


def restore_needed(host: Host, look: Look, acts: Acts, *, locked: bool, progress: Progress) -> None:
    """Put back what is needed: in every mode, under suspend, and before anything else."""
    needed = look.plan.restores
    if not needed:
        return
    with alone(host, wanted=not locked):
        for at, item in enumerate(needed, 1):
            progress("restoring", at, len(needed))
            acts.entries[item.entry.id] = reserve.used_by(host.base, partial(removal.restore, host, item.entry))
            acts.returned.append(item)


def _act(looker: Looker, before: Look, acts: Acts, progress: Progress, stop: Stop) -> Look:
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
    restore_needed(looker.host, look, acts, locked=True, progress=progress)
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


def is_purged(done: Done | None) -> bool:
    """Whether an act was a purge that succeeded."""
    return done is not None and done.action is Action.PURGED


def _settle_ids(host: Host, book: Ledger, directories: Directories, *, acting: bool) -> None:
    """Know these directories: make their ids when a pass acts for the first time, take over those that are there."""
    if directories not in (Directories.NEW, Directories.MEMORY_LOST):
        return
    found, known = identity.read(host), book.ids()
    if acting:
        drafted = known.ids if known is not None else identity.fresh()
        ids = identity.Ids(
            found.instances or drafted.instances or identity.fresh().instances,
            found.base or drafted.base or identity.fresh().base,
        )
        book.set_ids(ids, made=False)
        book.commit()
        identity.write(host, ids)
        book.set_ids(ids, made=True)
    elif directories is Directories.MEMORY_LOST and (found.instances or found.base):
        book.set_ids(found, made=found.instances is not None and found.base is not None)


def _note_acknowledged(book: Ledger, policy: Policy, look: Look) -> None:
    """Keep what each path of the policy's list was when it was first met, and forget what left the list."""
    listed = {row.path for row in policy.acknowledged}
    noted = {row.path for row in look.memory.acknowledged if not row.by_hand}
    for unknown in look.usage.unknown:
        if unknown.path in listed - noted:
            book.acknowledge(Acknowledged(unknown.path, unknown.identity, by_hand=False))
    book.forget_acknowledged(noted - listed, by_hand=False)


def _compare_conflicts(host: Host, book: Ledger, look: Look) -> None:
    """Find out once whether a quarantined file is no more than a copy of the newer file that has its name."""
    newer = {file.name.raw: file for file in look.inventory.files}
    for item in look.plan.entries:
        file = newer.get(item.entry.name.raw)
        if item.reason is not Reason.CONFLICT or file is None:
            continue
        if (item.entry.id, file.inode[1], file.size) in look.memory.compared:
            continue
        try:
            same = removal.same_content(
                quarantine.file_of(host.base, item.entry), host.base / os.fsdecode(file.name.raw)
            )
        except OSError:
            continue  # unread is undecided: it stays in conflict, and is tried again
        book.compared(item.entry.id, file, same=same)


def _remember_pass(book: Ledger, look: Look, acts: Acts) -> None:
    """Write into the ledger what later passes need to know of this one."""
    if all(acts.entries[item.entry.id].action is Action.RESTORED for item in acts.returned):
        book.set_removing(None)  # else what is needed and could not go back yet is tried again
    book.add_reclaimed(acts.purged_bytes)
    book.forget_users(name for name, done in acts.files.items() if done.action in {Action.QUARANTINED, Action.PURGED})
    in_use: dict[bytes, tuple[str, ...]] = {}
    in_use |= {name: () for name, done in acts.files.items() if done.doubt and done.doubt.reason in USE_REASONS}
    in_use |= {item.file.name.raw: item.users for item in look.plan.files if item.reason in USE_REASONS}
    in_use |= {item.entry.name.raw: item.users for item in look.plan.entries if item.reason in USE_REASONS}
    in_use |= {item.entry.name.raw: item.users for item in acts.returned}
    entries = (*look.inventory.entries, *(item.entry for item in acts.returned))
    files = {entry.name.raw: entry.inode for entry in entries}
    book.seen_in_use(in_use, files | {file.name.raw: file.inode for file in look.inventory.files}, look.now.wall)
    present = {file.name.raw for file in look.inventory.files}
    ours = look.memory.directories is not Directories.OTHER
    if ours:
        book.forget_used(but=present | {entry.name.raw for entry in look.inventory.entries})
    last = None
    if ours and look.plan.complete:
        used = used_names(look.inventory, look.usage) & present
        last = LastPass(used, look.usage.directories + look.usage.domains)
    book.end_pass(look.now, last, look.plan.breaker)
    book.set_trips({trip.cause: trip.since for trip in look.plan.trips}, look.plan.accepted_homeless)
    book.set_evicting(evicting=look.plan.relief is not None and look.plan.relief.evicting)
    # An act that failed may have done its work before: the next look will tell where that file is.
    gone = {name for name, done in acts.files.items() if done.action is not Action.SKIPPED}
    back = {item.entry.name.raw for item in acts.returned if acts.entries[item.entry.id].action is Action.RESTORED}
    _note_present(book, look, without=gone, back=back)


def _forget_contents(host: Host, book: Ledger, look: Look) -> None:
    """Forget the digests of files that are long gone from the cache and from the quarantine."""
    if look.memory.directories is Directories.OTHER:
        return
    with suppress(OSError):  # what cannot be asked is forgotten later
        book.contents.forget(contents.identities(host, look.inventory), look.now.wall - FORGOTTEN_AFTER)


def _note_present(book: Ledger, look: Look, *, without: Iterable[bytes], back: Iterable[bytes] = ()) -> None:
    """Remember what lies in the cache, but for what this pass removes, and with what it puts back."""
    present = presence.of(look.inventory, look.now.wall)
    if present is not None and look.memory.directories is not Directories.OTHER:
        book.set_present(replace(present, names=present.names.union(back).difference(without)))


def _vanished(host: Host, look: Look, first: Inventory) -> tuple[bytes, ...]:
    """What another hand has removed. Each is asked for once more: a file may move while a directory is listed."""
    missed = presence.missed(look.memory, first, look.inventory, look.now.wall)
    missed = tuple(name for name in missed if name not in look.usage.purged_elsewhere)
    return tuple(name for name in missed if is_missing(bytes(host.base) + b"/" + name))


def _report(
    kind: str,
    host: Host,
    policy: Policy,
    look: Look,
    acts: Acts,
    vanished: Sequence[bytes],
    beside: Beside,
    acted: float,
    book: Ledger,
) -> Report:
    entries, _ = quarantine.read(host.base)
    used = {item.file.name.raw for item in look.plan.files if item.reason in USE_REASONS}
    left = leftovers.measured(look.usage)
    wholeness = contents.sum_of(host, policy, look.inventory, used, book.contents.known(), look.now.wall)
    return Report(
        kind=kind,
        node=host.node,
        time=look.now.wall,
        policy=policy,
        rows=rows_of(look.plan, acts),
        holds=look.plan.holds,
        notes=(*look.plan.notes, *_more_notes(vanished, beside), *contents.notes(wholeness)),
        seconds=Seconds(look.observed, look.judged, acted, look.observed_by_part),
        plan_held=look.plan.held,
        target=acts.target_bytes,
        reclaimed=acts.purged_bytes,
        quarantined=sum(entry.reclaimable for entry in entries),
        quarantined_files=len(entries),
        reclaimed_ever=book.reclaimed(),
        libvirt_asked=host.libvirt is not None,
        libvirt_failure=look.usage.libvirt_failure,
        shared=look.usage.shared,
        group=look.usage.group,
        vanished=tuple(map(display, vanished)),
        wholeness=wholeness,
        trips=look.plan.trips,
        relief=look.plan.relief,
        nova=beside.manager,
        touched=beside.touched,
        orphans=orphans.judge(look.inventory, look.usage, left, policy, look.memory, look.now, orphans.AFTER),
    )


def _more_notes(vanished: Sequence[bytes], beside: Beside) -> Iterator[Note]:
    if vanished:
        yield presence.note(vanished)
    if trouble := beside.touched.trouble:
        yield Note("NotTouched", trouble)
