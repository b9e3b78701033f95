"""What the dashboards and the alerts ask has answers while agents work: every expression is asked of a real Prometheus.

The story has all that they are about: removals, a purge, a hold, a file that goes back, one that somebody else removes.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY, HOUR, image_file_name
from lab.prometheus import Prometheus, Series
from tests.cluster.fleet import DEPLOY, NAMESPACE, Fleet, eventually
from tests.cluster.scraped import CONTROLLER_NODE, add_agent, add_controller, config, seen

WORKING, HELD, PURGING = "node-a", "node-b", "node-c"
NODES = (WORKING, HELD, PURGING)
INSTANCE = "0f3c0000-0000-4000-8000-00000000000"
DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DEPLOY / "dashboards").iterdir()}
_VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$cluster": ".*", "$namespace": NAMESPACE}
Panel = dict[str, Any]


def panels() -> Iterator[tuple[str, Panel]]:
    """Every panel that asks something, and which dashboard it is on."""
    for name, dashboard in DASHBOARDS.items():
        yield from ((name, panel) for panel in dashboard["panels"] if panel["type"] != "row")


@pytest.fixture(scope="module")
def fleet(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(fleet: Fleet) -> Iterator[Prometheus]:
    """A Prometheus that has seen the story."""
    with Prometheus(config(fleet)) as made:
        _furnish(fleet)
        add_controller(fleet)
        for node in NODES:
            add_agent(fleet, node, {"kind": "ci" if node == PURGING else "compute"})
        seen(made, "basekeeper_build_info", lambda found: len(found) == len(NODES) + 1)
        _play(fleet, made)
        yield made


def _furnish(fleet: Fleet) -> None:
    for place, node in enumerate(NODES):
        tree = fleet.tree(node)
        tree.add_overlay(f"{INSTANCE}{place}", tree.add_base(f"used-{node}", age=3 * DAY))
        tree.add_base(f"unused-{node}", age=3 * DAY, seed=2)
        tree.add_base(f"young-{node}", seed=3)
    disk = fleet.tree(HELD).add_overlay(f"{INSTANCE}8", fleet.tree(HELD).add_base("hidden", age=3 * DAY, seed=4))
    disk.write_bytes(b"no qcow2 header")
    fleet.tree(HELD).register_host(HELD, age=26 * HOUR)  # nova's manager ran there once, and does not any more
    fleet.tree(PURGING).add_base("not ours to remove", age=3 * DAY, seed=5)


def _play(fleet: Fleet, prometheus: Prometheus) -> None:
    """Audit; then enforce, and need again what was removed; then remove a base behind the agent's back."""
    # The third node's policy is Audit until its base has been seen: another hand removes it then.
    fleet.apply("compute", mode="Audit", nodeSelector={"matchLabels": {"kind": "compute"}})
    fleet.apply("ci", mode="Audit", nodeSelector={"matchLabels": {"kind": "ci"}})
    seen(prometheus, "basekeeper_reclaimable_bytes > 0", lambda found: len(found) == 2)
    (fleet.tree(PURGING).base_dir / image_file_name("not ours to remove")).unlink()
    fleet.run_now(PURGING, "look")
    seen(prometheus, "basekeeper_vanished_files_total > 0")
    fleet.apply("compute", mode="Enforce", nodeSelector={"matchLabels": {"kind": "compute"}})
    fleet.apply("ci", mode="Enforce", nodeSelector={"matchLabels": {"kind": "ci"}}, quarantine={"retention": "0s"})
    seen(prometheus, "sum(basekeeper_removed_files_total) == 2")
    seen(prometheus, "sum(basekeeper_purged_bytes_total) > 0")
    fleet.tree(WORKING).add_overlay(
        f"{INSTANCE}9", str(fleet.tree(WORKING).base_dir / image_file_name(f"unused-{WORKING}"))
    )
    fleet.run_now(WORKING, "needed")
    seen(prometheus, "sum(basekeeper_restored_files_total) == 1")
    fleet.tree(WORKING).add_base("unused again", age=3 * DAY, seed=6)
    fleet.run_now(WORKING, "again")
    seen(prometheus, f'basekeeper_quarantine_files{{node="{WORKING}"}} == 1')
    for node in NODES:
        eventually(lambda node=node: fleet.cache(node)["status"]["lastPass"], "told")  # type: ignore[misc]
    seen(prometheus, f'sum(basekeeper_nodes{{state="Holding"}}) == 1 and sum(basekeeper_nodes) == {len(NODES)}')


def _asked(expression: str, node: str = WORKING) -> str:
    for variable, value in (_VARIABLES | {"$node": node}).items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def _finite(found: list[Series]) -> list[Series]:
    return [series for series in found if math.isfinite(float(series["value"][1]))]


@pytest.mark.parametrize(
    ("dashboard", "panel"), list(panels()), ids=lambda it: it if isinstance(it, str) else it["title"]
)
def test_every_panel_shows_something_while_agents_work(prometheus: Prometheus, dashboard: str, panel: Panel) -> None:
    """On one of the nodes, where a panel is about one: not everything happens on each of them."""
    for target in panel["targets"]:
        answers = (_finite(prometheus.query(_asked(target["expr"], node))) for node in NODES)
        found = next(filter(None, answers), None)
        assert found, target["expr"]
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert all(shown <= series["metric"].keys() for series in found)
        if panel["type"] == "stat":
            assert len(found) == 1
    columns = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
    assert {column[-1] for column in columns if column.startswith("Value #")} <= {
        it["refId"] for it in panel["targets"]
    }


def test_the_variables_offer_what_there_is(prometheus: Prometheus) -> None:
    offered = {}
    for variable in DASHBOARDS["node"]["templating"]["list"]:
        if variable["type"] == "query":
            (asked,) = re.findall(r"^label_values\((.*), (\w+)\)$", variable["query"]["query"])
            offered[variable["name"]] = prometheus.label_values(asked[1], _asked(asked[0]))
    assert offered == {"cluster": [], "namespace": [NAMESPACE], "node": list(NODES)}


def test_the_figures_are_those_of_the_story(prometheus: Prometheus) -> None:
    def shown(title: str) -> list[float]:
        (panel,) = (panel for name, panel in panels() if (name, panel["title"]) == ("fleet", title))
        return [float(series["value"][1]) for target in panel["targets"]
                for series in prometheus.query(_asked(target["expr"]))]  # fmt: skip

    assert shown("Nodes") == [3]
    assert shown("In trouble") == [0]
    assert shown("In quarantine") == [1024 * 1024]
    assert shown("Reclaimable") == [0]
    assert shown("Removals undone")[0] == pytest.approx(1, abs=0.1)


def test_prometheus_evaluates_every_rule_and_only_what_happened_is_an_alert(prometheus: Prometheus) -> None:
    (group,) = prometheus.ask("rules")["groups"]
    assert [rule["name"] for rule in group["rules"] if rule["health"] != "ok" or rule.get("lastError")] == []
    found = {
        (alert["labels"]["alertname"], alert["labels"].get("node"), alert["state"]) for alert in prometheus.alerts()
    }
    assert found == {("BasekeeperRestored", WORKING, "firing"), ("BasekeeperFilesVanished", PURGING, "firing")}


def test_every_alert_asks_for_series_that_are_there(prometheus: Prometheus) -> None:
    """A rule about a metric that nobody has is silent for ever: each selector must find something."""
    (group,) = prometheus.ask("rules")["groups"]
    for rule in group["rules"]:
        for selector in re.findall(r"\b((?:basekeeper_\w+|process_\w+|up\b)(?:\{[^}]*\})?)", rule["query"]):
            assert prometheus.query(selector), selector


def test_who_is_gone_is_missed_byimage_file_name(fleet: Fleet, prometheus: Prometheus) -> None:
    """Last, for it ends programs. What the rules wait for is promtool's to show."""
    fleet.programs[f"agent-{HELD}"].stop()
    fleet.programs["controller"].stop()

    def missed() -> bool:
        pending = {(alert["labels"]["alertname"], alert["labels"].get("node")) for alert in prometheus.alerts()}
        return pending >= {("BasekeeperAgentAbsent", HELD), ("BasekeeperControllerAbsent", None)}

    eventually(missed, "both are missed")
    assert prometheus.query(f'up{{job="basekeeper-controller", node="{CONTROLLER_NODE}"}}')[0]["value"][1] == "0"
