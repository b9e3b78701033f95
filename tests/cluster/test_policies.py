"""Which policy a node follows, and what happens when that changes, on a real API server."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from tests.cluster.fleet import POLICIES, Fleet, condition, eventually, is_condition

ENFORCE = {"mode": "Enforce", "minimumAge": {"original": "24h"}}
_FAULT = "inject=renameat2:delay_enter=200ms"
SLOWED = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2", "-e", _FAULT)
"""Under this a removal takes long enough to change one's mind in the middle of a pass."""


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def _follows(fleet: Fleet, node: str, policy: str | None) -> bool:
    """Whether a node has been told by this policy, and has reported a look under it."""
    found = fleet.cache(node)
    told = found["spec"].get("policy", {}).get("name")
    seen = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    return bool(told == policy and seen)


def test_a_label_moves_a_node_from_one_policy_to_another_and_the_loser_says_so(fleet: Fleet) -> None:
    fleet.add_node("node-a", {"tier": "ci"})
    fleet.add_node("node-b")
    for node in ("node-a", "node-b"):
        fleet.start_agent(node)
    fleet.start_controller()
    fleet.apply("everywhere", mode="Audit")
    fleet.apply("ci", mode="Audit", priority=10, nodeSelector={"matchLabels": {"tier": "ci"}})

    eventually(lambda: _follows(fleet, "node-a", "ci") and _follows(fleet, "node-b", "everywhere"), "by their labels")
    said = eventually(
        lambda: is_condition(found := fleet.policy("everywhere"), "Overridden", "True", "HigherPriority") and found,
        "the loser says so",
    )
    assert "1 node follow" in condition(said, "Overridden")["message"]
    assert "ci" in condition(said, "Overridden")["message"]
    assert said["status"]["nodes"]["overridden"] == 1
    assert [row["node"] for row in said["status"]["nodeStatuses"]] == ["node-b"]

    fleet.label("node-a", tier=None)
    fleet.label("node-b", tier="ci")
    eventually(lambda: _follows(fleet, "node-a", "everywhere") and _follows(fleet, "node-b", "ci"), "they have moved")

    fleet.delete(f"{POLICIES}/ci")
    eventually(lambda: _follows(fleet, "node-b", "everywhere"), "the other policy takes over")
    eventually(lambda: is_condition(fleet.policy("everywhere"), "Overridden", "False"), "nothing overrides it now")


def test_without_its_policy_a_node_is_idle_and_removes_nothing(fleet: Fleet) -> None:
    tree = fleet.tree("node-a")
    first = tree.add_base("first", age=3 * DAY)
    fleet.add_node("node-a")
    agent = fleet.start_agent("node-a")
    fleet.start_controller()
    fleet.apply("compute", **ENFORCE)
    eventually(lambda: not first.exists(), "it removes")

    fleet.delete(f"{POLICIES}/compute")
    eventually(lambda: _follows(fleet, "node-a", None), "it is told that it has no policy")
    second = tree.add_base("second", age=3 * DAY)
    fleet.run_now("node-a", "1")
    time.sleep(3)
    found = fleet.cache("node-a")
    assert found["spec"] == {}
    assert is_condition(found, "PolicyApplied", "False", "NoPolicy")
    assert is_condition(found, "Ready", "Unknown", "NoPolicy")
    assert second.exists()
    assert agent.said.count("outcome=") == agent.said.count("policy=compute")


def test_a_suspended_node_removes_nothing_until_it_goes_on(fleet: Fleet) -> None:
    tree = fleet.tree("node-a")
    old = tree.add_base("old", age=3 * DAY)
    fleet.add_node("node-a")
    fleet.start_agent("node-a")
    fleet.start_controller()
    fleet.apply("compute", **ENFORCE, suspend=True)
    found = eventually(lambda: _follows(fleet, "node-a", "compute") and fleet.cache("node-a"), "it reports")
    assert is_condition(found, "Holding", "True", "Suspended")
    assert old.exists()
    eventually(lambda: is_condition(fleet.policy("compute"), "Enforcing", "False", "Suspended"), "the policy says so")

    fleet.apply("compute", **ENFORCE, suspend=False)
    eventually(lambda: not old.exists(), "it goes on")


def test_a_policy_that_is_suspended_in_a_pass_ends_the_pass_between_two_files(fleet: Fleet) -> None:
    """The pass that is under way ends under the settings it began with, and says so; the rest stays."""
    tree = fleet.tree("node-a")
    bases = [tree.add_base(f"old-{number}", age=3 * DAY, seed=number + 1) for number in range(40)]
    fleet.add_node("node-a")
    agent = fleet.start_agent("node-a", under=SLOWED)
    fleet.start_controller()
    fleet.apply("compute", **ENFORCE, limits={"maxPercent": 100, "maxFiles": 40})
    eventually(lambda: sum(not base.exists() for base in bases) >= 2, "it has begun")
    fleet.apply("compute", **ENFORCE, limits={"maxPercent": 100, "maxFiles": 40}, suspend=True)

    told = eventually(lambda: fleet.cache("node-a")["spec"].get("suspend") and fleet.cache("node-a"), "it is told")
    eventually(
        lambda: fleet.cache("node-a").get("status", {}).get("observedGeneration") == told["metadata"]["generation"],
        "it reports under what it was told",
    )
    left = [base for base in bases if base.exists()]
    assert left, "the pass went on to its end"
    passes = [line for line in agent.said.splitlines() if " pass " in line]
    assert "outcome=Acted" in passes[0]
    assert f"generation={told['metadata']['generation'] - 1}" in passes[0]
    assert f"generation={told['metadata']['generation']}" in passes[1]
    time.sleep(2)
    assert [base for base in bases if base.exists()] == left


def test_a_pass_runs_under_the_settings_that_it_began_with(fleet: Fleet) -> None:
    """An edit in the middle of a pass changes nothing in it, and its status names the generation that it ran under."""
    tree = fleet.tree("node-a")
    bases = [tree.add_base(f"old-{number}", age=3 * DAY, seed=number + 1) for number in range(8)]
    fleet.add_node("node-a")
    agent = fleet.start_agent("node-a", under=SLOWED)
    fleet.start_controller()
    fleet.apply("compute", **ENFORCE, quarantine={"retention": "6h"})
    eventually(lambda: sum(not base.exists() for base in bases) >= 1, "it has begun")
    fleet.apply("compute", **ENFORCE, quarantine={"retention": "7h"})
    eventually(lambda: all(not base.exists() for base in bases), "it ends")
    eventually(lambda: _follows(fleet, "node-a", "compute"), "it reports under the new settings")
    retentions = set()
    for side_car in (tree.base_dir / ".basekeeper/quarantine").rglob("*.json"):
        found = json.loads(side_car.read_text())
        retentions.add(round((found["dueAt"] - found["removedAt"]) / 3600))
    assert retentions == {6}
    passes = [line for line in agent.said.splitlines() if " pass " in line]
    assert "outcome=Acted" in passes[0]


def test_a_person_asks_for_a_pass(fleet: Fleet) -> None:
    fleet.add_node("node-a")
    agent = fleet.start_agent("node-a")
    fleet.start_controller()
    fleet.apply("compute", mode="Audit")
    eventually(lambda: _follows(fleet, "node-a", "compute"), "the first pass")
    before = agent.said.count(" pass ")
    fleet.run_now("node-a", "first")
    eventually(lambda: agent.said.count(" pass ") == before + 1, "a pass when it is set", timeout=10)
    fleet.run_now("node-a", "second")
    eventually(lambda: agent.said.count(" pass ") == before + 2, "a pass when it is changed", timeout=10)


def test_what_people_see(fleet: Fleet) -> None:
    """`kubectl get icp,nic` answers: does it work, how much would I get back."""
    for node in ("compute-1", "compute-2"):
        fleet.tree(node).add_base("unused", age=3 * DAY)
        fleet.add_node(node)
        fleet.start_agent(node)
    fleet.start_controller()
    fleet.apply("compute", mode="Audit")
    eventually(lambda: is_condition(fleet.policy("compute"), "Ready", "True", "AllNodesCurrent"), "it is ready")
    seen: subprocess.CompletedProcess[str] = fleet.cluster.kubectl("get", "icp,nic")
    rows = [line.split() for line in seen.stdout.splitlines() if line]
    assert rows[0][:6] == ["NAME", "MODE", "NODES", "CURRENT", "READY", "RECLAIMABLE"]
    assert rows[1][:7] == ["imagecachepolicy.basekeeper.io/compute", "Audit", "2", "2", "True", "2.0", "MiB"]
    assert rows[3][:6] == ["nodeimagecache.basekeeper.io/compute-1", "compute", "Audit", "Planned", "1.0", "MiB"]
