"""What a pass does about nova's own manager: touches what it must not find old, judges what it does, remembers both."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from . import nova_manager
from .acts import Action, Touched
from .ledger import Ledger
from .look import Look
from .memory import Directories, NovaSeen
from .nova_manager import NovaManager
from .report import Acts
from .settings import Host, Policy
from .touching import touch_in_use


class Beside(NamedTuple):
    """What is known of nova's manager, and what was done because of it."""

    manager: NovaManager
    touched: Touched = Touched()


def attend(host: Host, policy: Policy, book: Ledger, look: Look, acts: Acts, *, acting: bool, vanished: bool) -> Beside:
    """At the end of a pass: touch if the policy asks for it and the pass may act, judge, and remember.

    `vanished`: finished files went by another hand. Suspended or not: a fresh stamp keeps a file, and removes none.
    """
    touched = Touched()
    if acting and policy.touch_in_use:
        touched = touch_in_use(host, policy, look.plan, look.now.wall)
    returned = (item.entry for item in acts.returned if acts.entries[item.entry.id].action is Action.RESTORED)
    stamps = {**stamps_of(host, (entry.name.raw for entry in returned)), **touched.stamps}
    seen = _seen(look, stamps, vanished=vanished)
    if look.memory.directories is not Directories.OTHER:
        book.set_nova(seen)
    return Beside(_judged(host, look, seen), touched)


def without_act(host: Host, look: Look, *, vanished: bool) -> Beside:
    """The same for a plan, which changes nothing."""
    return Beside(_judged(host, look, _seen(look, {}, vanished=vanished)))


def stamps_of(host: Host, names: Iterable[bytes]) -> dict[bytes, float]:
    """The time stamps that files have which were just put back: basekeeper's, not nova's."""
    stamps = {}
    for name in names:
        try:
            stamps[name] = os.stat(host.base / os.fsdecode(name), follow_symlinks=False).st_mtime
        except OSError:
            continue  # it is gone again, and no stamp of ours is there to be known
    return stamps


def _seen(look: Look, stamps: dict[bytes, float], *, vanished: bool) -> NovaSeen:
    now = look.now.wall
    seen = nova_manager.seen_after(look.memory, look.inventory, look.usage, stamps, vanished=vanished, now=now)
    return nova_manager.restarted(seen, now) if look.plan.restart_ages else seen


def _judged(host: Host, look: Look, seen: NovaSeen) -> NovaManager:
    return nova_manager.judge(look.inventory, look.usage, seen, host.nova_says, look.now.wall)
