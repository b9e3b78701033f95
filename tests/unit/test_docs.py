"""The documentation says what the code does: reasons, commands and fields are compared, not remembered."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from basekeeper.agent import events
from basekeeper.agent.events import EventReason
from basekeeper.cache.names import Kind
from basekeeper.cache.orphans import ORPHAN_MEANING, OrphanKind
from basekeeper.cache.pressure import STATE_MEANING as STATES
from basekeeper.cache.report import Outcome, Report, Row
from basekeeper.cache.settings import Policy
from basekeeper.cache.verdicts import MEANING, WHAT_NEXT, Reason, Verdict
from basekeeper.cli import document
from basekeeper.cli.app import app
from basekeeper.resources import manifest
from basekeeper.resources.conditions import (
    NODE_MEANING,
    POLICY_MEANING,
    WHY_MEANING,
    Meaning,
    NodeCondition,
    PolicyCondition,
    Why,
)
from basekeeper.resources.image_cache_policy import (
    DISAGREEMENT_MEANING,
    STATE_MEANING,
    DisagreementKind,
    NodeState,
)

ROOT = Path(__file__).resolve().parents[2]


def test_every_reason_has_a_meaning_and_says_what_would_change_it() -> None:
    assert set(MEANING) == set(WHAT_NEXT) == set(Reason)


def test_the_page_on_evidence_lists_every_reason_with_its_meaning() -> None:
    page = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    table = page.partition("## Reasons")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert rows == {reason.value: meaning for reason, meaning in MEANING.items()}


def section(page: str, heading: str) -> dict[str, list[str]]:
    """The table under a heading of a page: its first column, and the others."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    return {name: rest.split(" | ") for name, rest in rows}


CONDITIONS: dict[str, tuple[type[StrEnum], Mapping[Any, Meaning]]] = {
    "ImageCachePolicy": (PolicyCondition, POLICY_MEANING),
    "NodeImageCache": (NodeCondition, NODE_MEANING),
}


@pytest.mark.parametrize("heading", CONDITIONS)
def test_the_page_on_conditions_says_of_each_what_true_false_and_unknown_mean(heading: str) -> None:
    kinds, meanings = CONDITIONS[heading]
    assert set(meanings) == set(kinds)
    told = {kind.value: [said.true, said.false, said.unknown] for kind, said in meanings.items()}
    assert section("conditions.md", heading) == told


WORDS: dict[str, tuple[type[StrEnum], Mapping[Any, str]]] = {
    "Reasons": (Why, WHY_MEANING),
    "States of nodes": (NodeState, STATE_MEANING),
    "Disagreements": (DisagreementKind, DISAGREEMENT_MEANING),
    "Events": (EventReason, events.MEANING),
}


def test_the_page_on_pressure_lists_every_state_with_its_meaning() -> None:
    assert section("pressure.md", "What is said") == {state.value: [said] for state, said in STATES.items()}


@pytest.mark.parametrize("heading", WORDS)
def test_the_page_on_conditions_lists_every_word_with_its_meaning_in_order(heading: str) -> None:
    words, meanings = WORDS[heading]
    assert set(meanings) == set(words)
    assert list(section("conditions.md", heading).items()) == [(word.value, [meanings[word]]) for word in words]


def test_the_page_on_orphans_says_of_each_kind_what_it_is_left_from() -> None:
    page = (ROOT / "docs/orphans.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == {kind.value: meaning for kind, meaning in ORPHAN_MEANING.items()}
    assert set(ORPHAN_MEANING) == set(OrphanKind)


def test_every_reason_of_a_condition_has_a_user() -> None:
    """A word that nothing says would be looked for in vain."""
    parts = (ROOT / "operator/basekeeper" / part for part in ("agent", "controller"))
    code = "".join(path.read_text(encoding="utf-8") for part in parts for path in part.glob("*.py"))
    assert [why.name for why in Why if f"Why.{why.name}" not in code] == []


@pytest.mark.parametrize("values", [Outcome, Verdict, Kind], ids=lambda values: values.__name__)
def test_the_page_on_json_names_every_value(values: type[Outcome | Verdict | Kind]) -> None:
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    assert [value for value in values if f"`{value.value}`" not in page] == []


def test_the_page_on_json_names_every_field_of_the_document() -> None:
    row = Row("n", Kind.SWAP, Verdict.KEEP, Reason.TOO_YOUNG, "", 0, removable_at=1.0, error="e", entry="q")
    report = Report("Plan", "n", 0.0, Policy(), rows=(row,), error="e")
    told = document.of_report(report)
    fields = {*told, *told["files"][0], *told["totals"], *told["seconds"], *told["policy"]}
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    assert {field for field in fields if field not in page} == set()


def test_every_command_of_the_readme_exists_and_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE))
    named = set(re.findall(r"^(?:\$ )?basekeeper ([a-z-]+)", blocks, re.MULTILINE))
    assert named == commands


def test_the_policy_of_the_readme_is_one() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert manifest.parse(yaml.safe_load(text), "README.md").spec.mode == "Audit"


def test_the_page_on_compatibility_names_the_versions_that_are_tested() -> None:
    page = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
    pins = {"k8s.io/kubernetes": "controlplane/*", "helm.sh/helm/v3": "tools/helm3", "helm.sh/helm/v4": "tools/helm4"}
    tested = [
        ".".join(version.split(".")[: 3 if module == "k8s.io/kubernetes" else 2])
        for module, place in pins.items()
        for path in ROOT.glob(f"lab/{place}/go.mod")
        for version in re.findall(rf"{re.escape(module)} v([0-9.]+)", path.read_text(encoding="utf-8"))
    ]
    assert len(tested) >= 4
    assert [version for version in tested if version not in page] == []
    assert set(re.findall(r"\b1\.3[0-9]\.[0-9]+\b", page)) <= set(tested)
