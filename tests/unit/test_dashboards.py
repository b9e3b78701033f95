"""The dashboards are those that the code makes, and keep Grafana's conventions. tests/cluster asks what they ask."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from basekeeper.agent.metrics import Metrics as AgentMetrics
from basekeeper.controller.metrics import Metrics as ControllerMetrics
from scripts import dashboards

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
    }
    assert exposed - named == not_shown
