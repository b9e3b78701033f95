"""What a person may order on one host: put back, purge now, acknowledge, adopt. The same looks and locks as a pass."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from . import adoption, beside_nova, clock, deeds, engine, identity, ledger_file, quarantine, removal
from .acts import Action, Done
from .coordination import in_turn, member_of
from .evidence import Inventory, QuarantineEntry, Unknown, Usage
from .ledger import LedgerError
from .look import Looker, Watch, as_shown, remember
from .memory import Acknowledged
from .names import from_display
from .quarantine_plan import JudgedEntry
from .report import Acts
from .settings import Host, Policy
from .trips import name_of


class NoSuchEntry(Exception):
    """Nothing of this name is in the quarantine."""

    def __init__(self, wanted: str) -> None:
        super().__init__(f"nothing called {wanted} is in the quarantine; see `basekeeper quarantine list`")


class NothingUnknown(Exception):
    """The path to acknowledge holds nothing now."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not unknown, so there is nothing to acknowledge; see `basekeeper hold list`")


class NoSuchTrip(Exception):
    """The breaker has no trip of this name."""

    def __init__(self, trip: str, standing: Sequence[str]) -> None:
        there = f"those that stand are {', '.join(sorted(standing))}" if standing else "none stands"
        super().__init__(f"{trip} is no trip that stands here; {there}")


@dataclass(frozen=True, slots=True)
class Ordered:
    """What an order did to one quarantined file; `done` is None where the evidence did not allow it."""

    entry: QuarantineEntry
    done: Done | None
    held: str | None = None


def quarantined(host: Host) -> tuple[QuarantineEntry, ...]:
    """What lies in the quarantine, the newest first. Raises PassFailed."""
    with engine.failures():
        entries, _ = quarantine.read(host.base)
    return tuple(sorted(entries, key=lambda entry: (-entry.removed_at, entry.id)))


def restore(
    host: Host, wanted: Sequence[str] | None, pin_for: float, *, stop: deeds.Stop = deeds.never
) -> list[Ordered]:
    """Put files back, used or not, and pin their names for `pin_for` seconds; None: all of them.

    Of several of one name the newest goes back. Raises PassFailed, also when all went back and could not be pinned or
    something is left that cannot be understood; NoSuchEntry.
    """
    ordered = []
    with engine.failures(), engine.alone(host):
        chosen = _chosen(quarantined(host), wanted)
        unpinned = _pin(host, chosen, pin_for)
        for entry in chosen:
            if stop():
                break
            ordered.append(Ordered(entry, removal.restore(host, entry)))
        unpinned = _note_stamps(host, ordered) or unpinned
        _, left = quarantine.read(host.base)
        if unpinned:
            raise engine.PassFailed(f"what could be restored was, but is not pinned: {unpinned}")
        if wanted is None and left:
            raise engine.PassFailed(f"{left[0].path} is left: {left[0].message}; move its file back by hand")
    return ordered


def _pin(host: Host, entries: Sequence[QuarantineEntry], pin_for: float) -> str | None:
    """Pin what is about to go back; says why not if the ledger cannot be used, which must not keep it away."""
    now = clock.read().wall
    try:
        with ledger_file.writing(host.state) as book:
            for entry in entries:
                book.pin(entry.name.raw, now + pin_for)
            book.seen_in_use(
                {entry.name.raw: () for entry in entries}, {entry.name.raw: entry.inode for entry in entries}, now
            )
            book.commit()
    except LedgerError as error:
        return str(error)
    return None


def _note_stamps(host: Host, ordered: Sequence[Ordered]) -> str | None:
    """Remember the time stamps of what went back, which are not nova's; says why not, as `_pin` does."""
    back = [it.entry.name.raw for it in ordered if it.done is not None and it.done.action is Action.RESTORED]
    try:
        with ledger_file.writing(host.state) as book:
            seen = remember(host, book).nova
            book.set_nova(replace(seen, stamped={**seen.stamped, **beside_nova.stamps_of(host, back)}))
            book.commit()
    except LedgerError as error:
        return str(error)
    return None


def purge(
    host: Host,
    policy: Policy,
    wanted: Sequence[str] | None,
    progress: deeds.Progress,
    *,
    stop: deeds.Stop = deeds.never,
) -> list[Ordered]:
    """Delete quarantined files now, due or not, as far as complete evidence allows; None: all of them.

    What something needs goes back instead, as in every pass. Where another file has its name meanwhile, an order that
    names the entry itself chooses the other file. Raises PassFailed, NoSuchEntry.
    """
    policy = as_shown(policy, host)
    with ExitStack() as turn:
        turn.enter_context(engine.failures())
        book = turn.enter_context(ledger_file.writing(host.state))
        chosen = {entry.id: entry for entry in _chosen(quarantined(host), wanted)}
        memory = replace(remember(host, book), given_up=frozenset(chosen.keys() & set(wanted or ())))
        looker = Looker(host, policy, memory, member_of(host, policy, book, acts=True))

        def due_now(seen: Inventory, used: Usage) -> tuple[Inventory, Usage]:
            entries = tuple(replace(item, due_at=0.0) if item.id in chosen else item for item in seen.entries)
            return replace(seen, entries=entries), used

        again = in_turn(looker.member, lambda: looker.look(due_now).plan, progress, stop)
        turn.enter_context(again)
        turn.enter_context(engine.alone(host))
        acts = Acts()
        first = looker.look()
        looker.publish(first)
        deeds.restore_needed(host, first, acts, progress)
        look = looker.look(due_now)
        looker.announce(look)
        due = [item.entry for item in look.plan.purges if item.entry.id in chosen]
        done = deeds.purge_entries(Watch(looker, look), look, due, due_now, progress, stop)
        back = {item.entry.name.raw: item for item in acts.returned}
        users = {name: item.users for name, item in back.items()}
        book.seen_in_use(users, {name: item.entry.inode for name, item in back.items()}, look.now.wall)
        book.add_reclaimed(sum(entry.reclaimable for entry in due if deeds.is_purged(done.get(entry.id))))
        book.commit()
    returned = [Ordered(item.entry, acts.entries[item.entry.id]) for item in acts.returned]
    return returned + [
        _ordered(chosen[item.entry.id], item, done) for item in look.plan.entries if item.entry.id in chosen
    ]


def acknowledge(host: Host, policy: Policy, path: str, reason: str, until: float | None) -> Unknown:
    """Take the operator's word that the unknown at `path` is harmless while it stays as it is.

    Writes the ledger only. Raises PassFailed, NothingUnknown.
    """
    shown = path.removeprefix(f"{host.instances}/").rstrip("/")
    with engine.failures(), ledger_file.writing(host.state) as book:
        look = Looker(host, as_shown(policy, host), remember(host, book)).look()
        unknown = next((item for item in look.usage.unknown if item.path == shown), None)
        if unknown is None:
            raise NothingUnknown(path)
        book.acknowledge(Acknowledged(shown, unknown.identity, by_hand=True, reason=reason, until=until))
        book.commit()
    return unknown


def adopt(host: Host) -> None:
    """Know these directories as the right ones from now on. Raises PassFailed."""
    if not host.base.is_dir():
        raise engine.PassFailed(f"{host.base} is no directory, so there is nothing to adopt")
    with engine.failures(), engine.alone(host), ledger_file.writing(host.state) as book:
        ids = adoption.take_over(host, book)
        identity.write(host, ids)
        book.set_ids(ids, made=True)
        book.commit()


def reset(host: Host, trip: str) -> None:
    """Have the next pass end the trip of this name. Writes the ledger only. Raises PassFailed, NoSuchTrip."""
    with engine.failures(), ledger_file.writing(host.state) as book:
        standing = [name_of(cause, since) for cause, since in remember(host, book).trips.items()]
        if trip not in standing:
            raise NoSuchTrip(trip, standing)
        book.add_reset(trip)
        book.commit()


def _chosen(entries: Sequence[QuarantineEntry], wanted: Sequence[str] | None) -> list[QuarantineEntry]:
    """The entries that an order means, by entry id or by file name (then the newest of that name)."""
    if wanted is None:
        return list(entries)
    chosen = []
    for word in wanted:
        found = [entry for entry in entries if entry.id == word or entry.name.raw == from_display(word)]
        if not found:
            raise NoSuchEntry(word)
        chosen.append(found[0])
    return chosen


def _ordered(entry: QuarantineEntry, item: JudgedEntry, done: dict[str, Done]) -> Ordered:
    """What became of an entry, which is told as its side-car has it."""
    if entry.id in done:
        return Ordered(entry, done[entry.id])
    return Ordered(entry, None, item.message)
