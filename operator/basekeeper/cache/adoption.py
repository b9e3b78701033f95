"""The operator's word about what has opened the breaker, of the policy or given on this host, before a pass looks."""

from dataclasses import replace

from . import clock, identity, trips
from .ledger import Ledger
from .look import remember
from .memory import Directories, Memory
from .settings import Host, Policy
from .verdicts import Reason


def with_resets(policy: Policy, book: Ledger) -> Policy:
    """The policy with the trips that an operator has ended on this host since the last pass."""
    return replace(policy, reset_trips=policy.reset_trips | book.resets())


def remembered(host: Host, policy: Policy, book: Ledger) -> Memory:
    """What is remembered, of these directories if an operator said that they are right although they are others."""
    memory = remember(host, book)
    if memory.directories is not Directories.OTHER or Reason.OTHER_DIRECTORY not in trips.reset(policy, memory):
        return memory
    take_over(host, book)
    return remember(host, book)


def take_over(host: Host, book: Ledger) -> identity.Ids:
    """Know these directories from now on, by their ids, or by new ones that are yet to be written where they have none.

    Where one carries another id, the ledger is not its own: then every age starts anew. Where an id is only missing,
    the operator's word stands for it. Raises OSError if an id file cannot be read.
    """
    found, new = identity.read(host), identity.fresh()
    lost = remember(host, book).directories is Directories.MEMORY_LOST
    if lost or identity.carry_another(book.ids(), found):
        book.restart_ages(clock.read().wall)
    ids = identity.Ids(found.instances or new.instances, found.base or new.base)
    book.set_ids(ids, made=False)
    book.forget_last_pass()
    return ids
