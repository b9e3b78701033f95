"""Nodes that report the same directories are told of each other: at once; that nobody does any more, in waves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.controller.sharing import sharers
from basekeeper.resources.node_image_cache import NodeSpec
from tests.unit.controlling import Cluster, cache, policy

CASES: dict[str, tuple[dict[str, str | None], dict[str, tuple[str, ...]]]] = {
    "nobody tells": ({"a": None, "b": None}, {}),
    "each its own": ({"a": "1.2", "b": "3.4"}, {}),
    "both parts": ({"a": "1.2", "b": "1.2"}, {"a": ("b",), "b": ("a",)}),
    "the cache alone": ({"a": "1.2", "b": "3.2"}, {"a": ("b",), "b": ("a",)}),
    "one on each side": ({"b": "1.2", "a": "1.3", "c": "4.2"}, {"b": ("a", "c"), "a": ("b",), "c": ("b",)}),
    "one that cannot tell": ({"a": "1.2", "b": "1.2", "c": None}, {"a": ("b",), "b": ("a",)}),
    "more than a spec takes": (
        {f"n{number}": "1" for number in range(10)},
        {f"n{number}": tuple(f"n{other}" for other in range(10) if other != number)[:8] for number in range(10)},
    ),
}  # fmt: skip


def said(identity: str | None) -> dict[str, Any]:
    """A status with this identity."""
    return {
        "fileSystem": {"type": "xfs", "sizeBytes": 1, "availableBytes": 1}
        | ({"identity": identity} if identity else {})
    }


@pytest.mark.parametrize(("identities", "expected"), CASES.values(), ids=CASES)
def test_who_shares(identities: dict[str, str | None], expected: dict[str, tuple[str, ...]]) -> None:
    assert sharers({name: cache(name, status=said(one)) for name, one in identities.items()}) == expected


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["1.2", "3.2", "1", "4.5", "", None])))
def test_sharing_is_mutual_and_what_is_told_is_a_spec(identities: dict[str, str | None]) -> None:
    found = sharers({name: cache(name, status=said(one)) for name, one in identities.items()})
    for name, others in found.items():
        assert all(name in found[other] for other in others)
        NodeSpec.model_validate({"sharedStorageWith": list(others)})


def told(cluster: Cluster) -> dict[str, list[str]]:
    """With whom each node has been told to share."""
    return {name: spec["sharedStorageWith"] for name, spec in cluster.specs.items()}


def enforcing() -> Cluster:
    """Ten nodes that remove, each with directories of its own."""
    cluster = Cluster(policy(), nodes=[f"n{number}" for number in range(10)])
    cluster.roll_out()
    for number, name in enumerate(cluster.statuses):
        cluster.statuses[name] |= said(f"{number}")
    return cluster


def test_nodes_hear_at_once_that_they_share_and_in_waves_that_they_do_not() -> None:
    cluster = enforcing()
    assert set(map(tuple, told(cluster).values())) == {()}
    for name in ("n1", "n2", "n3"):
        cluster.statuses[name] |= said("the same")
    assert cluster.reconcile() == {"n1", "n2", "n3"}
    assert (told(cluster)["n1"], told(cluster)["n3"]) == (["n2", "n3"], ["n1", "n2"])
    assert cluster.waiting() == set()

    cluster.now += 100_000
    cluster.report()  # no identity any more: the disks were given their own
    cluster.reconcile()
    assert sum(bool(others) for others in told(cluster).values()) == 2, "one of them, as a wave of 10 % allows"
    assert len(cluster.waiting()) == 2
    cluster.roll_out()
    assert set(map(tuple, told(cluster).values())) == {()}


def test_a_node_that_removes_nothing_hears_everything_at_once() -> None:
    cluster = enforcing()
    cluster.statuses["n1"] |= said("x")
    cluster.statuses["n2"] |= said("x")
    cluster.put(policy(generation=2, mode="Audit"))
    cluster.reconcile()
    assert told(cluster)["n1"] == ["n2"]
    cluster.report()
    cluster.reconcile()
    assert told(cluster)["n1"] == []
    assert cluster.waiting() == set()
