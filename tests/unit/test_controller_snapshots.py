"""What is kept of each object, also where it is not as it should be."""

from typing import Any

import pytest

from basekeeper.cache.moments import timestamp
from basekeeper.controller import snapshots
from basekeeper.controller.snapshots import Said
from basekeeper.resources.node_image_cache import NodeSpec
from tests.unit.controlling import BREAKER, FAILS, HOLDS, NOW, UUID, cache, condition, node, policy, report


def test_a_policy_that_is_not_accepted_says_which_field_it_is() -> None:
    found = policy(ballast={"percent": 80}, priority=3, nodeSelector={"matchLabels": {"tier": "ci"}})
    assert found.spec is None
    assert found.problem == "compute: spec.ballast: unknown field; remove it"
    assert found.priority == 3
    assert found.selector is not None
    assert found.selector.match_labels == {"tier": "ci"}


CLAIMS: dict[str, tuple[dict[str, Any], int]] = {
    "a selector without a value": ({"nodeSelector": None}, 0),
    "an empty selector": ({"nodeSelector": {}, "priority": 5}, 5),
    "a priority that is no number": ({"priority": True}, snapshots.MAX_PRIORITY),
    "a priority without a value": ({"priority": None}, snapshots.MAX_PRIORITY),
}


@pytest.mark.parametrize(("spec", "priority"), CLAIMS.values(), ids=CLAIMS)
def test_what_cannot_be_read_of_a_policy_s_claim_is_taken_for_the_widest(spec: dict[str, Any], priority: int) -> None:
    found = policy(**spec)
    assert found.spec is None
    assert (found.selector, found.priority) == (None, priority)


def test_a_policy_without_a_spec_is_not_accepted() -> None:
    found = snapshots.policy({"metadata": {"name": "p", "uid": "u"}})
    assert (found.spec, found.generation, found.created, found.version) == (None, 0, 0.0, 0)


def test_the_version_of_an_object_is_no_difference() -> None:
    before = node("a")
    metadata = {"name": "a", "uid": "uid-a", "resourceVersion": "2", "labels": {}}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert snapshots.node({"metadata": metadata, "status": ready}) == before


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], False), ([{"type": "Ready", "status": "Unknown"}], False), ([{"type": "Ready", "status": "True"}], True)],
    ids=["untold", "unknown", "true"],
)
def test_a_node_is_ready_only_if_it_says_so(conditions: list[dict[str, str]], expected: bool) -> None:
    found = {"metadata": {"name": "a", "uid": "u"}, "status": {"conditions": conditions}}
    assert snapshots.node(found).ready == expected


def test_a_report_is_kept_in_short() -> None:
    ran = {"time": timestamp(NOW), "mode": "Audit", "outcome": "Held", "held": {"UnknownUsage": 2, "LimitReached": 3}}
    status = report(policy(generation=4), 9, FAILS, BREAKER, HOLDS, lastPass=ran, cache={"bytes": 7, "files": 1})
    assert cache(status=status).said == Said(
        heartbeat=NOW,
        observed_generation=9,
        policy=("uid-compute", 4),
        applied=True,
        failing="PassFailed: the disk is gone",
        breaker="UsersVanished: all users are gone",
        holding="UnknownUsage: a/disk cannot be read",
        outcome="Held",
        last_pass=NOW,
        held_files=5,
        cache={"bytes": 7, "files": 1},
    )


def test_unknown_is_no_trouble() -> None:
    unknown = [condition(kind, "Unknown") for kind in ("Ready", "BreakerClosed", "Holding", "PolicyApplied")]
    said = cache(status=report(None, 1, *unknown)).said
    assert (said.failing, said.breaker, said.holding, said.applied) == (None, None, None, False)


def test_nothing_was_said_by_a_node_that_never_reported() -> None:
    assert cache().said == Said()


def test_a_long_message_is_not_kept_whole() -> None:
    failing = cache(status=report(None, 1, condition("Ready", "False", "PassFailed", "x" * 30000))).said.failing
    assert failing is not None
    assert len(failing) <= 400


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30T00:00:00Z", "12"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert snapshots.seconds(text) is None


def test_nodes_that_are_told_the_same_share_it() -> None:
    spec = {"mode": "Audit", "pinnedImages": [UUID]}
    one, other = cache("a", spec=spec), cache("b", spec=dict(reversed(spec.items())))
    assert one.spec == NodeSpec.model_validate(spec)
    assert one.spec is other.spec


def test_a_spec_that_is_none_of_ours_is_none() -> None:
    assert cache(spec={"mode": "Other"}).spec is None
    assert cache(spec={}).spec == NodeSpec()


def test_only_nodes_own_an_object() -> None:
    metadata = {"name": "a", "uid": "u", "ownerReferences": [{"kind": "Pod", "name": "p", "uid": "x"}]}
    assert snapshots.node_cache({"metadata": metadata}).owners == frozenset()
