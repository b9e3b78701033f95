"""The life of nodes' objects, and that what is there already is not written again."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.controller.desired import ORPHANED_AFTER, desired, is_there
from basekeeper.controller.snapshots import pod
from basekeeper.controller.store import World
from basekeeper.resources.node_image_cache import NodeSpec
from tests.unit.controlling import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    UUID,
    Cluster,
    cache,
    json_of,
    node,
    policy,
    report,
)


def test_a_node_gets_its_object_with_its_first_agent_policy_or_not() -> None:
    aim = desired(World(nodes={"a": node("a"), "b": node("b")}, agents=frozenset({"a"})), NOW)
    assert aim.wanted.keys() == {"a"}
    assert json_of(aim.wanted["a"]) == {}


def test_a_pod_on_a_node_that_is_not_known_makes_no_object() -> None:
    assert desired(World(agents=frozenset({"a"})), NOW).wanted == {}


PODS = {
    "bound": ({"nodeName": "a"}, {}, True),
    "running": ({"nodeName": "a"}, {"phase": "Running"}, True),
    "not bound yet": ({}, {"phase": "Pending"}, False),
    "ended well": ({"nodeName": "a"}, {"phase": "Succeeded"}, False),
    "evicted": ({"nodeName": "a"}, {"phase": "Failed"}, False),
}


@pytest.mark.parametrize(("spec", "status", "expected"), PODS.values(), ids=PODS)
def test_a_pod_counts_while_it_is_bound_and_has_not_ended(
    spec: dict[str, Any], status: dict[str, Any], expected: bool
) -> None:
    metadata = {"name": "agent-x", "resourceVersion": "7"}
    found = pod({"metadata": metadata, "spec": spec, "status": status})
    assert (found is not None) == expected
    assert found is None or found.node == "a"


def test_an_object_belongs_to_the_node_of_now_also_when_that_was_made_anew() -> None:
    cluster = Cluster(policy(), nodes=[node("a", uid="first")])
    cluster.settle()
    assert cluster.owners == {"a": "first"}
    cluster.join(node("a", uid="second"))
    assert cluster.aim().wanted["a"].node.uid == "second"
    assert cluster.reconcile() == {"a"}
    assert cluster.world().caches["a"].owners == {"second"}
    assert cluster.reconcile() == set()


def test_an_owner_that_somebody_added_is_no_reason_to_write() -> None:
    cluster = Cluster(policy(mode="Audit"), nodes=["a"])
    cluster.reconcile()
    there, wanted = cluster.world().caches["a"], cluster.aim().wanted["a"]
    assert is_there(replace(there, owners=frozenset({"of a backup", "uid-a"})), wanted)
    assert not is_there(replace(there, owners=frozenset({"of a backup"})), wanted)
    assert not is_there(replace(there, spec=None), wanted)
    assert not is_there(None, wanted)


def test_an_object_goes_with_its_node() -> None:
    cluster = Cluster(policy(), nodes=["a", "b"])
    cluster.settle()
    del cluster.nodes["a"]
    assert cluster.aim().gone == {"a"}
    cluster.reconcile()
    assert cluster.specs.keys() == {"b"}


SIGNS = {
    "no pod, reported an hour ago": (False, HOUR, 30 * DAY, False),
    "no pod, reported nearly a day ago": (False, ORPHANED_AFTER - 1, 30 * DAY, False),
    "no pod, reported over a day ago": (False, ORPHANED_AFTER + 1, 30 * DAY, True),
    "no pod, never reported, made an hour ago": (False, None, HOUR, False),
    "no pod, never reported, made over a day ago": (False, None, ORPHANED_AFTER + 1, True),
    "a pod that has been silent for a month": (True, 30 * DAY, 60 * DAY, False),
}


@pytest.mark.parametrize(("agent", "reported", "made", "expected"), SIGNS.values(), ids=SIGNS)
def test_an_object_goes_a_day_after_the_last_sign_of_an_agent(
    agent: bool, reported: float | None, made: float, expected: bool
) -> None:
    status = {} if reported is None else report(None, 1, at=NOW - reported)
    known = {"a": cache("a", status=status, created=NOW - made)}
    world = World(nodes={"a": node("a")}, caches=known, agents=frozenset({"a"} if agent else ()))
    aim = desired(world, NOW)
    assert (aim.gone == {"a"}) == expected
    assert ("a" in aim.wanted) != expected


def test_a_node_without_an_agent_is_still_told_until_its_object_goes() -> None:
    cluster = Cluster(policy(mode="Audit"), nodes=["a"])
    cluster.settle()
    cluster.agents.clear()
    cluster.put(policy(generation=2, mode="Audit", interval="1h"))
    assert cluster.reconcile() == {"a"}
    assert cluster.specs["a"]["interval"] == "1h"


def test_a_node_gets_only_its_own_acknowledged_paths() -> None:
    rows = [{"node": name, "path": name, "reason": "r"} for name in "ab"] + [{"path": "all", "reason": "r"}]
    cluster = Cluster(policy(mode="Audit", acknowledged=rows), nodes=["a", "b", "c"])
    cluster.reconcile()
    told = {name: [row["path"] for row in spec["acknowledged"]] for name, spec in cluster.specs.items()}
    assert told == {"a": ["a", "all"], "b": ["b", "all"], "c": ["all"]}


def test_a_node_hears_of_its_own_trips_only() -> None:
    trip = "UsersVanished-20261124T101500Z"
    cluster = Cluster(policy(resetTrips=[{"node": name, "trip": trip} for name in "ab"]), nodes=["a", "b", "c"])
    cluster.reconcile()
    told = {name: spec["resetTrips"] for name, spec in cluster.specs.items()}
    assert told == {"a": [{"node": "a", "trip": trip}], "b": [{"node": "b", "trip": trip}], "c": []}


def test_a_node_s_object_names_its_policy_and_generation_and_every_setting() -> None:
    given = policy(mode="Audit", generation=7, pressure={}, maxCacheBytes="1Gi", integrity={})
    cluster = Cluster(given, nodes=["a"])
    cluster.reconcile()
    told = cluster.specs["a"]
    assert told["policy"] == {"name": "compute", "uid": "uid-compute", "generation": 7}
    settings = {info.alias for name, info in NodeSpec.model_fields.items() if name not in ("policy", "rollout")}
    assert settings == told.keys() - {"policy"}


def test_what_cannot_be_read_is_written_anew() -> None:
    cluster = Cluster(policy(), nodes=["a", "b"])
    cluster.roll_out()
    strange = {**cluster.specs["a"], "ballast": {"percent": 80}}
    cluster.specs["a"] = strange
    cluster.now += DAY
    cluster.report()
    assert cluster.world().caches["a"].spec is None
    cluster.reconcile()
    assert "ballast" not in cluster.specs["a"]


def test_what_somebody_changed_by_hand_is_put_right() -> None:
    cluster = Cluster(policy(pinnedImages=[UUID]), nodes=["a"])
    cluster.roll_out()
    right = dict(cluster.specs["a"])
    cluster.specs["a"] = {**right, "pinnedImages": []}
    cluster.generations["a"] += 1
    assert cluster.reconcile() == {"a"}
    assert cluster.specs["a"] == right


SPECS: dict[str, dict[str, Any]] = {
    "the shortest": {},
    "a size as a number": {"limits": {"maxBytes": 10 * 2**30}},
    "a size as text": {"limits": {"maxBytes": "10Gi"}},
    "no retention": {"quarantine": {"retention": "0s"}},
    "a drain": {"quarantine": {"drain": "Purge"}},
    "durations written oddly": {"interval": "90m", "minimumAge": {"original": "1.5h", "swap": "86400s"}},
    "a duration finer than a nanosecond": {"minimumAge": {"original": "600.0000000006s"}},
    "pins in capitals, and twice": {"pinnedImages": [UUID.upper(), UUID, UUID]},
    "rows of nodes, with ends in time zones": {
        "acknowledged": [
            {"node": "node-1", "path": "a", "reason": "r", "until": "2030-01-01T00:00:00+02:00"},
            {"path": "b", "reason": "r", "until": "2030-01-01T00:00:00.123456789Z"},
            {"path": "b", "reason": "r"},
        ]
    },
    "Audit": {"mode": "Audit"},
    "suspended": {"suspend": True},
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_is_there_is_not_written_again(spec: dict[str, Any]) -> None:
    cluster = Cluster(policy(**spec), nodes=[f"node-{number}" for number in range(5)])
    for _ in range(12):
        cluster.now += 10 * MINUTE
        cluster.reconcile()
        assert cluster.reconcile() == set()
        for name, wanted in cluster.aim().wanted.items():
            assert NodeSpec.model_validate(cluster.specs[name]) == wanted.spec
        cluster.report()
    assert cluster.roll_up() == cluster.roll_up()


SECONDS = st.one_of(st.integers(0, 2562047 * 3600), st.integers(0, 10**15).map(lambda ns: f"{ns}ns")).map(
    lambda value: value if isinstance(value, str) else f"{value}s"
)


@given(SECONDS, st.integers(1, 2**63 - 1))
def test_every_duration_and_size_comes_back_as_it_was_written(duration: str, size: int) -> None:
    cluster = Cluster(policy(mode="Audit", interval=duration, limits={"maxBytes": size}), nodes=["a"])
    cluster.reconcile()
    assert cluster.reconcile() == set()


def test_two_controllers_at_once_tell_nodes_the_same() -> None:
    cluster = Cluster(policy(), nodes=[f"node-{number:02}" for number in range(20)])
    cluster.settle()
    world = cluster.world()
    ours, theirs = desired(world, NOW), desired(replace(world), NOW)
    assert {name: json_of(item) for name, item in ours.wanted.items()} == {
        name: json_of(item) for name, item in theirs.wanted.items()
    }


def test_the_order_in_which_things_became_known_makes_no_difference() -> None:
    policies = [policy(name, nodeSelector={"matchLabels": {"tier": "ci"}}) for name in "abc"]
    cluster = Cluster(*policies, nodes=[node(f"node-{number}", {"tier": "ci"}) for number in range(20)])
    world = cluster.world()
    turned = World(
        policies=dict(reversed(list(world.policies.items()))),
        nodes=dict(reversed(list(world.nodes.items()))),
        agents=world.agents,
    )
    told = [{name: json_of(item) for name, item in desired(known, NOW).wanted.items()} for known in (world, turned)]
    assert json.dumps(told[0], sort_keys=True) == json.dumps(told[1], sort_keys=True)
