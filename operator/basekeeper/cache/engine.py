"""One pass, start to end: observe, judge, act, report, remember. Reads as a list; the rules are elsewhere.

`judge_now` changes nothing at all. `run` restores what is needed in every mode, and in Enforce removes and
purges, always on a second look of its own.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from . import (
    beside_nova,
    contents,
    deeds,
    ledger_file,
    leftovers,
    locks,
    orphans,
    presence,
    quarantine,
    recording,
    reserve,
)
from .acts import Action
from .adoption import remembered, with_resets
from .beside_nova import Beside
from .coordination import in_turn, member_of
from .deeds import Progress, Stop, never
from .evidence import Inventory, Note
from .files import Unobservable
from .ledger import Ledger, LedgerError
from .look import Look, Looker, as_shown, remember
from .machines import is_missing
from .memory import Directories, Memory, Removing
from .names import display
from .report import Acts, Report, Seconds, rows_of
from .settings import Host, Mode, Policy
from .verdicts import USE_REASONS, Reason


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
    _restore(host, Looker(host, policy, Memory()).look(), acts, progress, locked=False)
    return sum(done.action is Action.RESTORED for done in acts.entries.values())


def _restore(host: Host, look: Look, acts: Acts, progress: Progress, *, locked: bool) -> None:
    """Put back what is needed: in every mode, under suspend, and before anything else."""
    if look.plan.restores:
        with alone(host, wanted=not locked):
            deeds.restore_needed(host, look, acts, progress)


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
        recording.note_acknowledged(book, policy, look)
        if look.plan.restart_ages:
            book.restart_ages(look.now.wall)
        recording.settle_ids(host, book, memory.directories, acting=acting)
        if acting and look.plan.removals:
            # Were this pass killed, the next one must not take what this one removes for the work of others.
            recording.note_present(book, look, without={item.file.name.raw for item in look.plan.removals})
            corrupt = (item.file.name.raw for item in look.plan.removals if item.reason is Reason.CORRUPT)
            under_way = Removing(frozenset(corrupt), look.now.wall)
            book.set_removing(under_way)
            looker = replace(looker, memory=replace(memory, removing=under_way))
        book.commit()

        started = time.monotonic()
        acts = Acts()
        _restore(host, look, acts, progress, locked=acting)
        if acting and not policy.suspend and (look.plan.removals or look.plan.purges) and not stop():
            look = deeds.remove_and_purge(looker, look, acts, progress, stop)
        if acting and not stop():
            quarantine.sweep(host.base)
            reserve.keep(host.base, wanted=policy.pressure is not None or policy.max_cache_bytes is not None)
            recording.compare_conflicts(host, book, look)
        recording.remember_pass(book, look, acts)
        if looker.member is not None:
            looker.member.note_retired(book, look.usage, look.now)
        book.forget_resets(policy.reset_trips)
        recording.forget_contents(host, book, look)
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
