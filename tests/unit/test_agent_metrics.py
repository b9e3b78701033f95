"""What an agent counts: each pass once, and what is known of the cache only when a pass knew it."""

from prometheus_client import CollectorRegistry

from basekeeper.agent.metrics import Metrics
from basekeeper.cache.acts import Action
from basekeeper.cache.anomalies import Stop
from basekeeper.cache.report import Outcome, Seconds
from basekeeper.cache.verdicts import Reason, Verdict
from tests.unit.judging import NOW
from tests.unit.test_agent_status import report, row


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"basekeeper_{name}", labels)


def test_a_pass_is_counted_with_what_it_did_and_saw() -> None:
    metrics = Metrics()
    rows = [
        row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.QUARANTINED),
        row(1, Verdict.HOLD, Reason.LIMIT_REACHED),
    ]
    stop = Stop(Reason.CLOCK_JUMPED, "forward")
    metrics.count_pass(report(*rows, reclaimed=7, anomalies=(stop,), seconds=Seconds(1, 2, 3)))
    found = metrics.registry
    assert value(found, "passes_total", outcome="Acted") == 1
    assert value(found, "files_acted_on_total", action="Quarantined") == 1
    assert value(found, "pass_duration_seconds_sum", phase="judge") == 2
    assert value(found, "last_success_timestamp_seconds") == NOW
    assert (value(found, "reclaimed_bytes_total"), value(found, "reclaimable_bytes")) == (7, 4096)
    assert value(found, "breaker_open") == 1


def test_a_pass_that_failed_as_a_whole_changes_nothing_that_was_known() -> None:
    metrics = Metrics()
    metrics.count_pass(report(row(0, Verdict.REMOVE, Reason.EXPIRED), anomalies=(Stop(Reason.CLOCK_JUMPED, ""),)))
    metrics.count_pass(report(error="no", time=NOW + 9))
    found = metrics.registry
    assert value(found, "passes_total", outcome="Failed") == 1
    assert value(found, "last_success_timestamp_seconds") == NOW
    assert (value(found, "reclaimable_bytes"), value(found, "breaker_open")) == (4096, 1)
    assert value(found, "pass_duration_seconds_count", phase="act") == 1


def test_a_pass_in_which_a_file_failed_is_no_success() -> None:
    metrics = Metrics()
    metrics.count_pass(report(row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, error="no")))
    assert value(metrics.registry, "last_success_timestamp_seconds") == 0


def test_what_has_not_happened_yet_is_counted_as_none() -> None:
    found = Metrics().registry
    assert [value(found, "passes_total", outcome=outcome.value) for outcome in Outcome] == [0.0] * len(Outcome)
    assert [value(found, "files_acted_on_total", action=action.value) for action in Action] == [0.0] * len(Action)


def test_no_metric_has_a_label_of_a_node_a_file_or_an_image() -> None:
    metrics = Metrics()
    metrics.count_request("GET", "200")
    metrics.count_pass(report(row()))
    labels = {label for metric in metrics.registry.collect() for sample in metric.samples for label in sample.labels}
    assert labels == {"outcome", "phase", "action", "method", "code", "version", "le"}
