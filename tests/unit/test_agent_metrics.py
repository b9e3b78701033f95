"""What an agent counts: each pass once, and what is known of the cache only when a pass knew it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from basekeeper.agent.metrics import Metrics
from basekeeper.cache.acts import Action, Failure
from basekeeper.cache.evidence import Part
from basekeeper.cache.names import Kind
from basekeeper.cache.pressure import PressureState, Relief
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import CacheState, Outcome, Report, Row, Seconds
from basekeeper.cache.settings import Mode, Policy
from basekeeper.cache.verdicts import AGAINST, ANOMALIES, HOLD_REASONS, REASONS, Reason, Verdict
from basekeeper.cache.windows import Window
from tests.unit.judging import HOUR, MINUTE, NOW
from tests.unit.test_agent_status import DISK, ENFORCE, report, row, tripped


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"basekeeper_{name}", labels)


def counted(*reports: Report) -> CollectorRegistry:
    """What is shown after these passes."""
    metrics = Metrics()
    for made in reports:
        metrics.count_pass(made, DISK)
    return metrics.registry


def total(registry: CollectorRegistry, name: str) -> float:
    """The sum of all series of a metric."""
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name == f"basekeeper_{name}")


# A pass


def test_a_pass_is_counted_with_what_it_did_and_saw() -> None:
    rows = [
        row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.QUARANTINED, bytes=10),
        row(1, Verdict.REMOVE, Reason.EXPIRED, action=Action.PURGED, bytes=20, kind=Kind.SWAP),
        row(2, Verdict.REMOVE, Reason.RETENTION_OVER, action=Action.PURGED, bytes=40, entry="e"),
        row(3, Verdict.KEEP, Reason.IN_USE_BY_OVERLAY, action=Action.RESTORED, bytes=80),
        row(4, Verdict.KEEP, Reason.USER_APPEARED, action=Action.SKIPPED, bytes=160),
        row(5, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, failure=Failure.READ_ONLY, error="no", bytes=320),
    ]
    found = counted(report(*rows, target=1000, vanished=("a", "b")))
    assert value(found, "passes_total", outcome="Failed") == 1
    assert value(found, "target_bytes") == 1000
    removed = [value(found, f"removed_{what}_total", kind=kind) for kind in ("Original", "Swap") for what in WHAT]
    assert removed == [1, 10, 1, 20]
    purged = [value(found, f"purged_{what}_total", kind=kind) for kind in ("Original", "Swap") for what in WHAT]
    assert purged == [1, 40, 1, 20]
    assert value(found, "restored_files_total", kind="Original", reason="InUseByOverlay") == 1
    assert value(found, "skipped_files_total", reason="UserAppeared") == 1
    assert value(found, "failed_files_total", reason="ReadOnly") == 1
    assert value(found, "vanished_files_total") == 2


WHAT = ("files", "bytes")


def test_what_went_for_want_of_room_is_counted_by_its_reason_and_the_state_is_one_of_all() -> None:
    rows = [
        row(0, Verdict.REMOVE, Reason.PRESSURE, action=Action.QUARANTINED, bytes=10),
        row(1, Verdict.REMOVE, Reason.PRESSURE, action=Action.PURGED, bytes=20, entry="e"),
        row(2, Verdict.REMOVE, Reason.OVER_BUDGET, action=Action.PURGED, bytes=40),
        row(3, Verdict.REMOVE, Reason.PRESSURE, action=Action.FAILED, error="no", bytes=80),
    ]
    want = Relief(PressureState.PRESSURE, "the disk is 91 % full", 91.0, 10, 700, 300, evicting=True)
    found = counted(report(*rows, relief=want))
    evicted = [value(found, f"evicted_{what}_total", reason=why) for why in ("Pressure", "OverBudget") for what in WHAT]
    assert evicted == [1, 10, 1, 40]
    shown = {state: value(found, "pressure", state=state.value) for state in PressureState}
    assert shown == {state: float(state is PressureState.PRESSURE) for state in PressureState}
    assert (value(found, "pressure_target_bytes"), value(found, "pressure_evictable_bytes")) == (700, 300)
    calm = counted(report(*rows, relief=want), report(row()))
    assert {value(calm, "pressure", state=state.value) for state in PressureState} == {0}
    assert (value(calm, "pressure_target_bytes"), value(calm, "pressure_evictable_bytes")) == (0, 0)


def test_what_lies_in_the_cache_after_a_pass_is_shown_by_what_is_to_become_of_it() -> None:
    rows = [
        row(0, bytes=1),
        row(1, Verdict.REMOVE, Reason.EXPIRED, bytes=2),
        row(2, Verdict.HOLD, Reason.LIMIT_REACHED, bytes=4),
        row(3, Verdict.HOLD, Reason.UNKNOWN_USAGE, bytes=8),
        row(4, Verdict.FOREIGN, Reason.FOREIGN_NAME, kind=Kind.FOREIGN, bytes=16),
        row(5, Verdict.REMOVE, Reason.EXPIRED, action=Action.QUARANTINED, bytes=32),
        row(6, Verdict.HOLD, Reason.CONFLICT, entry="e", bytes=64),
    ]
    found = counted(report(*rows, quarantined=100, quarantined_files=3))
    states = {state: [value(found, f"cache_{what}", state=state) for what in WHAT] for state in CacheState}
    assert states == {"kept": [1, 1], "held": [1, 8], "removable": [2, 6], "foreign": [1, 16]}
    assert value(found, "reclaimable_bytes") == 6
    assert value(found, "files", verdict="Hold", reason="LimitReached") == 1
    assert value(found, "files", verdict="Hold", reason="Conflict") == 0
    assert [value(found, f"quarantine_{what}") for what in WHAT] == [3, 100]
    assert (value(found, "filesystem_size_bytes"), value(found, "filesystem_available_bytes")) == (10**12, 4 * 10**11)


def test_a_pass_is_counted_with_the_time_it_took() -> None:
    found = counted(report(seconds=Seconds(1, 2, 3, {Part.LIBVIRT: 0.5, Part.DISKS: 0.25})))
    phases = ("observe", "judge", "act")
    assert [value(found, "pass_duration_seconds_sum", phase=phase) for phase in phases] == [1, 2, 3]
    assert [value(found, "observe_duration_seconds_sum", source=part) for part in ("libvirt", "disks")] == [0.5, 0.25]
    assert value(found, "observe_duration_seconds_count", source="locks") == 0


def test_holds_and_the_breaker_end_with_the_pass_that_finds_them_over() -> None:
    held = report(
        row(0, Verdict.HOLD, Reason.CLOCK_JUMPED),
        holds=(Hold(Reason.CLOCK_JUMPED, "forward"), *(Hold(Reason.UNKNOWN_USAGE, "unread", path) for path in "ab")),
        trips=(tripped(Reason.CLOCK_JUMPED, "forward"),),
        libvirt_failure="no",
    )
    before, after = counted(held), counted(held, report(row(0)))
    names = ("ClockJumped", "UnknownUsage", "Conflict")
    assert [value(before, "holds", reason=reason) for reason in names] == [1, 2, 0]
    assert [value(after, "holds", reason=reason) for reason in names] == [0, 0, 0]
    assert [value(found, "files", verdict="Hold", reason="ClockJumped") for found in (before, after)] == [1, 0]
    causes = ("ClockJumped", "UsersVanished")
    assert [value(before, "breaker_open", cause=cause) for cause in causes] == [1, 0]
    assert [value(after, "breaker_open", cause=cause) for cause in causes] == [0, 0]
    assert [value(found, "breaker_since_timestamp_seconds") for found in (before, after)] == [NOW - HOUR, 0]
    assert [value(found, "libvirt_reachable") for found in (before, after)] == [0, 1]


def test_a_pass_that_failed_as_a_whole_changes_nothing_that_was_known() -> None:
    stop = tripped(Reason.CLOCK_JUMPED)
    good = report(row(0, Verdict.REMOVE, Reason.EXPIRED), holds=(Hold(Reason.CLOCK_JUMPED, ""),), trips=(stop,))
    found = counted(good, report(error="no", time=NOW + 9))
    assert value(found, "passes_total", outcome="Failed") == 1
    assert [value(found, f"last_{what}_timestamp_seconds") for what in ("pass", "success")] == [NOW + 9, NOW]
    assert (value(found, "reclaimable_bytes"), value(found, "breaker_open", cause="ClockJumped")) == (4096, 1)
    assert value(found, "holds", reason="ClockJumped") == 1
    assert (value(found, "libvirt_reachable"), value(found, "filesystem_size_bytes")) == (1, 10**12)
    assert value(found, "pass_duration_seconds_count", phase="act") == 1


def test_a_pass_in_which_a_file_failed_is_no_success() -> None:
    found = counted(report(row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, error="no")))
    assert value(found, "last_success_timestamp_seconds") == 0
    assert value(found, "failed_files_total", reason="Other") == 1


def test_a_file_system_that_cannot_be_asked_keeps_its_last_figures() -> None:
    metrics = Metrics()
    metrics.count_pass(report(), DISK)
    metrics.count_pass(report(), None)
    assert value(metrics.registry, "filesystem_available_bytes") == 4 * 10**11


# Orders


@pytest.mark.parametrize(
    ("policy", "shown"),
    {
        "no policy": (None, (0, 0)),
        "Audit": (Policy(), (60, 0)),
        "Enforce": (ENFORCE, (60, 1)),
        "suspended": (replace(ENFORCE, suspend=True), (60, 0)),
    }.values(),
)
def test_what_the_node_is_told_is_shown(policy: Policy | None, shown: tuple[int, int]) -> None:
    metrics = Metrics()
    metrics.show_order(Policy(mode=Mode.ENFORCE), 5)
    metrics.show_order(policy, 60)
    assert (value(metrics.registry, "interval_seconds"), value(metrics.registry, "enforcing")) == shown


ALWAYS, NEVER_NOW = Window("* * * * *", MINUTE, UTC), Window("0 0 29 2 *", 1e-9, UTC)


@pytest.mark.parametrize(
    ("policy", "open_"),
    {
        "no policy": (None, 0),
        "no windows": (ENFORCE, 1),
        "a window that is open": (replace(ENFORCE, windows=(NEVER_NOW, ALWAYS)), 1),
        "a window that is not": (replace(ENFORCE, windows=(NEVER_NOW,)), 0),
    }.values(),
)
def test_whether_a_window_is_open_is_shown_as_it_is_when_somebody_asks(policy: Policy | None, open_: int) -> None:
    metrics = Metrics()
    metrics.show_order(policy, 60)
    assert value(metrics.registry, "window_open") == open_


def test_a_node_whose_policy_went_runs_no_generation_and_shows_the_cache_as_it_was() -> None:
    metrics = Metrics()
    metrics.count_pass(report(row(0)), DISK)
    metrics.policy_generation.set(7)
    metrics.show_order(None, 2400)
    assert value(metrics.registry, "policy_generation_applied") == 0
    assert value(metrics.registry, "cache_files", state="kept") == 1


# All of it


def judged() -> st.SearchStrategy[tuple[Verdict, Reason]]:
    return st.sampled_from([(verdict, reason) for verdict, reasons in REASONS.items() for reason in sorted(reasons)])


rows = st.builds(
    lambda verdict_and_reason, **more: row(0, *verdict_and_reason, **more),
    judged(),
    kind=st.sampled_from(Kind),
    bytes=st.integers(0, 2**40),
    action=st.none() | st.sampled_from(Action),
    entry=st.none() | st.just("entry"),
)


@given(st.lists(rows), st.lists(rows))
def test_sums_add_up_whatever_a_pass_finds(before: Sequence[Row], now: Sequence[Row]) -> None:
    made = report(*now)
    found = counted(report(*before), made)
    gone = (Action.QUARANTINED, Action.PURGED)
    lying = [item for item in now if item.entry is None and item.action not in gone]
    assert total(found, "cache_files") == total(found, "files") == len(lying)
    assert total(found, "cache_bytes") == sum(item.bytes for item in lying)
    assert value(found, "reclaimable_bytes") == value(found, "cache_bytes", state="removable") == made.reclaimable
    ours = {"Keep": "kept", "Foreign": "foreign"}
    for verdict, state in ours.items():
        by_reason = [value(found, "files", verdict=verdict, reason=reason) or 0 for reason in Reason]
        assert sum(by_reason) == value(found, "cache_files", state=state)


CLOSED: dict[str, tuple[str, Sequence[str]]] = {
    "passes_total": ("outcome", list(Outcome)),
    "observe_duration_seconds_count": ("source", list(Part)),
    "removed_files_total": ("kind", [kind for kind in Kind if kind is not Kind.FOREIGN]),
    "purged_bytes_total": ("kind", [kind for kind in Kind if kind is not Kind.FOREIGN]),
    "skipped_files_total": ("reason", sorted(AGAINST)),
    "failed_files_total": ("reason", list(Failure)),
    "cache_files": ("state", list(CacheState)),
    "holds": ("reason", sorted(HOLD_REASONS)),
    "breaker_open": ("cause", sorted(ANOMALIES)),
}


@pytest.mark.parametrize("name", CLOSED)
def test_what_has_not_happened_yet_is_counted_as_none(name: str) -> None:
    found = Metrics().registry
    label, values = CLOSED[name]
    assert [value(found, name, **{label: item}) for item in values] == [0.0] * len(values)
    assert total(found, name) == 0


def test_a_restored_file_can_be_told_from_one_that_was_only_drained() -> None:
    found = Metrics().registry
    assert value(found, "restored_files_total", kind="Swap", reason="Draining") == 0
    assert value(found, "restored_files_total", kind="Original", reason="LockedByQemu") == 0


def test_before_the_first_pass_nothing_is_said_of_libvirt() -> None:
    assert math.isnan(value(Metrics().registry, "libvirt_reachable") or 0)


def test_no_metric_has_a_label_of_a_node_a_file_or_an_image() -> None:
    metrics = Metrics()
    metrics.count_request("GET", "200")
    metrics.count_pass(report(row()), DISK)
    labels = {label for metric in metrics.registry.collect() for sample in metric.samples for label in sample.labels}
    assert labels == {
        "outcome", "phase", "source", "kind", "reason", "verdict", "state", "method", "code", "version", "le", "cause",
    }  # fmt: skip
