"""Between passes: answer the round that another host of a shared cache has opened, by a look that begins after it."""

from . import engine, ledger_file
from .coordination import member_of
from .look import Looker, as_shown, remember
from .settings import Host, Policy, SharedStorageMode
from .share import Share
from .verdicts import USE_REASONS

EVERY = 15.0
"""Seconds between two looks for a new round; a leader waits for several of these."""


def is_asked(host: Host, policy: Policy) -> bool:
    """Whether another host has opened a round that this one has not answered. Reads two small files."""
    if policy.shared_storage is not SharedStorageMode.COORDINATE:
        return False
    share = Share(host)
    with engine.failures():
        latest, own = share.round(), share.own_evidence()
    return latest is not None and latest.host != share.own and (own is None or own.round < latest.number)


def answer(host: Host, policy: Policy) -> None:
    """Look, and publish what this host needs; changes nothing in the cache. Raises PassFailed."""
    policy = as_shown(policy, host)
    with engine.failures(), ledger_file.writing(host.state) as book:
        member = member_of(host, policy, book, acts=engine.removes(policy), resident=True)
        if member is None:
            return
        member.begin()
        looker = Looker(host, policy, remember(host, book), member)
        look = looker.look()
        looker.publish(look)
        used = {item.file.name.raw: item for item in look.plan.files if item.reason in USE_REASONS}
        inodes = {name: item.file.inode for name, item in used.items()}
        book.seen_in_use({name: item.users for name, item in used.items()}, inodes, look.now.wall)
        book.commit()
        if member.problem is not None:
            raise engine.PassFailed(member.problem)
