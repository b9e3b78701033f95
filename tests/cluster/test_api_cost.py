"""What agents and the controller ask of the API server, counted in its audit log. docs/api-cost.md has the figures.

    pytest -s tests/cluster/test_api_cost.py

An agent's figures are taken with three nodes and with two hundred, of which all but one are stubs: they must be the
same. Passes are asked for by the annotation that people use; nothing else runs for the node.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from lab.audit_log import Request
from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from tests.cluster.fleet import NAMESPACE, Fleet, eventually
from tests.cluster.stubs import Stubs

MEASURED = "node-measured"
IDLE_SECONDS = 15.0
SETTLES = 0.5
"""Seconds until what belongs to a pass has been sent: its status is written after its line in the log."""
ROLLED_UP = 90.0
LINE = " pass outcome="
READ = "get nodeimagecaches"
WRITE = "patch nodeimagecaches/status"
TELL = "create events"
LIST, WATCH, DISCOVER = "list nodeimagecaches", "watch nodeimagecaches", "discovery"
Requests = dict[str, int]


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, dict[str, str]]]:
    """The figures: by what was done, by the size of the fleet."""
    figures: dict[str, dict[str, str]] = {}
    yield figures
    sizes = sorted({size for row in figures.values() for size in row}, key=int)
    lines = [("", *(f"{size} nodes" for size in sizes))]
    lines += [(what, *(row.get(size, "") for size in sizes)) for what, row in figures.items()]
    widths = [max(len(line[place]) for line in lines) for place in range(len(sizes) + 1)]
    rule = "|".join(["", *("-" * (width + 2) for width in widths), ""])
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    sys.stdout.write("\n".join(["", shown[0], rule, *shown[1:], ""]))


@pytest.mark.parametrize("size", [3, 200])
def test_a_node_costs_the_same_however_many_there_are(
    fleet: Fleet, table: dict[str, dict[str, str]], size: int
) -> None:
    def measured(what: str, found: Requests) -> Requests:
        table.setdefault(what, {})[str(size)] = _text(found)
        return found

    def costs(what: str, expected: Mapping[str, int | Sequence[int]], do: Callable[[], None]) -> None:
        since = fleet.cluster.moment()
        do()
        found = measured(f"agent: {what}", _of_agent(fleet, since))
        allowed = {name: (count,) if isinstance(count, int) else count for name, count in expected.items()}
        assert found.keys() == allowed.keys(), what
        assert all(count in allowed[name] for name, count in found.items()), (what, found)

    fleet.apply("compute", mode="Audit", interval="1h")
    fleet.add_node(MEASURED)
    tree = fleet.tree(MEASURED)
    tree.add_base("used", age=3 * DAY)
    with Stubs(fleet, [f"node-{number:03}" for number in range(size - 1)]):
        began = fleet.cluster.moment()
        fleet.start_controller()
        eventually(lambda: len(fleet.caches()) == size, "every node has its object")
        eventually(lambda: _silent(fleet) == [MEASURED], "the stubs report")
        measured("controller: start, with all nodes new", _of_controller(fleet, began))

        def start() -> None:
            agent = fleet.start_agent(MEASURED)
            eventually(lambda: agent.said.count(LINE) == 1 and agent.ask("/readyz")[0] == 200, "the first pass")
            time.sleep(SETTLES)

        # Where the watch and the first pass say the same at the same moment, a second pass follows: two reads.
        costs("start, with the first pass", {DISCOVER: range(9), LIST: 1, WATCH: 1, READ: (1, 2), WRITE: 1}, start)
        agent = fleet.programs[f"agent-{MEASURED}"]

        def look() -> None:
            before = agent.said.count(LINE)
            fleet.run_now(MEASURED, str(time.time()))
            eventually(lambda: agent.said.count(LINE) > before, "a pass")
            time.sleep(SETTLES)

        costs("a pass that changes nothing", {READ: 1}, look)
        tree.add_base("unused", age=3 * DAY, seed=2)
        costs("a pass with news", {READ: 1, WRITE: 1}, look)
        eventually(lambda: _is_current(fleet, size), "all that was reported is rolled up", ROLLED_UP)
        idle = fleet.cluster.moment()
        costs(f"nothing to do, {IDLE_SECONDS:.0f} s", {}, lambda: time.sleep(IDLE_SECONDS))
        assert measured(f"controller: nothing to do, {IDLE_SECONDS:.0f} s", _of_controller(fleet, idle)) == {}

        edited, at = fleet.cluster.moment(), time.monotonic()

        def enforce() -> None:
            fleet.apply("compute", mode="Enforce", interval="1h")
            eventually(lambda: all(item["spec"]["mode"] == "Enforce" for item in fleet.caches().values()), "all told")
            table.setdefault("controller: seconds until an edit has reached all", {})[str(size)] = (
                f"{time.monotonic() - at:.1f}"
            )
            eventually(lambda: fleet.events(MEASURED), "what was removed is told")
            time.sleep(SETTLES)

        costs("an edit of the policy, and a pass that removes", {READ: 1, WRITE: 1, TELL: 1}, enforce)
        eventually(lambda: _is_current(fleet, size), "all that was reported is rolled up", ROLLED_UP)
        found = measured("controller: an edit of the policy", _of_controller(fleet, edited))
        assert found.pop("patch nodeimagecaches") == size
        assert found.pop("patch imagecachepolicies/status") <= 4
        assert found == {}


def _silent(fleet: Fleet) -> list[str]:
    """The nodes that have not said anything of what they were told."""
    caches = fleet.caches().items()
    return [
        name
        for name, item in caches
        if item.get("status", {}).get("observedGeneration") != item["metadata"]["generation"]
    ]


def _is_current(fleet: Fleet, size: int) -> bool:
    """Whether the policy's status tells the last of every node."""
    found = fleet.policy("compute")["status"]
    rows = {row["node"]: row for row in found["nodeStatuses"]}
    told = fleet.cache(MEASURED)["status"]["cache"]
    same = all(rows[MEASURED][key] == told[key] for key in ("reclaimableBytes", "quarantinedBytes"))
    current: int = found["nodes"]["current"]
    return same and current == size and found["observedGeneration"] == fleet.policy("compute")["metadata"]["generation"]


def _of_agent(fleet: Fleet, since: int) -> Requests:
    return _named(fleet.cluster.requests(since, node=MEASURED))


def _of_controller(fleet: Fleet, since: int) -> Requests:
    user = f"system:serviceaccount:{NAMESPACE}:basekeeper-controller"
    return _named(fleet.cluster.requests(since, user=user))


def _named(found: Counter[Request]) -> Requests:
    named: Counter[str] = Counter()
    for request, count in found.items():
        what = f"/{request.subresource}" if request.subresource else ""
        named[f"{request.verb} {request.resource}{what}" if request.resource else DISCOVER] += count
    return dict(named)


def _text(found: Requests) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(found.items())) or "none"
