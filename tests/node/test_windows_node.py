"""Maintenance windows on real files and by the real clock: what waits for one, and what happens when one closes."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.nova_tree import DAY, NovaTree

from .cli import ENFORCE, Basekeeper
from .window import Window, wait_until

INSTANCE = "0f3c0000-0000-4000-8000-000000000001"


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


def since_this_minute(seconds: float) -> dict[str, Any]:
    """A policy whose only window opened with this minute of the day, and closes so many seconds from now."""
    now = datetime.now(UTC)
    length = now.second + now.microsecond / 1e6 + seconds
    return windows({"schedule": f"{now.minute} {now.hour} * * *", "duration": f"{length * 1000:.0f}ms"})


def not_today() -> dict[str, Any]:
    """A policy whose only window opened twelve hours ago for an hour."""
    then = datetime.now(UTC) - timedelta(hours=12)
    return windows({"schedule": f"{then.minute} {then.hour} * * *", "duration": "1h"})


def windows(*given: dict[str, Any]) -> dict[str, Any]:
    return {**ENFORCE, "maintenanceWindows": list(given)}


def test_outside_its_windows_a_policy_removes_and_purges_nothing_and_says_when_it_will(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    waiting = tree.add_base("unused-waiting", age=30 * DAY, seed=2)
    keeper.run({**ENFORCE, "quarantine": {"retention": "1s"}})
    base = tree.add_base("unused", age=30 * DAY, seed=3)
    time.sleep(1)

    for answer in (keeper.plan(not_today()), keeper.run(not_today())):
        assert answer.verdict(base) == "Hold(OutsideWindow)"
        opens = datetime.fromisoformat(answer.document["window"]["opensAt"])
        assert 11 * 3600 < (opens - datetime.now(UTC)).total_seconds() <= 12 * 3600
        assert answer.document["window"]["open"] is False
        assert answer.document["window"]["opensAt"] in answer.document["holds"][0]["message"]
        assert (answer.status, answer.holds) == (3, [("OutsideWindow", None)])
    assert base.exists()
    assert list(tree.base_dir.glob(f".basekeeper/quarantine/{waiting.name}*"))
    explained = keeper.ask("explain", base.name, spec=not_today()).document["items"][0]
    assert explained["reason"] == "OutsideWindow"
    assert "when the next window opens" in explained["whatNext"]

    inside = keeper.run(since_this_minute(30))
    assert inside.verdict(base) == "Remove(Expired) Quarantined"
    assert inside.document["window"]["open"] is True
    assert not list(tree.base_dir.glob(f".basekeeper/quarantine/{waiting.name}*"))


def test_what_is_needed_goes_back_outside_every_window(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("needed", age=30 * DAY)
    assert keeper.run().verdict(base) == "Remove(Expired) Quarantined"
    tree.add_overlay(INSTANCE, str(base))
    assert keeper.run(not_today()).verdict(base) == "Keep(InUseByOverlay) Restored"
    assert base.exists()


def test_a_quarantined_file_is_not_purged_by_hand_outside_the_windows_of_the_policy_that_is_given(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    base = tree.add_base("unused", age=30 * DAY)
    keeper.run()
    refused = keeper.ask("quarantine", "purge", base.name, spec=not_today())
    assert refused.document["items"][0]["verdict"] == "Hold"
    assert "no maintenance window is open" in refused.document["items"][0]["message"]
    assert keeper.ask("quarantine", "purge", base.name).document["items"][0]["action"] == "Purged"


def test_a_pass_stops_between_two_files_when_its_window_closes(tree: NovaTree, keeper: Basekeeper) -> None:
    first = tree.add_base("oldest", age=60 * DAY, seed=1)
    second = tree.add_base("younger", age=30 * DAY, seed=2)
    spec = since_this_minute(4)
    closes = time.time() + 4
    window = Window(keeper, spec)
    with window.after_the_rename(first):
        assert time.time() < closes, "this machine is too slow for a window of four seconds"
        wait_until(lambda: time.time() > closes)
    assert window.verdict(first) == "Remove(Expired) Quarantined"
    assert window.verdict(second) == "Hold(OutsideWindow) Skipped"
    assert (window.answer.status, second.exists(), first.exists()) == (3, True, False)
    assert window.answer.document["files"][-1]["message"].startswith("no maintenance window is open")
