"""The alerts do what their names say: promtool plays each one's story, and every word of a rule is one that exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from basekeeper.agent.events import EventReason
from basekeeper.agent.metrics import Metrics as AgentMetrics
from basekeeper.cache.acts import Failure
from basekeeper.cache.report import Outcome
from basekeeper.cache.verdicts import HOLD_REASONS, Reason
from basekeeper.controller.metrics import Metrics as ControllerMetrics
from basekeeper.resources.conditions import NodeCondition, PolicyCondition, Why
from basekeeper.resources.image_cache_policy import NodeState
from lab.prometheus import promtool
from tests.chart.helm import CHART, of_kind, rendered

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/alerts/basekeeper.yaml"
STORIES = Path(__file__).parent / "alerts"
Rule = dict[str, Any]
ALERTS: dict[str, Rule] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}


def stories(alert: str) -> list[list[tuple[str, bool]]]:
    """Of each story of an alert: when it is looked at, and whether it fires then."""
    told = yaml.safe_load((STORIES / f"{alert}.yaml").read_text(encoding="utf-8"))
    return [
        [(look["eval_time"], bool(look.get("exp_alerts"))) for look in test["alert_rule_test"]]
        for test in told["tests"]
    ]


def test_promtool_finds_nothing_to_say_about_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_the_alert_fires_and_ends_as_its_stories_tell(alert: str) -> None:
    done = promtool("test", "rules", str(STORIES / f"{alert}.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_the_stories_of_an_alert_fire_it_end_it_and_come_near_it(alert: str) -> None:
    told = stories(alert)
    fires = [fires for _, fires in told[0]]
    assert fires[0] is False
    assert True in fires
    assert fires[-1] is False
    assert any(not any(fires for _, fires in looks) for looks in told), "no story in which it almost fires"


def test_every_story_is_of_an_alert() -> None:
    assert {path.stem for path in STORIES.iterdir()} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_what_it_means_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["for"]
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"https://basekeeper.io/docs/runbooks/{alert}.md"


def test_every_hold_is_told_of_by_an_alert_or_ends_by_itself_or_was_ordered() -> None:
    """A reason that is new must be put into one of these, or nobody would ever hear of it."""
    (pattern,) = re.findall(r'basekeeper_holds\{reason=~"([^"]+)"', ALERTS["BasekeeperHeld"]["expr"])
    of_the_breaker = {"ClockJumped", "UsersVanished", "InstancesVanished", "OtherDirectory"}
    by_themselves, ordered = {"SpawnInProgress", "LimitReached"}, {"Suspended", "Draining", "OutsideWindow"}
    assert {*pattern.split("|"), *of_the_breaker, *by_themselves, *ordered} == {str(it) for it in HOLD_REASONS}


def test_every_metric_and_label_of_a_rule_is_one_of_the_programs() -> None:
    known = {"up": {"job"}}
    values: dict[tuple[str, str], set[str]] = {}
    for metrics in (AgentMetrics(), ControllerMetrics()):
        for family in metrics.registry.collect():
            for sample in family.samples:
                known.setdefault(sample.name, set()).update(sample.labels)
                for label, value in sample.labels.items():
                    values.setdefault((sample.name, label), set()).add(value)
    for rule in ALERTS.values():
        found = re.findall(r"\b(basekeeper_\w+|up)\b(?:\{([^}]*)\})?", rule["expr"])
        assert found
        for name, matchers in found:
            assert name in known
            for label, wanted in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                assert label in known[name]
                if name != "up":
                    assert set(wanted.split("|")) <= values[name, label]


def test_the_chart_scrapes_under_the_jobs_and_with_the_labels_that_the_rules_ask_for() -> None:
    asked = {job for rule in ALERTS.values() for job in re.findall(r'up\{job="([^"]+)"', rule["expr"])}
    found = of_kind(rendered("helm4", CHART / "values_overrides/atmosphere.yaml"), "PodMonitor")
    made = [
        {step["targetLabel"]: step for step in endpoint["relabelings"]}
        for monitor in found
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    ]
    assert {steps["job"]["replacement"] for steps in made} == asked
    assert all(steps["node"]["sourceLabels"] == ["__meta_kubernetes_pod_node_name"] for steps in made)


def test_every_alert_has_a_runbook_and_is_in_both_lists() -> None:
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
    assert pages == set(ALERTS)
    severities = [(alert, rule["labels"]["severity"]) for alert, rule in ALERTS.items()]
    for page in ("docs/monitoring.md", "docs/runbooks/README.md"):
        listed = re.findall(
            r"^\| \[(\w+)\]\([\w/]+\.md\) \| (\w+) \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
        )
        assert listed == severities


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_says_what_it_means_what_is_at_stake_how_to_look_how_to_mend_and_when_it_ends(alert: str) -> None:
    text = (ROOT / f"docs/runbooks/{alert}.md").read_text(encoding="utf-8")
    parts = re.findall(r"^(# .*|## .*|\*\*.*?\*\*)", text, re.MULTILINE)
    wanted = ["**What it means.**", "**What is at stake.**", "## Look", "## Mend", "## When it ends"]
    assert parts == [f"# {alert}", *wanted]
    assert "```" in text.partition("## Look")[2].partition("## Mend")[0]


WORDS = (*Reason, *Why, *NodeCondition, *PolicyCondition, *NodeState, *EventReason, *Outcome, *Failure)
KUBERNETES = {"ImagePullBackOff", "CrashLoopBackOff", "OOMKilled", "NotReady", "Audit", "Enforce", "Remove"}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_condition_reason_and_state_that_a_runbook_names_exists(alert: str) -> None:
    """Commands, metrics and links are looked at by tests/unit/test_docs_examples.py, as on every page."""
    text = (ROOT / f"docs/runbooks/{alert}.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", prose)) | set(re.findall(r'@\.type=="(\w+)"', text))
    assert named - {str(word) for word in WORDS} - KUBERNETES == set()


def test_the_scrape_configuration_finds_what_the_chart_starts() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/scrape.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    key, _, value = job["kubernetes_sd_configs"][0]["selectors"][0]["label"].partition("=")
    (wanted,) = (step["regex"] for step in job["relabel_configs"] if step.get("action") == "keep")
    for workload in of_kind(rendered("helm4"), "DaemonSet", "Deployment"):
        pod = workload["spec"]["template"]
        assert pod["metadata"]["labels"][key] == value
        assert [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]] == [wanted]
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        assert any(f"basekeeper-{component}" in rule["expr"] for rule in ALERTS.values())
