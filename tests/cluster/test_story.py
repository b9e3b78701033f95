"""The main job, as an operator sees it: apply a policy, see every node in it, enforce, change one's mind."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY, HOUR
from tests.cluster.fleet import Fleet, eventually, is_condition

NODES = ("node-a", "node-b", "node-c")


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def _furnish(fleet: Fleet, node: str) -> tuple[Path, Path]:
    """A base that is used and one that is not."""
    tree = fleet.tree(node)
    used = tree.add_base(f"used-{node}", age=3 * DAY)
    tree.add_overlay("0f3c0000-0000-4000-8000-000000000001", used)
    return used, tree.add_base(f"unused-{node}", age=3 * DAY, seed=2)


def test_three_nodes_report_enforce_and_put_back_what_is_needed(fleet: Fleet) -> None:
    bases = {}
    for node in NODES:
        fleet.add_node(node)
        bases[node] = _furnish(fleet, node)
        fleet.start_agent(node)
    fleet.start_controller()
    fleet.apply("compute", mode="Audit")

    audited = eventually(
        lambda: (found := fleet.policy("compute"))["status"]["totals"]["reclaimableBytes"] and found, "a report"
    )
    audited = eventually(
        lambda: is_condition(found := fleet.policy("compute"), "Ready", "True", "AllNodesCurrent") and found, "Ready"
    )
    assert [row["node"] for row in audited["status"]["nodeStatuses"]] == list(NODES)
    assert all(row["reclaimableBytes"] == 1024 * 1024 for row in audited["status"]["nodeStatuses"])
    assert all(unused.exists() for _, unused in bases.values())
    fleet.cluster.kubectl("wait", "--for=condition=Ready", "--timeout=10s", "icp/compute")

    fleet.apply("compute", mode="Enforce")
    eventually(lambda: all(not unused.exists() for _, unused in bases.values()), "the unused go")
    assert all(used.exists() for used, _ in bases.values())
    eventually(lambda: fleet.policy("compute")["status"]["totals"]["quarantinedFiles"] == 3, "the roll-up follows")
    for node in NODES:
        assert [item["reason"] for item in fleet.events(node)] == ["BaseImagesRemoved"]

    _, wanted_again = bases["node-b"]
    fleet.tree("node-b").add_overlay("0f3c0000-0000-4000-8000-000000000002", str(wanted_again))
    fleet.run_now("node-b", "please")
    eventually(wanted_again.exists, "what is needed is back")
    eventually(lambda: {item["reason"] for item in fleet.events("node-b")} >= {"BaseImagesRestored"}, "it is said")
    files = eventually(
        lambda: [row for row in fleet.cache("node-b")["status"]["files"] if row.get("action") == "Restored"], "told"
    )
    assert files[0]["name"] == wanted_again.name
    assert time.time() - os.stat(wanted_again).st_mtime < HOUR
