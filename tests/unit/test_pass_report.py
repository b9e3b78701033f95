"""What a whole pass says of its acts: each file that it set out to remove or purge comes out of it once."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.agent.metrics import Metrics
from basekeeper.cache import clock, engine, quarantine
from basekeeper.cache.acts import Action, Failure
from basekeeper.cache.evidence import Part
from basekeeper.cache.memory import Clock
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Drain, Host, Limits, MinimumAge, Mode, Policy
from basekeeper.cache.verdicts import Reason, Verdict
from tests.unit.judging import original

AT_ONCE = MinimumAge(original=0.0, resized=0.0, swap=0.0, ephemeral=0.0, partial=0.0)
LIMITS = Limits(max_percent=100)
ENFORCE = Policy(mode=Mode.ENFORCE, minimum_age=AT_ONCE, limits=LIMITS)
SIZE = 8192
Bases = list[Path]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    instances = tmp_path / "instances"
    for path in (instances / "_base", instances / "locks"):
        path.mkdir(parents=True)
    return Host(
        "node", instances, instances / "_base", instances / "snapshots", tmp_path / "state", None, spawn_grace=0.0
    )


@pytest.fixture
def bases(host: Host) -> Bases:
    """Four bases that nothing needs, the first one the longest."""
    made = [host.base / original(number).decode() for number in range(4)]
    for number, path in enumerate(made):
        path.write_bytes(bytes([number + 1]) * SIZE)
        os.utime(path, (1e9 + number, 1e9 + number))
    return made


def run(host: Host, policy: Policy, before: Callable[[str, int], None] = lambda _what, _at: None) -> Report:
    """A pass; `before` is told of each act."""
    return engine.run(host, policy, lambda what, at, _of: before(what, at))


def bytes_of(report: Report, *actions: Action) -> int:
    return sum(row.bytes for row in report.rows if row.action in actions)


def test_what_a_pass_set_out_to_do_is_what_it_did(host: Host, bases: Bases) -> None:
    report = run(host, ENFORCE)
    assert report.target == bytes_of(report, Action.QUARANTINED) == len(bases) * SIZE
    again = run(host, ENFORCE)
    assert (again.target, again.rows, again.quarantined_files) == (0, (), len(bases))


def test_purges_are_part_of_it_and_limits_are_not(host: Host, bases: Bases) -> None:
    assert run(host, replace(ENFORCE, limits=replace(LIMITS, max_files=1))).target == SIZE
    ((entry,), _) = quarantine.read(host.base)
    sidecar = quarantine.directory(host.base) / entry.id / quarantine.SIDECAR
    sidecar.write_text(sidecar.read_text().replace(f'"dueAt": {entry.due_at}', f'"dueAt": {entry.removed_at}'))

    report = run(host, replace(ENFORCE, limits=replace(LIMITS, max_files=2), retention=0.0))
    assert report.target == bytes_of(report, Action.PURGED) == report.reclaimed == 3 * SIZE
    assert (len(report.removed), len(report.going)) == (2, 1)


@pytest.mark.parametrize(
    "policy",
    [replace(ENFORCE, mode=Mode.AUDIT), replace(ENFORCE, suspend=True), replace(ENFORCE, drain=Drain.RESTORE)],
    ids=["Audit", "suspended", "draining"],
)
def test_a_pass_that_removes_nothing_sets_out_to_remove_nothing(host: Host, bases: Bases, policy: Policy) -> None:
    report = run(host, policy)
    assert (report.target, report.removed, len(report.left)) == (0, (), len(bases))


def test_what_is_skipped_and_what_fails_is_part_of_it(
    host: Host, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = quarantine.put

    def fail(base: Path, file: object, **how: object) -> object:
        if str(file.name) == bases[1].name:  # type: ignore[attr-defined]
            raise OSError(errno.EROFS, "Read-only file system")
        return put(base, file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(quarantine, "put", fail)

    def touch_the_third(what: str, at: int) -> None:
        if (what, at) == ("removing", 3):
            os.utime(bases[2])

    report = run(host, ENFORCE, touch_the_third)
    acts = {row.name: (row.action, row.failure) for row in report.cached}
    assert acts == {
        bases[0].name: (Action.QUARANTINED, None),
        bases[1].name: (Action.FAILED, Failure.READ_ONLY),
        bases[2].name: (Action.SKIPPED, None),
        bases[3].name: (Action.QUARANTINED, None),
    }
    assert report.target == bytes_of(report, *Action) == 4 * SIZE

    metrics = Metrics()
    metrics.count_pass(report, None)
    found = metrics.registry.get_sample_value
    assert found("basekeeper_failed_files_total", {"reason": "ReadOnly"}) == 1
    assert found("basekeeper_skipped_files_total", {"reason": "UserAppeared"}) == 1
    assert found("basekeeper_removed_bytes_total", {"kind": "Original"}) == 2 * SIZE
    assert found("basekeeper_cache_files", {"state": "removable"}) == found("basekeeper_cache_files", {"state": "kept"})


def test_what_failed_and_what_was_skipped_has_not_vanished(
    host: Host, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync may fail after the rename: where the file is, the next look tells."""
    settle = quarantine.settle

    def fail(base: Path, entry: object) -> None:
        settle(base, entry)  # type: ignore[arg-type]
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(quarantine, "settle", fail)
    failed = run(host, replace(ENFORCE, limits=replace(LIMITS, max_files=1)))
    assert [row.failure for row in failed.cached if row.action is Action.FAILED] == [Failure.INPUT_OUTPUT]
    monkeypatch.undo()
    purge = replace(ENFORCE, drain=Drain.PURGE)
    assert [run(host, purge).vanished, run(host, purge).vanished] == [(), ()]
    assert (quarantine.read(host.base)[0], len(list(host.base.glob("?*[0-9a-f]")))) == ((), 3)


def test_the_parts_of_the_observation_add_up_to_it(host: Host, bases: Bases) -> None:
    seconds = run(host, ENFORCE).seconds
    assert seconds.by_part.keys() == set(Part)
    assert 0 < sum(seconds.by_part.values()) <= seconds.observe + 1e-6
    assert all(spent >= 0 for spent in seconds.by_part.values())


def test_whatever_stops_everything_late_is_told_as_a_hold(
    host: Host, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look after the rename finds the clock gone wild: that holds the file, it is no reason to keep it."""
    read = clock.read

    def ahead() -> Clock:
        return replace(read(), wall=read().wall + 1e6)

    def jump(what: str, at: int) -> None:
        if (what, at) == ("removing", 1):
            (host.instances / "0f3c0000-0000-4000-8000-000000000001").mkdir()
            monkeypatch.setattr(clock, "read", ahead)

    run(host, Policy())
    report = run(host, replace(ENFORCE, limits=replace(LIMITS, max_files=1)), jump)
    assert {row.verdict for row in report.cached} == {Verdict.HOLD}
    assert {row.reason for row in report.cached} <= {Reason.CLOCK_JUMPED, Reason.LIMIT_REACHED}
