"""From one look to what this host publishes of it for the hosts that share its storage. Pure.

Told is what this host saw by itself and what its own policy and memory make of it, never what it has from others: what
two hosts told each other they would go on telling for ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from .evidence import Inode, Inventory, Kept, Usage
from .host_evidence import HostEvidence, Trouble, keeps
from .hosts import device_of, objection_of
from .memory import Clock, Memory
from .plan import Plan, plan
from .settings import Policy
from .verdicts import Reason, Verdict

_SUSPECT = frozenset({Reason.OTHER_DIRECTORY, Reason.INSTANCES_VANISHED})
"""Anomalies of this host alone. That users vanished each host finds in what all of them tell."""
V = TypeVar("V")


def of_look(
    who: HostEvidence,
    inventory: Inventory,
    own: Usage,
    policy: Policy,
    memory: Memory,
    now: Clock,
    purged: Iterable[bytes],
) -> HostEvidence:
    """What `who`, a host and its round without any evidence yet, publishes of a look that saw `own` by itself.

    `purged` are the names of what it purged lately.
    """
    alone = replace(memory, last_pass=None, breaker=None)
    judged = plan(inventory, own, policy, alone, now)
    device = device_of(inventory)
    troubles = [Trouble(item.message, item.only) for item in judged.unknown]
    troubles += [Trouble(stop.message) for stop in judged.stops if stop.reason in _SUSPECT]
    return replace(
        who,
        objection=objection_of(policy),
        troubles=(*who.troubles, *troubles),
        used=own.by_name,
        used_files=_numbers(own.by_inode, device),
        images=own.images,
        qemu_locks=frozenset(number for place, number in own.qemu_locks if place == device),
        nova_locks=own.nova_locks,
        open_files=_numbers(own.open_files, device),
        spawns=own.spawns,
        claimed=own.claimed,
        kept=_kept(judged, who.skew),
        purged=tuple(purged),
        nova_pass_at=own.nova_pass_at,
        domains=own.domains,
    )


def _kept(judged: Plan, skew: float) -> dict[bytes, Kept]:
    """What this host keeps by its own judgement alone; times by the file server's clock."""
    entries = {item.entry.name.raw: Kept(item.reason, item.message) for item in judged.entries if keeps(item.reason)}
    return entries | {
        item.file.name.raw: Kept(
            item.reason, item.message, None if item.unused_since is None else item.unused_since + skew
        )
        for item in judged.files
        if item.verdict is Verdict.KEEP and keeps(item.reason)
    }


def _numbers(by_inode: Mapping[Inode, V], device: int) -> dict[int, V]:
    return {number: value for (place, number), value in by_inode.items() if place == device}
