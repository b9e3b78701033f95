"""Between passes: a disk that has become too full makes a pass at once, and a hopeless one makes no more of them."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.agent.disk_watch import DiskWatch
from basekeeper.cache.acts import Action
from basekeeper.cache.pressure import PressureState, Relief
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Host, Mode, Policy, Pressure
from basekeeper.cache.verdicts import Reason, Verdict
from tests.unit.judging import HOUR
from tests.unit.test_agent_status import report, row

EVERY = 30.0
ACTING = Policy(mode=Mode.ENFORCE, pressure=Pressure())


class Disk:
    """A file system of any fullness: what the kernel would say of a real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.percent = 10.0
        self.asked = 0
        self.watch = DiskWatch(Host("node-a", tmp_path, tmp_path, tmp_path, tmp_path), EVERY)
        real = os.statvfs(tmp_path)

        def statvfs(_path: object) -> os.statvfs_result:
            self.asked += 1
            free = round(10_000 * (100 - self.percent))
            given = {"f_blocks": 1_000_000, "f_bfree": free, "f_bavail": free, "f_frsize": 4096}
            return os.statvfs_result(tuple(given.get(name, getattr(real, name)) for name in FIELDS))

        monkeypatch.setattr(os, "statvfs", statvfs)

    def calls(self, *percents: float) -> list[bool]:
        """Whether each of these figures makes a pass, each a while after the one before."""
        called = []
        for percent in percents:
            self.percent = percent
            called.append(self.watch.calls(self._later()))
        return called

    def _later(self) -> float:
        return EVERY * 10 * (self.asked + 1)


FIELDS = (
    *("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_flag"),
    "f_namemax",
)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    return Disk(monkeypatch, tmp_path)


def found(state: PressureState, percent: float, *, acted: bool = False, next_at: float | None = None) -> Report:
    """What a pass found, and whether it did anything."""
    relief = Relief(state, "", percent, 0, 0, 0, evicting=True, next_at=next_at)
    rows = [row(0, Verdict.REMOVE, Reason.PRESSURE, action=Action.QUARANTINED)] if acted else []
    return report(*rows, relief=relief)


def test_a_disk_that_becomes_too_full_makes_a_pass_once(disk: Disk) -> None:
    disk.watch.passed(ACTING, found(PressureState.BELOW, 70))
    assert disk.calls(70, 84, 85, 85.2, 85.4, 86.0, 86.3, 87.5) == [False] * 3 + [True, False, False, True, True]
    assert disk.calls(70, 86) == [False, True]


def test_a_disk_that_no_pass_can_relieve_makes_another_only_when_its_figure_has_moved(disk: Disk) -> None:
    disk.watch.passed(ACTING, found(PressureState.NOT_OURS, 90))
    assert disk.calls(90, 90.9, 89.1, 91, 90.5) == [False, False, False, True, False]


def test_it_is_asked_about_no_more_often_than_told(disk: Disk) -> None:
    disk.watch.passed(ACTING, found(PressureState.BELOW, 70))
    for second in range(100):
        disk.watch.calls(1000.0 + second)
    assert disk.asked == 4


@pytest.mark.parametrize(
    "policy",
    [
        None,
        replace(ACTING, pressure=None),
        replace(ACTING, pressure=None, max_cache_bytes=1),
        replace(ACTING, mode=Mode.AUDIT),
        replace(ACTING, suspend=True),
    ],
    ids=["no policy", "no marks", "a budget only", "Audit", "suspend"],
)
def test_where_a_pass_would_make_no_room_the_disk_is_not_asked_about(disk: Disk, policy: Policy | None) -> None:
    disk.watch.passed(ACTING, found(PressureState.BELOW, 70))
    assert disk.watch.passed(policy, report()) is None
    assert disk.calls(99, 99) == [False, False]
    assert disk.asked == 0


def test_a_pass_that_made_room_is_followed_soon_by_the_next(disk: Disk) -> None:
    for state in (PressureState.PRESSURE, PressureState.OVER_BUDGET):
        assert disk.watch.passed(ACTING, found(state, 90, acted=True)) == EVERY
        assert disk.watch.passed(ACTING, found(state, 90)) is None
    assert disk.watch.passed(ACTING, found(PressureState.BELOW, 70, acted=True)) is None
    assert disk.watch.passed(replace(ACTING, mode=Mode.AUDIT), found(PressureState.PRESSURE, 90, acted=True)) is None


def test_when_there_will_be_more_to_do_the_next_pass_comes(disk: Disk) -> None:
    soon = disk.watch.passed(ACTING, found(PressureState.PRESSURE, 90, next_at=time.time() + HOUR))
    assert soon == pytest.approx(HOUR, abs=60)
    assert disk.watch.passed(ACTING, found(PressureState.PRESSURE, 90, next_at=time.time() - HOUR)) == EVERY
