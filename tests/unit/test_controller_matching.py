"""Which node follows which policy."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.controller.matching import match, why
from basekeeper.controller.snapshots import Policy
from basekeeper.resources.conditions import Why
from tests.unit.controlling import NOW, Cluster, node, policy


def expression(operator: str, *values: str, key: str = "tier") -> dict[str, Any]:
    """A selector of one expression."""
    return {"matchExpressions": [{"key": key, "operator": operator} | ({"values": list(values)} if values else {})]}


CI, PROD, BARE = {"tier": "ci"}, {"tier": "prod"}, {"zone": "a"}
SELECTORS = {
    "none": (None, {"ci": True, "prod": True, "bare": True}),
    "a label": ({"matchLabels": CI}, {"ci": True, "prod": False, "bare": False}),
    "In": (expression("In", "ci", "dev"), {"ci": True, "prod": False, "bare": False}),
    "NotIn, which a node without the label fits": (
        expression("NotIn", "ci"),
        {"ci": False, "prod": True, "bare": True},
    ),
    "Exists": (expression("Exists"), {"ci": True, "prod": True, "bare": False}),
    "DoesNotExist": (expression("DoesNotExist"), {"ci": False, "prod": False, "bare": True}),
    "two that must both hold": (
        {"matchLabels": CI, **expression("Exists", key="zone")},
        {"ci": False, "prod": False, "bare": False},
    ),
}


@pytest.mark.parametrize(("selector", "expected"), SELECTORS.values(), ids=SELECTORS)
def test_a_selector_selects_as_kubernetes_own_do(selector: dict[str, Any] | None, expected: dict[str, bool]) -> None:
    given: dict[str, Any] = {} if selector is None else {"nodeSelector": selector}
    found = policy(**given)
    nodes = {"ci": node("ci", CI), "prod": node("prod", PROD), "bare": node("bare", BARE)}
    assert {name: match(item, [found]).winner is not None for name, item in nodes.items()} == expected


PRECEDENCE = {
    "the higher priority, though younger": (policy("a"), policy("b", priority=1, created=NOW), Why.HIGHER_PRIORITY),
    "a negative priority loses to none": (policy("a", priority=-1), policy("b"), Why.HIGHER_PRIORITY),
    "the older one, at equal priorities": (policy("a", created=NOW), policy("b", created=NOW - 1), Why.OLDER_POLICY),
    "the first name, at equal priorities and ages": (policy("b"), policy("a"), Why.FIRST_NAME),
}


@pytest.mark.parametrize(("loser", "winner", "reason"), PRECEDENCE.values(), ids=PRECEDENCE)
@pytest.mark.parametrize("turned", [False, True])
def test_one_policy_wins_a_node_whatever_the_order(loser: Policy, winner: Policy, reason: Why, turned: bool) -> None:
    found = match(node(), [winner, loser] if turned else [loser, winner])
    assert found.winner is winner
    assert found.losers == (loser,)
    assert why(winner, loser) is reason


def test_no_policy_is_no_winner() -> None:
    assert match(node(), []).winner is None
    assert match(node(), [policy(nodeSelector={"matchLabels": CI})]).winner is None


@given(
    st.lists(
        st.builds(
            policy,
            st.sampled_from("abcd"),
            created=st.sampled_from([NOW, NOW - 1]),
            priority=st.integers(-1, 1),
            nodeSelector=st.sampled_from([{"matchLabels": CI}, expression("Exists"), expression("NotIn", "ci")]),
        ),
        unique_by=lambda item: item.name,
    ),
    st.sampled_from([CI, PROD, BARE]),
)
def test_every_policy_that_selects_a_node_either_wins_or_loses_it(
    policies: list[Policy], labels: dict[str, str]
) -> None:
    item = node("n", labels)
    found = match(item, policies)
    selecting = {each.name for each in policies if match(item, [each]).winner}
    winner = {found.winner.name} if found.winner else set()
    assert winner | {each.name for each in found.losers} == selecting
    assert len(found.losers) + len(winner) == len(selecting)
    assert match(item, list(reversed(policies))) == found


NOT_ACCEPTED: dict[str, dict[str, Any]] = {
    "an unknown field": {"ballast": {"percent": 80}},
    "an unknown value": {"mode": "Other"},
    "a selector that cannot be read": {"nodeSelector": {"matchLabel": CI}},
    "an empty selector": {"nodeSelector": {}},
    "a priority that cannot be read": {"priority": "high"},
}


@pytest.mark.parametrize("spec", NOT_ACCEPTED.values(), ids=NOT_ACCEPTED)
def test_nodes_of_a_policy_that_is_not_accepted_follow_none_rather_than_the_next_one(spec: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"priority": 1, "nodeSelector": {"matchLabels": CI}} | spec
    broken = policy("broken", **whole)
    assert broken.problem is not None
    cluster = Cluster(policy("base"), broken, nodes=[node("ci", CI)])
    cluster.reconcile()
    assert cluster.specs["ci"] == {}
    assert cluster.said("Overridden", of="base")[:2] == ("True", "HigherPriority")
    assert "1 node follows none, because broken is not accepted" in cluster.said("Overridden", of="base")[2]
    assert cluster.said("Ready", of="broken")[:2] == ("False", "NotAccepted")
    assert cluster.roll_up()["broken"]["nodes"]["matched"] == 0


def test_a_policy_that_is_not_accepted_leaves_others_what_it_would_not_get_itself() -> None:
    broken = policy("broken", priority=1, nodeSelector={"matchLabels": CI}, ballast={"percent": 80})
    cluster = Cluster(policy("base"), broken, nodes=[node("prod", PROD)])
    low = policy("low", priority=-1, ballast={"percent": 80})
    cluster.put(low)
    cluster.reconcile()
    assert cluster.specs["prod"]["policy"]["name"] == "base"
