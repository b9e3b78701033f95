"""Whether nodes that keep a base of the same name keep the same content. Pure.

Nothing upstream says what a base should be: glance's hash is of the image before nova converts it. But an image never
changes, and every qemu-img makes the same raw content of it, so the fleet itself is the reference. Digests are of the
content with holes counted as zeros; two copies that differ in their holes alone have one digest.

What differs for good reasons differs in size (a base that was not converted, `force_raw_images = false`; another
format; a longer tail) or differs on several nodes in the same way. So one node alone against at least two that agree,
all of one size, is suspect; where no two of a size agree nothing can be decided; everything else are variants, told
without alarm. Only digests of the same algorithm are compared, and only originals: swap and ephemeral bases are
formatted anew on each node. Nodes that see the same directory have one copy between them. What a silent node said
last counts as well: content does not age.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from basekeeper.resources.image_cache_policy import DisagreementKind

from . import digests
from .sharing import sharers
from .snapshots import NodeCache

_WEIGHT = {kind: place for place, kind in enumerate(DisagreementKind)}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One base of which not all nodes have the same content."""

    name: str
    kind: DisagreementKind
    """The weightiest that is true of it."""
    suspects: tuple[str, ...]
    """Nodes that stand alone against at least two copies that agree, in order."""
    undecided: tuple[str, ...]
    """Nodes of which no two of one size agree, in order."""
    agreeing: int
    """Copies that agree against the suspects; without one, copies of the content that most nodes have."""
    variants: int
    """How many contents there are."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing nodes showed."""

    bases: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Bases of which at least two copies could be compared, and the nodes that have one."""
    disagreements: tuple[Disagreement, ...] = ()
    """The weightiest first; among those that weigh the same one node's many do not come before another's first."""

    def told_to(self, nodes: frozenset[str], followers: frozenset[str]) -> "Comparison":
        """What of it the policy of `nodes` is told; `followers` are the nodes of all policies.

        A disagreement belongs to the policies of the nodes that stand alone in it. Where it has none, or they follow no
        policy, it belongs to all whose nodes have the base.
        """
        bases = {name: having for name, having in self.bases.items() if not nodes.isdisjoint(having)}
        told = (
            item
            for item in self.disagreements
            if not nodes.isdisjoint(followers.intersection(item.suspects + item.undecided) or self.bases[item.name])
        )
        return Comparison(bases, tuple(told))


def compare(caches: Mapping[str, NodeCache]) -> Comparison:
    """Compare what all nodes have reported last. The same reports are not compared again."""
    alike = sharers(caches)
    told = (
        (name, min((name, *alike.get(name, ()))), cache.said.digests)
        for name, cache in sorted(caches.items())
        if cache.said.digests
    )
    return _compared(tuple(told))


@functools.lru_cache(maxsize=1)
def _compared(told: tuple[tuple[str, str, bytes], ...]) -> Comparison:
    """`told`: node, the first of the nodes that see its directory, digests."""
    owners = {node: owner for node, owner, _ in told}
    having: dict[bytes, list[str]] = {}
    for node, _, reported in told:
        for entry in digests.entries(reported):
            having.setdefault(entry, []).append(node)
    contents: dict[bytes, list[bytes]] = {}
    for entry in having:
        contents.setdefault(digests.base_of(entry), []).append(entry)
    bases: dict[str, frozenset[str]] = {}
    differing: dict[str, list[list[bytes]]] = {}
    for base, found in contents.items():
        nodes = frozenset().union(*(having[entry] for entry in found))
        name = digests.name_of(base)
        if len(found) > 1 or len({owners[node] for node in nodes}) > 1:
            bases[name] = bases.get(name, frozenset()) | nodes
        if len(found) > 1:
            differing.setdefault(name, []).append(found)
    judged = [
        _judged(name, [_by_size(found, having, owners) for found in by_algorithm])
        for name, by_algorithm in differing.items()
    ]
    return Comparison(bases, tuple(_in_turn(judged)))


_Contents = list[tuple[int, list[str]]]
"""Different contents of one size: the number of copies of each, and the nodes that see one."""


def _by_size(
    entries: Iterable[bytes], having: Mapping[bytes, list[str]], owners: Mapping[str, str]
) -> dict[int, _Contents]:
    by_size: dict[int, _Contents] = {}
    for entry in entries:
        copies = len({owners[node] for node in having[entry]})
        by_size.setdefault(digests.size_of(entry), []).append((copies, having[entry]))
    return by_size


def _judged(name: str, by_algorithm: Iterable[Mapping[int, _Contents]]) -> Disagreement:
    """What it means that a base has these contents, by size, as one algorithm tells them or several."""
    suspects: set[str] = set()
    undecided: set[str] = set()
    against: list[int] = []
    most, variants = 0, 0
    for by_size in by_algorithm:
        for found in by_size.values():
            alone = {node for copies, nodes in found if copies == 1 for node in nodes}
            agreed = max(copies for copies, _ in found)
            most = max(most, agreed)
            if agreed > 1 and alone:
                suspects |= alone
                against.append(agreed)
            elif len(found) > 1 and agreed == 1:
                undecided |= alone
        variants = max(variants, sum(len(found) for found in by_size.values()))
    kind = DisagreementKind.VARIANTS
    if suspects or undecided:
        kind = DisagreementKind.SUSPECT if suspects else DisagreementKind.UNDECIDED
    agreeing = min(against, default=most)
    return Disagreement(name, kind, tuple(sorted(suspects)), tuple(sorted(undecided)), agreeing, variants)


def _in_turn(found: Iterable[Disagreement]) -> list[Disagreement]:
    """The weightiest first. A node that disagrees on everything must not fill a status before others are named."""
    turns: Counter[tuple[str, ...]] = Counter()
    placed = []
    for item in sorted(found, key=lambda item: item.name):
        who = item.suspects + item.undecided
        placed.append((_WEIGHT[item.kind], turns[who], item.name, item))
        turns[who] += 1
    return [item for *_, item in sorted(placed, key=lambda place: place[:3])]
