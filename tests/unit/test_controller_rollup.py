"""A policy's status: every node once, counted and summed, and conditions that say what is so."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basekeeper.cache.moments import timestamp
from basekeeper.controller.rollout import STALE_AFTER
from basekeeper.controller.rollup import states, unchanged
from basekeeper.resources.conditions import PolicyCondition
from basekeeper.resources.image_cache_policy import MAX_ROWS, NodeState, PolicyStatus
from tests.unit.controlling import (
    BREAKER,
    DAY,
    FAILS,
    HOLDS,
    HOUR,
    INTERVAL,
    MINUTE,
    NOW,
    Cluster,
    condition,
    node,
    policy,
)


def audited(count: int = 3, **spec: Any) -> Cluster:
    """Nodes that follow a policy in Audit and have reported."""
    cluster = Cluster(policy(**({"mode": "Audit"} | spec)), nodes=[f"node-{number:03}" for number in range(count)])
    cluster.settle()
    return cluster


def told(cluster: Cluster) -> dict[str, Any]:
    """The status of the only policy."""
    status: dict[str, Any] = cluster.roll_up()["compute"]
    return status


def row_of(cluster: Cluster, name: str) -> dict[str, Any]:
    """The row of one node."""
    rows: list[dict[str, Any]] = told(cluster)["nodeStatuses"]
    return next(row for row in rows if row["node"] == name)


def test_a_row_tells_a_node_in_short() -> None:
    cluster = audited(1)
    ran = {"time": timestamp(NOW), "mode": "Audit", "outcome": "Planned", "held": {"UnknownUsage": 2}}
    sizes = {"bytes": 10, "files": 3, "reclaimableBytes": 4, "quarantinedBytes": 5, "reclaimedBytes": 6}
    cluster.report(HOLDS, lastPass=ran, cache=sizes)
    assert told(cluster)["nodeStatuses"] == [
        {
            "node": "node-000",
            "state": "Holding",
            "mode": "Audit",
            "outcome": "Planned",
            "lastPassTime": timestamp(NOW),
            "cacheBytes": 10,
            "reclaimableBytes": 4,
            "quarantinedBytes": 5,
            "reclaimedBytes": 6,
            "heldFiles": 2,
            "message": "UnknownUsage: a/disk cannot be read",
        }
    ]


def _grow_old(cluster: Cluster) -> None:
    cluster.mute.add("node-000")
    cluster.now += STALE_AFTER + 1
    cluster.report()


def _forget(cluster: Cluster) -> None:
    cluster.statuses.pop("node-000")


def _edit(cluster: Cluster) -> None:
    cluster.put(policy(generation=2, mode="Audit", interval="1h"))
    cluster.reconcile()


def _wait(cluster: Cluster) -> None:
    cluster.put(policy(generation=2))
    for _ in range(2):
        cluster.next_wave()


def _say(*said: dict[str, Any]) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.report(*said)


STATES: dict[str, tuple[Callable[[Cluster], None], NodeState, str | None]] = {
    "well": (_say(), NodeState.CURRENT, None),
    "holds": (_say(HOLDS), NodeState.HOLDING, "UnknownUsage: a/disk cannot be read"),
    "fails": (_say(FAILS), NodeState.FAILING, "PassFailed: the disk is gone"),
    "breaker": (_say(BREAKER, HOLDS), NodeState.BREAKER_OPEN, "UsersVanished: all users are gone"),
    "fails with an open breaker: the worse": (_say(FAILS, BREAKER), NodeState.FAILING, "PassFailed: the disk is gone"),
    "silent for two hours": (_grow_old, NodeState.STALE, f"silent since {timestamp(NOW)}"),
    "never reported": (_forget, NodeState.MISSING, None),
    "told anew, not reported yet": (_edit, NodeState.PENDING, None),
    "waits for its wave": (_wait, NodeState.WAITING, None),
    "does not apply what it is told": (_say(condition("PolicyApplied", "False")), NodeState.PENDING, None),
}


@pytest.mark.parametrize(("happen", "state", "message"), STATES.values(), ids=STATES)
def test_a_node_is_told_in_a_word(happen: Callable[[Cluster], None], state: NodeState, message: str | None) -> None:
    cluster = audited(12)
    happen(cluster)
    rows = told(cluster)["nodeStatuses"]
    found = rows[0] if state is NodeState.WAITING else row_of(cluster, "node-000")
    assert found["state"] == state
    assert found.get("message") == message
    assert len(rows) == 12


def test_every_state_can_be_told() -> None:
    assert {state for _, state, _ in STATES.values()} == set(NodeState)


NUMBERS = st.integers(0, 39)


@settings(deadline=None)
@given(st.sets(NUMBERS), st.sets(NUMBERS), st.sets(NUMBERS), st.sets(NUMBERS), st.sets(NUMBERS), st.booleans())
def test_every_node_is_counted_once_and_the_worst_come_first(
    fail: set[int], trip: set[int], hold: set[int], mute: set[int], silent: set[int], edited: bool
) -> None:
    cluster = audited(40)
    cluster.ill = {f"node-{number:03}": HOLDS for number in hold}
    cluster.ill |= {f"node-{number:03}": BREAKER for number in trip}
    cluster.ill |= {f"node-{number:03}": FAILS for number in fail}
    for number in mute:
        cluster.statuses.pop(f"node-{number:03}")
    cluster.mute = {f"node-{number:03}" for number in mute | silent}
    if edited:
        cluster.put(policy(generation=2))
    cluster.now += 3 * HOUR
    cluster.report()
    cluster.reconcile()

    status = told(cluster)
    rows, counts = status["nodeStatuses"], status["nodes"]
    places = [list(NodeState).index(row["state"]) for row in rows]
    assert sorted(row["node"] for row in rows) == sorted(cluster.specs)
    assert places == sorted(places)
    seen = Counter(row["state"] for row in rows)
    assert counts["matched"] == 40 == counts["reporting"] + counts["stale"] + counts["missing"]
    assert counts["missing"] == seen["Missing"] == len(mute)
    assert counts["stale"] == len(silent - mute)
    assert counts["failing"] == seen["Failing"] + seen["BreakerOpen"] == len((fail | trip) - mute - silent)
    assert counts["holding"] == len(hold - fail - trip - mute - silent)
    assert counts["waiting"] == len(cluster.waiting())
    assert counts["overridden"] == 0
    PolicyStatus.model_validate(status)


@pytest.mark.parametrize("ill", [FAILS, BREAKER])
def test_a_node_in_trouble_that_falls_silent_is_stale_and_its_last_word_is_told(ill: dict[str, Any]) -> None:
    cluster = audited(2)
    cluster.ill = {"node-000": ill}
    cluster.report()
    assert row_of(cluster, "node-000")["state"] in {"Failing", "BreakerOpen"}
    word = row_of(cluster, "node-000")["message"]
    since = timestamp(cluster.now)
    cluster.mute = {"node-000"}
    cluster.now += 3 * HOUR
    cluster.report()
    assert row_of(cluster, "node-000")["state"] == "Stale"
    assert row_of(cluster, "node-000")["message"] == f"silent since {since}; it said: {word}"
    counts = told(cluster)["nodes"]
    assert (counts["stale"], counts["failing"], counts["reporting"]) == (1, 0, 1)


def test_the_worst_five_hundred_are_told_and_all_are_counted() -> None:
    cluster = audited(MAX_ROWS + 1)
    cluster.ill["node-500"] = FAILS
    cluster.report(cache={"bytes": 3})
    status = told(cluster)
    assert states(cluster.world(), cluster.aim(), cluster.now) == {NodeState.CURRENT: MAX_ROWS, NodeState.FAILING: 1}
    assert len(status["nodeStatuses"]) == MAX_ROWS
    assert status["nodeStatuses"][0]["node"] == "node-500"
    assert status["truncated"]
    assert status["nodes"]["matched"] == MAX_ROWS + 1
    assert status["totals"]["cacheBytes"] == 3 * (MAX_ROWS + 1)
    assert not told(audited(MAX_ROWS))["truncated"]


def test_sums_are_of_all_nodes_that_follow_the_policy() -> None:
    cluster = audited(3)
    sizes = {"bytes": 2**31, "files": 3, "reclaimableBytes": 2**30, "quarantinedBytes": 5, "quarantinedFiles": 2}
    damaged = {"corruptFiles": 2, "corruptInUse": 1}
    cluster.report(cache=sizes | {"reclaimableFiles": 1, "reclaimedBytes": 7}, integrity=damaged)
    assert told(cluster)["totals"] == {
        "cacheBytes": 3 * 2**31,
        "cacheFiles": 9,
        "reclaimableBytes": 3 * 2**30,
        "quarantinedBytes": 15,
        "quarantinedFiles": 6,
        "corruptFiles": 6,
        "reclaimedBytes": 21,
    }
    assert told(cluster)["reclaimable"] == "3.0 GiB"


def test_a_node_that_tells_nonsense_does_not_keep_the_others_from_being_told_of() -> None:
    cluster = audited(3)
    held = {"time": timestamp(NOW), "held": {"A": 2**31 - 1, "B": 2**31 - 1}}
    cluster.report(cache={"bytes": 2**60, "files": 2**31 - 1}, lastPass=held)
    status = told(cluster)
    assert status["totals"]["cacheBytes"] == 2**60
    assert status["totals"]["cacheFiles"] == 2**31 - 1


READY = [
    (19, 20, "True"),
    (18, 20, "False"),
    (18, 19, "False"),
    (20, 20, "True"),
    (95, 100, "True"),
    (94, 100, "False"),
]


@pytest.mark.parametrize(("current", "count", "expected"), READY)
def test_ready_takes_95_percent_of_the_nodes_that_are_ready_themselves(current: int, count: int, expected: str) -> None:
    cluster = audited(count)
    cluster.join(node("down", ready=False))
    cluster.put(policy(generation=2, mode="Audit", interval="1h"))
    cluster.reconcile()
    cluster.mute = {f"node-{number:03}" for number in range(current, count)} | {"down"}
    cluster.report()
    assert cluster.said("Ready")[0] == expected
    assert told(cluster)["nodes"]["current"] == current
    assert cluster.said("Ready")[2].startswith(f"{current} of {count} nodes run generation 2")


def test_zero_nodes_are_ready() -> None:
    assert audited(0).said("Ready")[:2] == ("True", "NoNodes")
    down = Cluster(policy(), nodes=[node("down", ready=False)])
    down.reconcile()
    assert down.said("Ready")[:2] == ("True", "NoNodes")


@pytest.mark.parametrize("spec", [{"mode": "Audit"}, {"mode": "Enforce", "suspend": True}], ids=["Audit", "suspended"])
def test_a_policy_that_removes_nothing_can_be_ready(spec: dict[str, Any]) -> None:
    cluster = audited(3, **spec)
    assert cluster.said("Ready")[:2] == ("True", "AllNodesCurrent")
    assert cluster.said("Enforcing")[0] == "False"


def test_ready_waits_until_the_nodes_run_this_generation_of_this_policy() -> None:
    cluster = audited(3)
    cluster.put(policy(generation=2, mode="Audit", interval="1h"))
    assert cluster.said("Ready")[:2] == ("False", "NodesPending"), "not told yet"
    cluster.reconcile()
    assert cluster.said("Ready")[:2] == ("False", "NodesPending"), "not reported yet"
    cluster.report()
    assert cluster.said("Ready")[:2] == ("True", "AllNodesCurrent")
    cluster.put(policy(generation=2, mode="Audit", interval="1h", uid="made anew"))
    assert cluster.said("Ready")[0] == "False", "of another policy of that name"


def test_ready_waits_for_the_waves() -> None:
    cluster = audited(3)
    cluster.put(policy(generation=2))
    cluster.next_wave()
    assert cluster.said("Ready")[:2] == ("False", "InProgress")
    cluster.roll_out()
    assert cluster.said("Ready")[:2] == ("True", "AllNodesCurrent")


def test_a_node_is_current_only_once_it_has_reported_what_its_wave_brought() -> None:
    cluster = audited(2, rollout={"maxNodesPerInterval": 1})
    cluster.put(policy(generation=2, rollout={"maxNodesPerInterval": 1}))
    cluster.next_wave()
    assert told(cluster)["nodes"]["current"] == 1
    cluster.now += INTERVAL
    assert told(cluster)["nodes"]["current"] == 1, "its wave has come, it has not been told"
    cluster.reconcile()
    assert told(cluster)["nodes"]["current"] == 1, "it has been told, it has not reported"
    cluster.report()
    assert told(cluster)["nodes"]["current"] == 2


def test_enforcing_is_so_while_nodes_remove_also_while_they_wait_for_more() -> None:
    cluster = audited(2)
    assert cluster.said("Enforcing")[:2] == ("False", "Audit")
    cluster.put(policy(generation=2))
    cluster.next_wave()
    assert cluster.said("Enforcing") == ("True", "Enforce", "1 of 2 nodes remove what may go")
    cluster.roll_out()
    cluster.ill = dict.fromkeys(cluster.specs, FAILS)
    cluster.report()
    cluster.put(policy(generation=3, minimumAge={"original": "1h"}))
    cluster.reconcile()
    assert len(cluster.waiting()) == 2
    assert cluster.said("Enforcing") == ("True", "Enforce", "2 of 2 nodes remove what may go")


NOT_ENFORCING: dict[str, tuple[dict[str, Any], str]] = {
    "Audit": ({"mode": "Audit"}, "Audit"),
    "suspended": ({"suspend": True}, "Suspended"),
    "drained": ({"quarantine": {"drain": "Restore"}}, "Draining"),
    "not accepted": ({"mode": "Other"}, "NotAccepted"),
    "no nodes": ({"nodeSelector": {"matchLabels": {"no": "such"}}}, "NoNodes"),
}


@pytest.mark.parametrize(("spec", "reason"), NOT_ENFORCING.values(), ids=NOT_ENFORCING)
def test_enforcing_says_why_it_is_not_so(spec: dict[str, Any], reason: str) -> None:
    cluster = Cluster(policy(**spec), nodes=["a"])
    cluster.settle()
    assert cluster.said("Enforcing")[:2] == ("False", reason)


def test_degraded_names_the_worst_first() -> None:
    cluster = audited(6)
    assert cluster.said("Degraded")[:2] == ("False", "AsExpected")
    cluster.report(HOLDS)
    assert cluster.said("Degraded")[:2] == ("False", "AsExpected"), "holds are no trouble"
    cluster.mute = {"node-005"}
    cluster.now += 3 * HOUR
    cluster.ill = {f"node-00{number}": BREAKER for number in range(4)}
    cluster.report()
    expected = "BreakerOpen: node-000, node-001, node-002 and 1 more; Stale: node-005"
    assert cluster.said("Degraded") == ("True", "BreakerOpen", expected)
    cluster.ill["node-003"] = FAILS
    cluster.report()
    assert cluster.said("Degraded")[1] == "NodesFailing"


def test_a_node_that_never_reported_is_trouble_after_a_while() -> None:
    cluster = Cluster(policy(mode="Audit"), nodes=["a"])
    assert told(cluster)["nodes"]["missing"] == 1, "before its object is made"
    cluster.reconcile()
    cluster.now += 9 * MINUTE
    assert cluster.said("Degraded")[0] == "False"
    cluster.now += 2 * MINUTE
    assert cluster.said("Degraded") == ("True", "NodesMissing", "Missing: a")


def test_overridden_names_the_winners_and_what_decided() -> None:
    one = policy("one", priority=2, nodeSelector={"matchLabels": {"tier": "ci"}})
    two = policy("two", created=NOW - 9 * DAY, nodeSelector={"matchLabels": {"tier": "dev"}})
    nodes = [node("a", {"tier": "ci"}), node("b", {"tier": "dev"}), node("c", {"tier": "dev"}), node("d")]
    cluster = Cluster(policy(), one, two, nodes=nodes)
    cluster.settle()
    expected = "1 node follows one; 2 nodes follow two (two: priorities are equal and it is older)"
    assert cluster.said("Overridden") == ("True", "OlderPolicy", expected)
    assert told(cluster)["nodes"]["overridden"] == 3
    assert told(cluster)["nodes"]["matched"] == 1
    assert cluster.said("Overridden", of="one") == (
        "False",
        "NotOverridden",
        "no other policy takes a node of this one",
    )


def test_a_condition_keeps_the_time_at_which_its_status_changed() -> None:
    cluster = audited(2)
    first = {item["type"]: item["lastTransitionTime"] for item in told(cluster)["conditions"]}
    assert set(first.values()) == {timestamp(NOW)}
    cluster.now += HOUR
    cluster.put(policy(generation=2))
    cluster.reconcile()
    second = {item["type"]: item["lastTransitionTime"] for item in told(cluster)["conditions"]}
    changed = {"Ready", "RollingOut", "Enforcing"}
    assert {kind for kind, at in second.items() if at != first[kind]} == changed
    assert {second[kind] for kind in changed} == {timestamp(NOW + HOUR)}


def test_every_condition_is_told_with_the_generation_that_was_seen() -> None:
    cluster = audited(1)
    cluster.put(policy(generation=5, mode="Audit"))
    status = told(cluster)
    assert status["observedGeneration"] == 5
    assert [item["type"] for item in status["conditions"]] == [kind.value for kind in PolicyCondition]
    assert {item["observedGeneration"] for item in status["conditions"]} == {5}


def test_nothing_that_is_told_is_longer_than_it_may_be() -> None:
    long = "n" * 240
    policies = [
        policy(f"{long}-{number}", uid=f"uid-{number}", priority=9, nodeSelector={"matchLabels": {"n": str(number)}})
        for number in range(9)
    ]
    nodes = [node(f"{long}-{number}", {"n": str(number)}) for number in range(9)]
    nodes += [node(f"{long}-x{number}") for number in range(20)]
    cluster = Cluster(policy(), *policies, policy("bad", mode="x" * 3000), nodes=nodes)
    cluster.settle()
    cluster.ill = {
        item.name: condition(kind, "False", "Because", "m" * 9000)
        for item, kind in zip(cluster.nodes.values(), ["Ready", "BreakerClosed"] * 20, strict=False)
    }
    cluster.report()
    for status in cluster.roll_up().values():
        PolicyStatus.model_validate(status)
        assert max(len(item["message"]) for item in status["conditions"]) <= 1024
        assert max((len(row.get("message", "")) for row in status["nodeStatuses"]), default=0) <= 512


def test_a_status_that_is_there_is_not_written_again() -> None:
    cluster = audited(5)
    cluster.put(policy(generation=2))
    for _ in range(6):
        cluster.next_wave()
        cluster.roll_up()
        cluster.now += MINUTE
        there = json.loads(json.dumps(cluster.rolled_up["compute"]))
        assert unchanged(there, cluster.roll_up()["compute"])


def test_conditions_that_others_add_make_no_difference_and_one_that_is_missing_does() -> None:
    status = told(audited(2))
    foreign = {**condition("Synced", "True"), "observedGeneration": 1}
    assert unchanged({**status, "conditions": [foreign, *reversed(status["conditions"])]}, status)
    assert not unchanged({**status, "conditions": status["conditions"][1:]}, status)
    assert not unchanged({**status, "observedGeneration": 9}, status)
    assert not unchanged({key: value for key, value in status.items() if key != "nodes"}, status)
    assert not unchanged({}, status)


def test_conditions_that_cannot_be_read_are_made_anew() -> None:
    cluster = audited(1)
    told(cluster)
    cluster.rolled_up["compute"]["conditions"][0]["reason"] = "not a word"
    cluster.now += INTERVAL
    assert told(cluster)["conditions"][0]["lastTransitionTime"] == timestamp(NOW + INTERVAL)
