"""The breaker in a cluster: its trip has one name for as long as it stands, and a policy that names it ends it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from tests.cluster.fleet import Fleet, Program, eventually, is_condition

NODE = "node-a"


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def breaker(fleet: Fleet) -> dict[str, Any] | None:
    """What the node says of its breaker."""
    found: dict[str, Any] | None = fleet.cache(NODE)["status"].get("breaker")
    return found


def told(fleet: Fleet) -> list[dict[str, Any]]:
    """Which trips the node has been told to end."""
    rows: list[dict[str, Any]] = fleet.cache(NODE)["spec"].get("resetTrips", [])
    return rows


def passed(fleet: Fleet, agent: Program, why: str) -> None:
    """Have a pass made, and wait for its end: one that finds nothing new writes no status."""
    before = agent.said.count("pass outcome=")
    fleet.run_now(NODE, why)
    eventually(lambda: agent.said.count("pass outcome=") > before, "another pass is over")


def test_a_policy_that_names_the_trip_of_a_node_ends_it_and_one_that_names_another_does_not(fleet: Fleet) -> None:
    tree = fleet.tree(NODE)
    bases = [tree.add_base(f"used-{number}", age=30 * DAY, seed=number + 1) for number in range(3)]
    disks = [tree.add_overlay(f"machine-{number}", base) for number, base in enumerate(bases)]
    fleet.add_node(NODE)
    fleet.start_controller()
    agent = fleet.start_agent(NODE)
    fleet.apply("compute", mode="Enforce", interval="40m")
    eventually(lambda: fleet.cache(NODE)["status"]["lastPass"]["kept"]["InUseByOverlay"] == 3, "the bases are in use")
    unused = tree.add_base("unused", age=30 * DAY, seed=9)
    for disk in disks:
        disk.unlink()
    fleet.run_now(NODE, "users are gone")
    opened = eventually(lambda: breaker(fleet), "the breaker is open")
    trip = opened["trip"]
    assert trip == f"UsersVanished-{opened['since'].replace('-', '').replace(':', '')}"
    assert opened["cause"] == "UsersVanished"
    assert opened["message"].startswith("of 3 bases in use")
    assert "if all evidence is complete until then" in opened["clears"]
    assert 'basekeeper_breaker_open{cause="UsersVanished"} 1.0' in agent.ask("/metrics")[1]
    assert any(trip in event["message"] for event in fleet.events(NODE) if event["reason"] == "BreakerOpened")

    agent.stop()
    agent.start()
    eventually(lambda: agent.ask("/readyz")[0] == 200, "the agent is back")
    passed(fleet, agent, "after a restart")
    assert breaker(fleet) == opened, "it keeps its name and its time"

    others = [{"node": NODE, "trip": "UsersVanished-20261124T101500Z"}, {"node": "node-b", "trip": trip}]
    fleet.apply("compute", mode="Enforce", interval="40m", resetTrips=others)
    eventually(lambda: told(fleet) == others[:1], "the node hears of its own only")
    passed(fleet, agent, "after a word about others")
    assert breaker(fleet) == opened
    assert unused.exists()

    fleet.apply("compute", mode="Enforce", interval="40m", resetTrips=[{"node": NODE, "trip": trip}])
    eventually(lambda: breaker(fleet) is None, "the word ends it")
    assert is_condition(fleet.cache(NODE), "BreakerClosed", "True")
    eventually(lambda: not unused.exists(), "what may go goes")
    assert 'basekeeper_breaker_open{cause="UsersVanished"} 0.0' in agent.ask("/metrics")[1]
    assert any(trip in event["message"] for event in fleet.events(NODE) if event["reason"] == "BreakerClosed")
