"""One host's part in a shared cache: rounds, the lock, the number by which a leader that hung is stopped."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.cache import answering, coordination, engine, quarantine
from basekeeper.cache.acts import Action
from basekeeper.cache.hosts import Round
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Host, Limits, MinimumAge, Mode, Policy, SharedStorageMode
from basekeeper.cache.share import Share
from lab.nova_tree import DAY, NovaTree

POLICY = Policy(
    mode=Mode.ENFORCE,
    minimum_age=MinimumAge(0, 0, 0, 0, 0),
    limits=Limits(max_percent=100),
    retention=0.0,
    shared_storage=SharedStorageMode.COORDINATE,
)
IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
Hook = Callable[[], None]


@pytest.fixture
def tree(tmp_path: Path) -> NovaTree:
    made = NovaTree(tmp_path / "instances")
    for name in "ab":
        made.register_host(name)
    return made


def host(tree: NovaTree, name: str) -> Host:
    at = tree.instances_path
    state = at.parent / name
    return Host(f"node-{name}", at, tree.base_dir, at / "snapshots", state, None, nova_host=name, spawn_grace=0.0)


def run(tree: NovaTree, name: str, *hooks: tuple[str, Hook], policy: Policy = POLICY) -> Report:
    """A pass of one host; each hook is called when the pass comes to what it names."""

    def progress(what: str, _at: int, _of: int) -> None:
        for wanted, hook in hooks:
            if what == wanted:
                hook()

    return engine.run(host(tree, name), policy, progress)


def answers(tree: NovaTree, *names: str, policy: Policy = POLICY) -> tuple[str, Hook]:
    """Let these hosts answer whenever the leader waits, as their agents would."""

    def hook() -> None:
        for name in names:
            if answering.is_asked(host(tree, name), policy):
                answering.answer(host(tree, name), policy)

    return "waiting for the answers of other hosts", hook


def action(report: Report, base: Path) -> Action | None:
    return next(row.action for row in report.rows if row.name == base.name)


def message(report: Report, base: Path) -> str:
    return next(row.message for row in report.rows if row.name == base.name)


def test_a_leader_removes_by_two_rounds_and_purges_by_two_more(tree: NovaTree) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    asked: list[int] = []
    share = Share(host(tree, "a"))
    watch = ("looking", lambda: asked.append(getattr(share.round(), "number", 0)))
    assert action(run(tree, "a", answers(tree, "b"), watch), base) is Action.QUARANTINED  # retention: 0s
    entry = quarantine.read(tree.base_dir)[0][0]
    assert (asked, entry.round) == ([2], 2)
    assert action(run(tree, "a", answers(tree, "b"), watch), base) is Action.PURGED
    assert asked == [2, 4]


def test_without_an_answer_nothing_goes_and_nobody_waits_for_a_host_that_was_silent_before(tree: NovaTree) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    began = time.monotonic()
    report = run(tree, "a")
    assert "host b has not answered round 1" in message(report, base)
    assert time.monotonic() - began < coordination.PATIENCE / 2
    assert base.exists()


def test_an_answer_to_the_first_round_alone_is_not_enough(tree: NovaTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordination, "PATIENCE", 0.5)
    monkeypatch.setattr(coordination, "MINUTE", 0.5)
    base = tree.add_base(IMAGE, age=30 * DAY)
    count: list[int] = []

    def once() -> None:
        if not count and answering.is_asked(host(tree, "b"), POLICY):
            answering.answer(host(tree, "b"), POLICY)
            count.append(1)

    report = run(tree, "a", ("waiting for the answers of other hosts", once))
    assert "host b has not answered round 2" in message(report, base)
    assert base.exists()


def takes_over(tree: NovaTree) -> Hook:
    """The lock is lost, as when a file server takes it from a client that hangs, and another host leads."""

    def hook() -> None:
        share = Share(host(tree, "b"))
        latest = share.round()
        assert latest is not None
        (share.directory / "leader.lock").unlink()
        share.open_round(Round(latest.number + 1, "b", "instance of b"))

    return hook


@pytest.mark.parametrize("at", ["looking again", "removing"])
def test_a_leader_that_hung_while_another_took_over_is_stopped_by_its_number(tree: NovaTree, at: str) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    report = run(tree, "a", answers(tree, "b"), (at, takes_over(tree)))
    assert base.exists()
    assert "another took it for dead" in message(report, base)


def test_a_leader_that_hung_between_its_last_question_and_the_rename_puts_back_what_it_moved(
    tree: NovaTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    put = quarantine.put

    def late(*given: object, **named: object) -> object:
        takes_over(tree)()
        return put(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(quarantine, "put", late)
    report = run(tree, "a", answers(tree, "b"))
    assert (action(report, base), base.exists()) == (Action.SKIPPED, True)
    assert "another took it for dead" in message(report, base)


def test_a_leader_that_hung_purges_nothing(tree: NovaTree) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    run(tree, "a", answers(tree, "b"))
    report = run(tree, "a", answers(tree, "b"), ("purging", takes_over(tree)))
    assert action(report, base) is Action.SKIPPED
    assert len(quarantine.read(tree.base_dir)[0]) == 1


def test_answers_that_are_ten_minutes_old_are_acted_upon_no_more(
    tree: NovaTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    late = ("removing", lambda: monkeypatch.setattr(coordination, "GOOD_FOR", 0.0))
    report = run(tree, "a", answers(tree, "b"), late)
    assert base.exists()
    assert "the answers to round 2 are older than" in message(report, base)


def test_a_round_whose_file_was_lost_gets_no_number_twice(tree: NovaTree) -> None:
    tree.add_base(IMAGE, age=30 * DAY)
    run(tree, "a", answers(tree, "b"))
    share = Share(host(tree, "a"))
    (share.directory / "round").unlink()
    run(tree, "a", answers(tree, "b"))
    latest = share.round()
    assert latest is not None
    assert latest.number > 2


def test_an_agent_leaves_the_lead_to_whoever_has_it_until_no_round_comes_for_long(tree: NovaTree) -> None:
    tree.add_base(IMAGE, age=30 * DAY)
    run(tree, "a", answers(tree, "b"))
    share = Share(host(tree, "b"))

    def leader() -> str:
        engine.run(host(tree, "b"), POLICY, lambda what, at, of: None, resident=True)
        latest = share.round()
        assert latest is not None
        return latest.host

    assert leader() == "a"
    then = time.time() - 2.5 * POLICY.interval - coordination.PATIENCE - 5
    os.utime(share.directory / "round", (then, then))
    assert leader() == "b"


def test_two_programs_under_one_name_are_noticed_and_hold(tree: NovaTree) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    run(tree, "a")
    other = replace(host(tree, "a"), state=tree.instances_path.parent / "another")
    engine.run(other, POLICY, lambda what, at, of: None)
    report = run(tree, "a", answers(tree, "b"))
    assert base.exists()
    assert Share(host(tree, "b")).heard()[0].evidence is not None
    troubles = Share(host(tree, "b")).heard()[0].evidence.troubles  # type: ignore[union-attr]
    assert any("another basekeeper publishes as host a too" in one.message for one in troubles), report


def test_another_host_s_purge_is_no_file_that_vanished(tree: NovaTree) -> None:
    tree.add_base(IMAGE, age=30 * DAY)
    run(tree, "b")  # sees it
    for _ in range(3):
        run(tree, "a", answers(tree, "b"))
    assert quarantine.read(tree.base_dir)[0] == ()
    assert run(tree, "b").vanished == ()
