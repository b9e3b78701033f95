"""One look: the cache, what uses it and what is remembered, judged together. Changes nothing."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from . import clock, contents, extents, identity, inventory, storage, usage
from .acts import Doubt
from .coordination import Member
from .evidence import CachedFile, Inventory, Part, QuarantineEntry, Usage
from .ledger import Ledger
from .memory import Clock, Memory
from .plan import Plan, plan
from .pressure import wants_room
from .settings import Host, Policy
from .tree import TreeMark
from .verdicts import Reason, Verdict

Adjust = Callable[[Inventory, Usage], tuple[Inventory, Usage]]
"""Changes what was seen before it is judged."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and what follows from it."""

    inventory: Inventory
    own: Usage
    """What this host saw itself."""
    usage: Usage
    """The same, with what other hosts of a shared cache told."""
    mark: TreeMark
    now: Clock
    memory: Memory
    plan: Plan
    observed: float
    """Seconds that observation took."""
    observed_by_part: Mapping[Part, float]
    """Seconds that its parts took."""
    judged: float
    """Seconds that judgement took."""


@dataclass(frozen=True, slots=True)
class Looker:
    """Looks again and again at one host under one policy, with one memory."""

    host: Host
    policy: Policy
    memory: Memory
    member: Member | None = None
    """This host's part in a cache that it shares with others."""

    def may_act(self) -> Doubt | None:
        """Why nothing may be removed or purged at this moment, if so."""
        return None if self.member is None else self.member.fence()

    @property
    def round(self) -> int | None:
        """The round by which this host leads now, where hosts share the cache."""
        lead = self.member.lead if self.member is not None else None
        return None if lead is None else lead.round.number

    def publish(self, look: "Look") -> None:
        """Tell the hosts that share the cache what was seen."""
        if self.member is not None:
            self.member.publish(look.inventory, look.own, look.memory, look.now, look.observed)

    def announce(self, look: "Look") -> None:
        """Tell them what is about to be purged."""
        if self.member is not None:
            self.member.announce(item.entry.name.raw for item in look.plan.purges)

    def look(self, adjust: Adjust | None = None) -> Look:
        """Observe and judge now. `adjust` may change what was seen before it is judged. Raises Unobservable."""
        started = time.monotonic()
        now = clock.read()
        hearing = self.member.hear() if self.member is not None else None
        seen = self._inventory()
        scanned = time.monotonic()
        own, mark, parts = usage.gather(self.host, now.wall - (hearing.margin if hearing is not None else 0.0), seen)
        if self.member is not None and hearing is not None:
            used = self.member.merge(own, seen, hearing, now)
        else:
            used = storage.as_told(own, self.policy)
        if adjust is not None:
            seen, used = adjust(seen, used)
        observed = time.monotonic()
        judged = plan(seen, used, self.policy, self.memory, now)
        ended = time.monotonic()
        by_part = {Part.INVENTORY: scanned - started, **parts}
        return Look(seen, own, used, mark, now, self.memory, judged, observed - started, by_part, ended - observed)

    def _inventory(self) -> Inventory:
        """The cache, and how full its file system is; what files share only where room may be wanted."""
        seen = replace(inventory.scan(self.host), room=storage.room(self.host))
        if not wants_room(seen.room, self.policy.pressure):
            return seen
        return replace(seen, shared=extents.shared(self.host.base, seen))


def remember(host: Host, ledger: Ledger) -> Memory:
    """What is remembered about these directories. Raises OSError if an id file cannot be read."""
    found = identity.read(host)
    directories, message = identity.compare(ledger.ids(), found, host, ledger_lost=ledger.lost)
    return replace(ledger.memory(directories, message), damaged=contents.damaged(host, ledger.contents.known()))


def as_shown(policy: Policy, host: Host) -> Policy:
    """The policy with its acknowledged paths as holds show them: both forms are accepted."""
    prefix = f"{host.instances}/"
    rows = tuple(replace(row, path=row.path.removeprefix(prefix).rstrip("/")) for row in policy.acknowledged)
    return replace(policy, acknowledged=rows)


class Watch:
    """Looks after a rename for anything that came since the last look.

    Directories are asked first, by their stamps, which is cheap; only when one changed is everything observed
    and judged again, with the moved file put back in thought.
    """

    def __init__(self, looker: Looker, since: Look) -> None:
        self.host = looker.host
        self._looker = looker
        self._mark = since.mark

    def about_removal(self, file: CachedFile, entry: QuarantineEntry) -> Doubt | None:
        """What speaks for a file that has just been moved out of the cache."""
        if not self._mark.changed_since():
            return self._looker.may_act()

        def put_back(seen: Inventory, used: Usage) -> tuple[Inventory, Usage]:
            others = tuple(item for item in seen.entries if item.id != entry.id)
            without_our_lock = replace(used, nova_locks=used.nova_locks - {file.name.lock_name})
            return replace(seen, files=(*seen.files, file), entries=others), without_our_lock

        again = self._looker.look(put_back)
        self._mark = again.mark
        judged = next(item for item in again.plan.files if item.file == file)
        relief = again.plan.relief
        if relief is not None and file.name.raw in relief.order:
            return self._looker.may_act()  # there may be room by now, but nothing speaks for the file
        if judged.verdict is Verdict.REMOVE or judged.reason is Reason.LIMIT_REACHED:
            return self._looker.may_act()
        if judged.verdict is Verdict.HOLD:
            return Doubt(judged.reason, judged.message)
        return Doubt(Reason.USER_APPEARED, f"{judged.message}, since a moment ago")

    def about_purge(self, entry: QuarantineEntry, adjust: Adjust | None) -> Doubt | None:
        """What speaks for a quarantined file that is about to be deleted."""
        if not self._mark.changed_since():
            return self._looker.may_act()
        again = self._looker.look(adjust)
        self._mark = again.mark
        if entry.id in {item.entry.id for item in again.plan.purges}:
            return self._looker.may_act()
        judged = next((item for item in again.plan.entries if item.entry.id == entry.id), None)
        if judged is None:
            return Doubt(Reason.USER_APPEARED, f"{entry.name} left the quarantine meanwhile")
        return Doubt(judged.reason, judged.message)
