"""The documentation says what the code does: reasons, commands and fields are compared, not remembered."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from basekeeper.cache.names import Kind
from basekeeper.cache.report import Outcome, Report, Row
from basekeeper.cache.settings import Policy
from basekeeper.cache.verdicts import MEANING, WHAT_NEXT, Reason, Verdict
from basekeeper.cli import document
from basekeeper.cli.app import app
from basekeeper.resources import manifest

ROOT = Path(__file__).resolve().parents[2]


def test_every_reason_has_a_meaning_and_says_what_would_change_it() -> None:
    assert set(MEANING) == set(WHAT_NEXT) == set(Reason)


def test_the_page_on_evidence_lists_every_reason_with_its_meaning() -> None:
    page = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    table = page.partition("## Reasons")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert rows == {reason.value: meaning for reason, meaning in MEANING.items()}


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
