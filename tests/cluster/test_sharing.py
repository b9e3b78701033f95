"""Two nodes whose agents see one directory, without any other sign of it, are told of each other and remove nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from tests.cluster.fleet import Fleet, eventually, is_condition

NODES = ("node-a", "node-b", "node-c")


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def test_nodes_that_report_one_directory_hear_of_each_other_and_hold(fleet: Fleet) -> None:
    fleet.trees["node-b"] = fleet.tree("node-a")
    for name in NODES:
        fleet.add_node(name)
        fleet.tree(name)
    fleet.start_controller()
    for name in NODES:
        fleet.start_agent(name)
    fleet.apply("compute", mode="Enforce")
    told = {"node-a": ["node-b"], "node-b": ["node-a"], "node-c": []}
    eventually(
        lambda: {name: fleet.cache(name)["spec"]["sharedStorageWith"] for name in NODES} == told, "they are told"
    )
    base = fleet.tree("node-a").add_base("unused", age=9 * DAY)
    shared = {"node-a": "True", "node-b": "True", "node-c": "False"}
    eventually(
        lambda: all(is_condition(fleet.cache(name), "SharedStorage", status) for name, status in shared.items()),
        "nodes take their storage for what it is",
    )
    for name in NODES[:2]:
        fleet.run_now(name, "now")
    eventually(
        lambda: all(fleet.cache(name)["status"]["cache"]["files"] == 1 for name in NODES[:2]), "both have seen it"
    )
    assert base.exists()
