"""What a pass writes into the ledger, for the passes that come after it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from . import contents, identity, presence, quarantine, removal
from .acts import Action
from .baselines import FORGOTTEN_AFTER
from .ledger import Ledger
from .look import Look
from .memory import Acknowledged, Directories, LastPass
from .plan import used_names
from .report import Acts
from .settings import Host, Policy
from .verdicts import USE_REASONS, Reason


def settle_ids(host: Host, book: Ledger, directories: Directories, *, acting: bool) -> None:
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


def note_acknowledged(book: Ledger, policy: Policy, look: Look) -> None:
    """Keep what each path of the policy's list was when it was first met, and forget what left the list."""
    listed = {row.path for row in policy.acknowledged}
    noted = {row.path for row in look.memory.acknowledged if not row.by_hand}
    for unknown in look.usage.unknown:
        if unknown.path in listed - noted:
            book.acknowledge(Acknowledged(unknown.path, unknown.identity, by_hand=False))
    book.forget_acknowledged(noted - listed, by_hand=False)


def compare_conflicts(host: Host, book: Ledger, look: Look) -> None:
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


def remember_pass(book: Ledger, look: Look, acts: Acts) -> None:
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
        book.forget_compared(but={entry.id for entry in look.inventory.entries})
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
    note_present(book, look, without=gone, back=back)


def forget_contents(host: Host, book: Ledger, look: Look) -> None:
    """Forget the digests of files that are long gone from the cache and from the quarantine."""
    if look.memory.directories is Directories.OTHER:
        return
    with suppress(OSError):  # what cannot be asked is forgotten later
        book.contents.forget(contents.identities(host, look.inventory), look.now.wall - FORGOTTEN_AFTER)


def note_present(book: Ledger, look: Look, *, without: Iterable[bytes], back: Iterable[bytes] = ()) -> None:
    """Remember what lies in the cache, but for what this pass removes, and with what it puts back."""
    present = presence.of(look.inventory, look.now.wall)
    if present is not None and look.memory.directories is not Directories.OTHER:
        book.set_present(replace(present, names=present.names.union(back).difference(without)))
