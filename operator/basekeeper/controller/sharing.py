"""Which nodes see the same directories, by what they report of them: the third sign of shared storage. Pure.

A node cannot see this by itself where nova's registry is young or off and the file system's type is a local one, as
with a directory that a hypervisor hands to several guests. Disks that were cloned look the same: that is told too, and
only removals wait for it.
"""

from collections.abc import Mapping

from basekeeper.resources.node_image_cache import MAX_SHARERS

from .snapshots import NodeCache


def sharers(caches: Mapping[str, NodeCache]) -> dict[str, tuple[str, ...]]:
    """For each node that sees a directory of others, those others in order, at most as many as a spec has room for.

    What a silent node said last counts as well: its instances may still be running.
    """
    seen_by: dict[str, set[str]] = {}
    for name, cache in caches.items():
        for part in (cache.said.identity or "").split("."):
            seen_by.setdefault(part, set()).add(name)
    seen_by.pop("", None)
    found: dict[str, set[str]] = {}
    for names in seen_by.values():
        if len(names) > 1:
            for name in names:
                found.setdefault(name, set()).update(names)
    return {name: tuple(sorted(others - {name})[:MAX_SHARERS]) for name, others in found.items()}
