"""The page on metrics says what the programs expose, no more and no less."""

import re
from pathlib import Path

from basekeeper.cache.acts import FAILURE_MEANING, Failure
from basekeeper.controller.metrics import Metrics as ControllerMetrics
from scripts.metrics_page import PROGRAMS, exposed, written
from tests.unit.test_docs import section

PAGE = (Path(__file__).resolve().parents[2] / "docs/metrics.md").read_text(encoding="utf-8")


def test_the_page_lists_every_metric_with_its_type_unit_labels_and_meaning() -> None:
    assert written(PAGE) == PAGE


def test_the_page_names_no_metric_that_does_not_exist() -> None:
    there = {exposed(metric) for program in PROGRAMS.values() for metric in program().registry.collect()}
    assert set(re.findall(r"\b(?:basekeeper|process)_[a-z_]+", PAGE)) - there == set()


def test_every_metric_has_one_meaning_and_one_type() -> None:
    """The same name on both programs would else be two things in one graph."""
    agent, controller = ({exposed(m): m.type for m in program().registry.collect()} for program in PROGRAMS.values())
    assert {name: agent[name] for name in agent.keys() & controller} == {
        name: controller[name] for name in agent.keys() & controller
    }


def test_the_page_says_what_each_class_of_failure_means() -> None:
    assert set(FAILURE_MEANING) == set(Failure)
    assert section("metrics.md", "Failures") == {kind.value: [text] for kind, text in FAILURE_MEANING.items()}


def test_every_state_of_nodes_is_there_before_the_first_node() -> None:
    found = ControllerMetrics().registry
    (nodes,) = [metric for metric in found.collect() if metric.name == "basekeeper_nodes"]
    assert [sample.value for sample in nodes.samples] == [0.0] * 8
