"""A live agent and a disk that fills beside it: it sees that by itself, makes room, and says when it cannot."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import file_system
from lab.control_plane import ControlPlane
from lab.file_system import MIB, FileSystem
from lab.nova_tree import HOUR, NovaTree, image_file_name
from tests.cluster.fleet import Fleet, Object, Program, condition, eventually, is_condition
from tests.cluster.test_metrics import value

NODE = "node-a"
MARKS = {"highPercent": 80, "lowPercent": 60}
SIZE = 4 * MIB
GETS = re.compile(r"^basekeeper_api_requests_total\{.*\} (\S+)$", re.MULTILINE)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FileSystem]:
    if (reason := file_system.available()) is not None:
        pytest.fail(reason, pytrace=False)
    with FileSystem("tmpfs", tmp_path) as made:
        yield made


@pytest.fixture
def fleet(installed: ControlPlane, disk: FileSystem, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        made.trees[NODE] = NovaTree(disk.path / "instances")
        yield made


def furnish(fleet: Fleet) -> list[Path]:
    """Nine bases that really take up room, the first one unused for longest."""
    bases = []
    for number in range(9):
        base = fleet.tree(NODE).base_dir / image_file_name(f"image {number}")
        base.write_bytes(os.urandom(SIZE))
        fleet.tree(NODE).age(base, (20 - number) * HOUR)
        bases.append(base)
    return bases


def grow(disk: FileSystem, percent: float) -> None:
    """What guests write."""
    with (disk.path / "guest").open("ab", buffering=0) as file:
        while disk.used_percent < percent:
            file.write(os.urandom(MIB // 4))


def requests(agent: Program) -> float:
    """What the agent has asked of the API server so far."""
    return sum(map(float, GETS.findall(agent.ask("/metrics")[1])))


def states(agent: Program) -> dict[str, float]:
    """How the disk stands, by the agent's metrics."""
    return {state: value(agent, "pressure", state=state) for state in ("Below", "Pressure", "PressureNotOurs")}


def pressure(fleet: Fleet) -> Object:
    """What the node's status says about room."""
    return dict(fleet.cache(NODE)["status"]["pressure"])


def test_an_agent_makes_room_by_itself_and_says_when_nothing_is_left_to_go(fleet: Fleet, disk: FileSystem) -> None:
    bases = furnish(fleet)
    fleet.tree(NODE).add_overlay("0f3c0000-0000-4000-8000-000000000001", bases[0])
    fleet.add_node(NODE)
    fleet.start_controller()
    agent = fleet.start_agent(NODE, "--disk-check", "1s")
    fleet.apply("compute", mode="Enforce", interval="10h", pressure=MARKS)
    eventually(lambda: is_condition(fleet.cache(NODE), "DiskPressure", "False", "RoomEnough"), "there is room")
    assert pressure(fleet)["state"] == "Below"

    # A disk that fills, but not above its mark, costs the API server nothing.
    grow(disk, 79)
    asked = requests(agent)
    time.sleep(4)
    assert requests(agent) == asked
    assert all(base.exists() for base in bases)

    # Above it the agent makes passes of its own, until there is room; each asks for its orders, as passes do.
    grow(disk, 85)
    eventually(lambda: disk.used_percent <= MARKS["lowPercent"], "there is room again")
    gone = [base for base in bases if not base.exists()]
    assert gone == bases[1 : len(gone) + 1], "the oldest is used, and the others go from the oldest on"
    eventually(lambda: states(agent) == {"Below": 1, "Pressure": 0, "PressureNotOurs": 0}, "the agent says so")
    assert value(agent, "evicted_files_total", reason="Pressure") == len(gone)
    assert value(agent, "evicted_bytes_total", reason="Pressure") == len(gone) * SIZE
    assert value(agent, "purged_bytes_total", kind="Original") == len(gone) * SIZE
    eventually(lambda: is_condition(fleet.cache(NODE), "DiskPressure", "False", "RoomEnough"), "the status says so")
    assert "BaseImagesRemoved" in {event["reason"] for event in fleet.events(NODE)}

    # And when everything that is left is used, it says that, once, and leaves the passes alone.
    left = [base for base in bases if base.exists()]
    content = {base: base.read_bytes() for base in left}
    for number, base in enumerate(left):
        fleet.tree(NODE).add_overlay(f"0f3c0000-0000-4000-8000-00000000001{number}", base)
    grow(disk, 90)
    eventually(lambda: states(agent)["PressureNotOurs"] == 1, "the cache cannot help")
    eventually(lambda: is_condition(fleet.cache(NODE), "DiskPressure", "True", "PressureNotOurs"), "the status says so")
    assert "in use" in condition(fleet.cache(NODE), "DiskPressure")["message"]
    eventually(lambda: [e for e in fleet.events(NODE) if e["reason"] == "PressureNotOurs"], "an event")
    asked = requests(agent)
    time.sleep(4)
    assert requests(agent) == asked, "a disk that no pass can relieve is no reason for more of them"
    grow(disk, 92)
    eventually(lambda: requests(agent) > asked, "until its figure has moved")
    assert len([event for event in fleet.events(NODE) if event["reason"] == "PressureNotOurs"]) == 1
    assert {base: base.read_bytes() for base in left} == content
