"""Maintenance windows in a cluster: an agent whose interval is long does not miss one that is short."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from tests.cluster.fleet import Fleet, eventually, is_condition

NODE = "node-a"


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def test_an_agent_holds_until_a_window_opens_and_wakes_in_it(fleet: Fleet) -> None:
    base = fleet.tree(NODE).add_base("unused", age=30 * DAY)
    fleet.add_node(NODE)
    fleet.start_controller()
    agent = fleet.start_agent(NODE)
    opens = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0, microsecond=0)
    window = {"schedule": f"{opens.minute} {opens.hour} * * *", "duration": "1m", "timeZone": "Etc/UTC"}
    fleet.apply("compute", mode="Enforce", interval="40m", maintenanceWindows=[window])

    eventually(lambda: is_condition(fleet.cache(NODE), "Holding", "True", "OutsideWindow"), "the base waits")
    assert base.exists()
    closed = {"open": False, "opensAt": opens.strftime("%Y-%m-%dT%H:%M:%SZ")}
    assert fleet.cache(NODE)["status"]["window"] == closed
    assert "basekeeper_window_open 0.0" in agent.ask("/metrics")[1]

    left = (opens - datetime.now(UTC)).total_seconds()
    eventually(lambda: not base.exists(), "the window has opened", timeout=left + 20)
    assert opens <= datetime.now(UTC) < opens + timedelta(minutes=1)
    eventually(lambda: fleet.cache(NODE)["status"]["window"]["open"], "the node says so")
    until = (opens + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert fleet.cache(NODE)["status"]["window"]["until"] == until
    assert "basekeeper_window_open 1.0" in agent.ask("/metrics")[1]
