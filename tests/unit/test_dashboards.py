"""The dashboards are those that the code makes, and keep Grafana's conventions. tests/cluster asks what they ask."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from basekeeper.agent.metrics import Metrics as AgentMetrics
from basekeeper.controller.metrics import Metrics as ControllerMetrics
from scripts import dashboards
from scripts.dashboards.drawing import formatted, svg

ROOT = Path(__file__).resolve().parents[2]
MADE: dict[str, dict[str, Any]] = {Path(name).stem: json.loads(text) for name, text in dashboards.files().items()}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in MADE.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]


def test_the_files_are_those_that_make_generate_writes() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "deploy/dashboards").iterdir()}
    assert there == set(dashboards.files())
    for name, text in dashboards.files().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", MADE)
def test_a_dashboard_can_be_found_again_and_names_no_data_source(name: str) -> None:
    made = MADE[name]
    assert made["uid"] == f"basekeeper-{name}"
    assert {"datasource", "cluster", "namespace"} <= {variable["name"] for variable in made["templating"]["list"]}
    for uid in re.findall(r'"datasource": \{[^}]*"uid": "([^"]*)"', json.dumps(made)):
        assert uid == "${datasource}"
    assert {link["url"].removeprefix("/d/") for link in made["links"]} <= {it["uid"] for it in MADE.values()}


@pytest.mark.parametrize("name", MADE)
def test_no_two_panels_lie_on_each_other_or_share_a_number(name: str) -> None:
    panels = MADE[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_asks_only_for_the_chosen_clusters(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        for selector in re.findall(r"basekeeper_\w+(\{[^}]*\})?", target["expr"].partition(" and on ")[0]):
            assert 'cluster=~"$cluster", namespace=~"$namespace"' in selector


def test_every_metric_is_on_a_dashboard() -> None:
    """One that nobody would look at is not worth its series."""
    asked = "".join(target["expr"] for panel in PANELS for target in panel.values[0]["targets"])  # type: ignore[index]
    named = set(re.findall(r"basekeeper_\w+", asked))
    exposed = {
        sample.name
        for metrics in (AgentMetrics(), ControllerMetrics())
        for family in metrics.registry.collect()
        for sample in family.samples
        if family.name.startswith("basekeeper_") and not sample.name.endswith(("_sum", "_count"))
    }
    not_shown = {
        "basekeeper_last_list_timestamp_seconds",
        "basekeeper_last_pass_timestamp_seconds",
        "basekeeper_quarantine_files",
        "basekeeper_start_timestamp_seconds",  # alerts ask for it
    }
    assert exposed - named == not_shown


@pytest.mark.parametrize("name", MADE)
def test_a_picture_has_every_panel_and_says_that_it_is_none_of_grafana(name: str) -> None:
    def answer(_expression: str, over_time: bool) -> list[dict[str, Any]]:
        labels = {"node": "a <b>", "state": "kept"}
        return [{"metric": labels, "values": [[0, "1"], [30, "NaN"], [60, "3"]]} if over_time
                else {"metric": labels, "value": [60, "1"]}]  # fmt: skip

    drawn = ET.fromstring(svg(MADE[name], answer, 0, 60, "Not Grafana."))  # noqa: S314 (we made it)
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {panel["title"] for panel in MADE[name]["panels"]} | {"Not Grafana."} <= texts
    there = (ROOT / f"docs/images/dashboard-{name}.svg").read_text(encoding="utf-8")
    assert all(f">{escape(panel['title'])}<" in there for panel in MADE[name]["panels"])


def test_figures_have_their_units() -> None:
    shown = [(3 * 1024**2, "bytes"), (0.81, "percentunit"), (7.06, "s"), (float("nan"), "s"), (6, "short")]
    assert [formatted(*it) for it in shown] == ["3 MiB", "81%", "7.06 s", "-", "6"]
