"""Waves: how many nodes they tell, what stops them, and what they never touch."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basekeeper.cache.moments import timestamp
from basekeeper.resources.node_image_cache import NodeSpec
from tests.unit.controlling import (
    BREAKER,
    DAY,
    FAILS,
    HOLDS,
    HOUR,
    INTERVAL,
    NOW,
    UUID,
    Cluster,
    node,
    policy,
    removes_no_more,
    settings_of,
)


def fleet(count: int = 40, **spec: Any) -> Cluster:
    """Nodes that are in Audit, and then a policy in Enforce."""
    cluster = Cluster(policy(mode="Audit"), nodes=[f"node-{number:02}" for number in range(count)])
    cluster.settle()
    cluster.put(policy(generation=2, **spec))
    return cluster


def enforcing(count: int = 40, **spec: Any) -> Cluster:
    """Nodes that all have been told to enforce, long ago."""
    cluster = fleet(count, rollout={"maxNodesPerInterval": "100%"})
    cluster.roll_out()
    cluster.now += 30 * DAY
    cluster.put(policy(generation=3))
    cluster.settle()
    return cluster


SIZES = {
    "10 % of 40": (40, "10%", 4),
    "10 % of 39, rounded down": (39, "10%", 3),
    "10 % of 5: at least one": (5, "10%", 1),
    "1 % of 1": (1, "1%", 1),
    "all": (12, "100%", 12),
    "a number": (12, 5, 5),
    "a number as text": (12, "5", 5),
    "more than there are": (3, 50, 3),
}


@pytest.mark.parametrize(("count", "most", "expected"), SIZES.values(), ids=SIZES)
def test_a_wave_has_so_many_nodes(count: int, most: int | str, expected: int) -> None:
    cluster = fleet(count, rollout={"maxNodesPerInterval": most})
    cluster.reconcile()
    assert sum(mode == "Enforce" for mode in cluster.modes().values()) == expected


def test_waves_follow_each_other_at_the_interval_until_every_node_is_told_once() -> None:
    cluster = fleet()
    first = cluster.next_wave()
    waves = [first]
    while cluster.waiting():
        cluster.now += INTERVAL - 1
        cluster.report()
        assert cluster.reconcile() == set(), "nothing within the interval"
        cluster.now -= INTERVAL - 1
        waves.append(cluster.next_wave())
    assert [len(wave) for wave in waves] == [4] * 10
    assert len(set.union(*waves)) == 40
    assert cluster.said("RollingOut")[:2] == ("False", "Complete")


def test_who_waits_is_in_audit_and_says_so() -> None:
    cluster = fleet()
    cluster.reconcile()
    waiting = cluster.waiting()
    assert len(waiting) == 36
    assert {cluster.specs[name]["mode"] for name in waiting} == {"Audit"}
    assert {cluster.specs[name]["policy"]["generation"] for name in waiting} == {2}
    assert cluster.said("RollingOut") == (
        "True",
        "InProgress",
        f"36 of 40 nodes wait for their wave; the next one is at {timestamp(NOW + INTERVAL)}",
    )


def test_a_wave_is_not_made_of_neighbours_and_another_policy_begins_elsewhere() -> None:
    moved = fleet().next_wave()
    assert moved != {f"node-{number:02}" for number in range(4)}
    other = fleet()
    other.put(policy(generation=2, uid="another"))
    assert other.next_wave() != moved


def _fail(cluster: Cluster, name: str) -> None:
    cluster.ill[name] = FAILS


def _open_breaker(cluster: Cluster, name: str) -> None:
    cluster.ill[name] = BREAKER


def _be_silent(cluster: Cluster, name: str) -> None:
    cluster.mute.add(name)
    cluster.statuses[name]["observedGeneration"] = cluster.generations[name] - 1


Befall = Callable[[Cluster, str], None]
TROUBLE: dict[str, tuple[Befall, str]] = {
    "an open breaker": (_open_breaker, "the breaker of {} is open: UsersVanished: all users are gone"),
    "a failure": (_fail, "{} fails: PassFailed: the disk is gone"),
    "silence": (_be_silent, "{} has not reported since it was told"),
}


@pytest.mark.parametrize(("befall", "message"), TROUBLE.values(), ids=TROUBLE)
def test_trouble_on_a_node_that_was_told_stops_the_rollout_until_it_is_well(befall: Befall, message: str) -> None:
    cluster = fleet()
    victim = min(cluster.next_wave())
    cluster.next_wave()
    befall(cluster, victim)
    cluster.report()
    cluster.now += 10 * DAY
    cluster.report()
    assert cluster.reconcile() == set()
    expected = f"32 of 40 nodes wait for their wave: {message.format(victim)}"
    assert cluster.said("RollingOut") == ("True", "Stopped", expected)

    cluster.ill.clear()
    cluster.mute.clear()
    cluster.report()
    assert len(cluster.reconcile()) == 4


def test_a_word_that_ends_a_trip_reaches_the_node_that_the_rollout_waits_for() -> None:
    cluster = fleet()
    victim = min(cluster.next_wave())
    _open_breaker(cluster, victim)
    cluster.report()
    rows = [{"node": victim, "trip": "UsersVanished-20261124T101500Z"}]
    cluster.put(policy(generation=3, resetTrips=rows, minimumAge={"original": "1h"}))
    cluster.reconcile()
    assert cluster.specs[victim]["resetTrips"] == rows
    assert cluster.specs[victim]["minimumAge"]["original"] == "24h", "the rest of the edit waits"


EDIT: dict[str, dict[str, Any]] = {"safer": {"pinnedImages": [UUID]}, "bolder": {"minimumAge": {"original": "1h"}}}


@pytest.mark.parametrize("edit", EDIT.values(), ids=EDIT)
@pytest.mark.parametrize(("befall", "message"), TROUBLE.values(), ids=TROUBLE)
def test_an_edit_in_the_middle_does_not_forget_trouble(befall: Befall, message: str, edit: dict[str, Any]) -> None:
    cluster = fleet()
    victim = min(cluster.next_wave())
    befall(cluster, victim)
    cluster.put(policy(generation=3, **edit))
    assert len(cluster.reconcile()) == 40, "the safer half reaches all at once"
    cluster.now += 10 * DAY
    cluster.report()
    assert cluster.reconcile() == set()
    assert message.format(victim) in cluster.said("RollingOut")[2]


def test_a_wave_that_grows_is_filled_up_within_the_interval() -> None:
    cluster = fleet(rollout={"maxNodesPerInterval": 1})
    cluster.reconcile()
    cluster.now += INTERVAL / 4
    cluster.put(policy(generation=3, rollout={"maxNodesPerInterval": 3}))
    cluster.reconcile()
    assert len(cluster.waiting()) == 39, "the first one has not reported yet"
    cluster.report()
    assert len(cluster.reconcile()) == 2
    assert cluster.said("RollingOut")[2].endswith(f"the next one is at {timestamp(NOW + INTERVAL)}")


@pytest.mark.parametrize("said", [BREAKER, FAILS], ids=["an open breaker", "a failure"])
def test_a_node_in_trouble_is_told_nothing_more_and_does_not_stop_the_others(said: Mapping[str, Any]) -> None:
    cluster = fleet()
    cluster.ill["node-07"] = said
    for _ in range(12):
        cluster.next_wave()
    assert cluster.waiting() == {"node-07"}
    assert cluster.modes()["node-07"] == "Audit"
    status, reason, message = cluster.said("RollingOut")
    assert (status, reason) == ("True", "Stopped")
    assert message.startswith("1 of 40 nodes wait for their wave: node-07 waits until")

    cluster.ill.clear()
    cluster.report()
    assert cluster.reconcile() == {"node-07"}
    assert cluster.modes()["node-07"] == "Enforce"


def test_a_node_whose_agent_has_died_waits_and_does_not_stop_the_others() -> None:
    cluster = fleet()
    cluster.mute.add("node-07")
    cluster.now += 3 * HOUR
    for _ in range(12):
        cluster.next_wave()
    assert cluster.waiting() == {"node-07"}
    assert "node-07 waits until it reports" in cluster.said("RollingOut")[2]


def test_a_node_that_holds_something_is_in_no_trouble() -> None:
    cluster = fleet()
    cluster.reconcile()
    cluster.now += INTERVAL
    cluster.report(HOLDS)
    assert len(cluster.reconcile()) == 4


def test_a_node_that_is_down_goes_last_and_is_not_waited_for() -> None:
    cluster = fleet(4, rollout={"maxNodesPerInterval": 1})
    cluster.join(node("node-02", ready=False))
    cluster.mute.add("node-02")
    order = [*cluster.next_wave(), *cluster.next_wave(), *cluster.next_wave(), *cluster.next_wave()]
    assert len(order) == 4
    assert order[-1] == "node-02"
    assert cluster.waiting() == set()
    cluster.now += INTERVAL
    cluster.join("node-09")
    cluster.reconcile()
    assert cluster.modes()["node-09"] == "Enforce", "its silence stops nobody"


def test_nodes_that_never_reported_go_last() -> None:
    cluster = fleet(4, rollout={"maxNodesPerInterval": 1})
    cluster.mute.add("node-02")
    cluster.statuses.pop("node-02")
    for _ in range(3):
        cluster.next_wave()
    assert cluster.waiting() == {"node-02"}


def test_nodes_whose_agents_have_yet_to_come_are_told_in_waves_and_stop_nobody() -> None:
    cluster = Cluster(policy(), nodes=[f"node-{number:02}" for number in range(40)])
    for told in (4, 8, 12):
        cluster.reconcile()
        assert sum(mode == "Enforce" for mode in cluster.modes().values()) == told
        cluster.now += INTERVAL


def test_what_an_earlier_rollout_told_has_no_say_in_the_next_one() -> None:
    cluster = enforcing()
    cluster.ill["node-03"] = FAILS
    cluster.report()
    rows = [{"node": f"node-{number}", "path": "a", "reason": "r"} for number in range(10, 20)]
    cluster.put(policy(generation=4, acknowledged=rows))
    assert [len(cluster.next_wave()) for _ in range(4)] == [4, 4, 2, 0]


def test_a_new_node_does_not_wait_for_an_old_one_that_fails() -> None:
    cluster = enforcing()
    cluster.ill["node-03"] = FAILS
    cluster.report()
    cluster.join("node-99")
    cluster.reconcile()
    assert cluster.modes()["node-99"] == "Enforce"


def test_nodes_that_join_in_the_middle_wait_like_all_others() -> None:
    cluster = fleet()
    cluster.next_wave()
    for number in range(40, 50):
        cluster.join(f"node-{number}")
    cluster.reconcile()
    cluster.report()
    assert len(cluster.waiting()) == 46 - 1, "one more has room: 10 % of 50 are 5"
    cluster.roll_out()
    assert set(cluster.modes().values()) == {"Enforce"}


def test_a_clock_that_was_wrong_stops_nothing_for_ever() -> None:
    cluster = fleet()
    cluster.now += 1000 * DAY
    ahead = cluster.next_wave()
    cluster.now -= 1000 * DAY
    after = cluster.next_wave()
    assert len(after) == 4
    for wave in (ahead, after):
        cluster.ill = {min(wave): FAILS}
        assert cluster.next_wave() == set(), "but trouble counts"


def test_an_edit_that_makes_everything_safer_ends_the_rollout_at_once() -> None:
    cluster = fleet()
    victim = min(cluster.next_wave())
    cluster.ill[victim] = BREAKER
    cluster.report()
    cluster.put(policy(generation=3, mode="Audit"))
    assert len(cluster.reconcile()) == 40
    assert set(cluster.modes().values()) == {"Audit"}
    assert cluster.said("RollingOut")[:2] == ("False", "Complete")


PARTS = st.sets(st.sampled_from([f"node-{number:02}" for number in range(10)]))


@given(st.lists(PARTS, max_size=4))
def test_a_controller_that_died_in_the_middle_and_the_next_one_come_to_the_same(parts: list[set[str]]) -> None:
    whole, broken = fleet(10, rollout={"maxNodesPerInterval": 3}), fleet(10, rollout={"maxNodesPerInterval": 3})
    for cluster in (whole, broken):
        cluster.next_wave()
        cluster.put(policy(generation=3, pinnedImages=[UUID], rollout={"maxNodesPerInterval": 3}))
        cluster.now += INTERVAL
    for part in parts:
        broken.reconcile(only=part)
        broken.now += 5
    for cluster in (whole, broken):
        cluster.report()
        cluster.reconcile()
        cluster.report()
        cluster.reconcile()
    assert _told(whole) == _told(broken)


def _told(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(cluster.specs))
    for spec in found.values():
        spec.get("rollout", {}).pop("movedAt", None)
    return found


AGES = st.sampled_from(["1h", "24h", "48h"])
EDITS = st.fixed_dictionaries(
    {"mode": st.sampled_from(["Enforce", "Enforce", "Enforce", "Audit"])},
    optional={
        "suspend": st.booleans(),
        "minimumAge": st.fixed_dictionaries({}, optional={"original": AGES, "swap": AGES}),
        "pinnedImages": st.lists(st.sampled_from([UUID, UUID.upper(), UUID.replace("0", "f")]), max_size=3),
        "limits": st.fixed_dictionaries({}, optional={"maxBytes": st.sampled_from([1, "10Gi"])}),
        "quarantine": st.fixed_dictionaries({"retention": st.sampled_from(["0s", "6h"])}),
        "acknowledged": st.lists(
            st.fixed_dictionaries(
                {"path": st.just("a"), "reason": st.just("r"), "node": st.sampled_from(["n0", "n1"])}
            ),
            max_size=2,
        ),
        "priority": st.integers(-1, 1),
        "nodeSelector": st.sampled_from([{"matchLabels": {"tier": "ci"}}, {"matchLabels": {"tier": "prod"}}]),
        "rollout": st.sampled_from([{"maxNodesPerInterval": 1}, {"maxNodesPerInterval": "50%"}]),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from("pq"), EDITS),
    st.tuples(st.just("drain"), st.sampled_from("pq"), st.sampled_from([{}, {"drain": "Restore"}, {"drain": "Purge"}])),
    st.tuples(st.just("delete"), st.sampled_from("pq"), st.none()),
    st.tuples(st.just("label"), st.integers(0, 7), st.sampled_from(["ci", "prod"])),
    st.tuples(st.just("join"), st.integers(0, 7), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([5.0, 600.0, INTERVAL]), st.none()),
    st.tuples(st.just("report"), st.sets(st.integers(0, 7), max_size=2), st.sampled_from([FAILS, BREAKER, HOLDS])),
)


def _take(cluster: Cluster, step: tuple[str, Any, Any], number: int) -> None:
    """One thing that happens in a cluster."""
    what, which, how = step
    match what:
        case "edit":
            cluster.put(policy(which, generation=number, **how))
        case "drain":
            cluster.put(policy(which, generation=number, quarantine=how))
        case "delete":
            cluster.policies.pop(which, None)
        case "label":
            cluster.join(node(f"n{which}", {"tier": how}))
        case "join":
            cluster.join(node(f"n{which}", ready=how))
        case "wait":
            cluster.now += which
        case "report":
            cluster.ill = {f"n{name}": how for name in which}
            cluster.report()


@settings(deadline=None)
@given(st.lists(STEPS, min_size=4, max_size=14))
def test_whatever_happens_only_a_wave_makes_a_node_remove_more(steps: list[tuple[str, Any, Any]]) -> None:
    cluster = Cluster(policy("p"), nodes=[node(f"n{number}", {"tier": "ci"}) for number in range(5)])
    for number, step in enumerate(steps, start=2):
        _take(cluster, step, number)
        before = {name: NodeSpec.model_validate(spec) for name, spec in cluster.specs.items()}
        aim = cluster.aim()
        for name, wanted in aim.wanted.items():
            assert wanted.more_aggressive or removes_no_more(wanted.spec, before.get(name)), name
        lately = _told_lately(cluster)
        cluster.reconcile()
        _count_waves(cluster, lately)
        assert cluster.reconcile() == set(), "it comes to rest"


def _told_lately(cluster: Cluster) -> set[tuple[str, Any, Any]]:
    return {
        (name, (spec.get("policy") or {}).get("uid"), (spec.get("rollout") or {}).get("movedAt"))
        for name, spec in cluster.specs.items()
    }


def _count_waves(cluster: Cluster, before: set[tuple[str, Any, Any]]) -> None:
    """No policy has told more nodes within its interval than it may; whom it told within it, it may tell again."""
    new = {name for name, _, at in _told_lately(cluster) - before if at is not None}
    for name, item in cluster.policies.items():
        followers = {node for node, spec in cluster.specs.items() if spec.get("policy", {}).get("uid") == item.uid}
        if item.spec is None:
            continue
        since = timestamp(cluster.now - item.spec.interval)
        again = {node for node, uid, at in before if uid == item.uid and at is not None and at > since}
        if (new - again) & followers:
            moved = [cluster.specs[node].get("rollout", {}).get("movedAt") for node in followers]
            lately = [at for at in moved if at is not None and at > since]
            assert len(lately) <= item.spec.rollout.most(len(followers)), name


def test_a_node_that_changes_its_policy_waits_in_the_waves_of_the_new_one_with_what_it_had() -> None:
    ci = policy("ci", priority=1, nodeSelector={"matchLabels": {"tier": "ci"}}, minimumAge={"original": "1h"})
    cluster = Cluster(policy(), ci, nodes=[f"node-{number:02}" for number in range(40)])
    cluster.roll_out()
    for number in range(10):
        cluster.join(node(f"node-{number:02}", {"tier": "ci"}))
    cluster.now += DAY
    cluster.report()
    cluster.reconcile()
    ours = {name: spec for name, spec in cluster.specs.items() if spec["policy"]["name"] == "ci"}
    assert len(ours) == 10
    ages = sorted(spec["minimumAge"]["original"] for spec in ours.values())
    assert ages == ["1h"] + ["24h"] * 9
    assert {spec["mode"] for spec in ours.values()} == {"Enforce"}


def test_a_deleted_audit_policy_that_took_precedence_leaves_its_nodes_in_audit_until_their_wave() -> None:
    audit = policy("careful", priority=1, mode="Audit")
    cluster = Cluster(policy(), audit, nodes=[f"node-{number:02}" for number in range(40)])
    cluster.settle()
    cluster.policies.pop("careful")
    cluster.reconcile()
    assert sum(mode == "Enforce" for mode in cluster.modes().values()) == 4
    assert {spec["policy"]["name"] for spec in cluster.specs.values()} == {"compute"}
    cluster.roll_out()
    assert set(cluster.modes().values()) == {"Enforce"}


AT_ONCE: dict[str, dict[str, Any]] = {
    "Audit": {"mode": "Audit"},
    "suspend": {"suspend": True},
    "a pin": {"pinnedImages": [UUID]},
    "a longer age": {"minimumAge": {"original": "48h"}},
    "a field that this release does not know": {"ballast": {"percent": 80}},
    "Restore": {"quarantine": {"drain": "Restore"}},
}


@pytest.mark.parametrize("spec", AT_ONCE.values(), ids=AT_ONCE)
def test_what_makes_nodes_safer_reaches_all_at_once(spec: dict[str, Any]) -> None:
    cluster = enforcing()
    before = dict(cluster.specs)
    cluster.put(policy(generation=4, **spec))
    assert len(cluster.reconcile()) == 40
    assert cluster.waiting() == set()
    assert all(settings_of(cluster.specs[name]) != settings_of(before[name]) for name in before)


def test_a_deleted_policy_makes_all_its_nodes_idle_at_once() -> None:
    cluster = enforcing()
    cluster.policies.clear()
    assert len(cluster.reconcile()) == 40
    assert list(cluster.specs.values()) == [{}] * 40


def test_the_same_policy_made_anew_is_another_one() -> None:
    cluster = enforcing()
    cluster.policies.clear()
    cluster.reconcile()
    cluster.put(policy(uid="made anew"))
    cluster.reconcile()
    assert sum(mode == "Enforce" for mode in cluster.modes().values()) == 4
