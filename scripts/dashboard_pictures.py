#!/usr/bin/env python3
"""Draws docs/images/*.svg: the dashboards, over a quarter of an hour of six agents that really work.

The fleet, the API server and the Prometheus are those of tests/cluster: processes on loopback, with caches of some MiB.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

import json  # noqa: E402

from lab.control_plane import ControlPlane  # noqa: E402
from lab.nova_tree import DAY, MIB, image_file_name  # noqa: E402
from lab.prometheus import Prometheus  # noqa: E402
from scripts.dashboards.drawing import svg  # noqa: E402
from tests.cluster.fleet import NAMESPACE, Fleet, install  # noqa: E402
from tests.cluster.scraped import add_agent, add_controller, config  # noqa: E402

NODES = tuple(f"compute-{number}" for number in range(1, 7))
MINUTES = 15
SHOWN = NODES[1]
NOTE = (
    "Drawn by scripts/dashboard_pictures.py from the dashboard's own expressions, asked of a Prometheus that scraped "
    "six real agents. This is not Grafana."
)


def furnish(fleet: Fleet) -> None:
    """Give each node bases in use, unused ones and young ones; one of them a disk that cannot be read."""
    for place, node in enumerate(NODES):
        tree = fleet.tree(node)
        for number in range(6 + place):
            base = tree.add_base(f"used {number}", age=9 * DAY, size=MIB, seed=number + 1)
            tree.add_overlay(f"0f3c0000-0000-4000-8000-0000000000{number:02}", base)
        for number in range(3 + 2 * place):
            tree.add_base(f"unused {number}", age=9 * DAY, size=MIB, seed=number + 50)
        tree.add_base("young", size=MIB, seed=90)
    tree = fleet.tree(NODES[3])
    tree.add_overlay("0f3c0000-0000-4000-8000-000000000099", tree.base_dir / image_file_name("used 0"))
    (tree.instances_path / "0f3c0000-0000-4000-8000-000000000099/disk").write_bytes(b"no qcow2 header")


def play(fleet: Fleet) -> None:
    """A policy in Audit; then in force, wave by wave; then a file that is needed again, and one that somebody takes."""
    minute = time.monotonic()

    def until(minutes: float) -> None:
        time.sleep(max(0.0, minute + 60 * minutes - time.monotonic()))

    until(1)
    fleet.apply("compute", mode="Audit")
    until(3)
    more: dict[str, Any] = {"limits": {"maxFiles": 2, "maxPercent": 100}, "rollout": {"maxNodesPerInterval": 2}}
    fleet.apply("compute", mode="Enforce", quarantine={"retention": "4m"}, **more)
    until(7)
    (fleet.tree(NODES[5]).base_dir / image_file_name("young")).unlink()
    tree = fleet.tree(SHOWN)
    tree.add_overlay("0f3c0000-0000-4000-8000-000000000098", str(tree.base_dir / image_file_name("unused 0")))
    until(10)
    (fleet.tree(NODES[3]).instances_path / "0f3c0000-0000-4000-8000-000000000099/disk").unlink()
    until(MINUTES)


def main() -> None:
    """Run the story, and draw."""
    with ControlPlane() as cluster, tempfile.TemporaryDirectory() as directory:
        install(cluster)
        with Fleet(cluster, Path(directory)) as fleet, Prometheus(config(fleet)) as prometheus:
            furnish(fleet)
            add_controller(fleet)
            for node in NODES:
                add_agent(fleet, node)
            play(fleet)
            draw(prometheus)


def draw(prometheus: Prometheus) -> None:
    """Draw both dashboards as they are now."""
    end = time.time()
    start = end - 60 * MINUTES
    chosen = {"$__rate_interval": "1m", "$__range": f"{MINUTES}m", "$cluster": ".*", "$namespace": NAMESPACE,
              "$node": SHOWN}  # fmt: skip

    def ask(expression: str, over_time: bool) -> list[dict[str, Any]]:
        for variable, value in chosen.items():
            expression = expression.replace(variable, value)
        return prometheus.query_range(expression, start, end, 15) if over_time else prometheus.query(expression)

    for name in ("fleet", "node"):
        dashboard = json.loads((ROOT / f"deploy/dashboards/{name}.json").read_text(encoding="utf-8"))
        path = ROOT / f"docs/images/dashboard-{name}.svg"
        path.parent.mkdir(exist_ok=True)
        path.write_text(svg(dashboard, ask, start, end, NOTE), encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
