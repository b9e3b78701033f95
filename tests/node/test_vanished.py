"""Files that another hand removes are told of once; what basekeeper does itself, or cannot see, is not taken for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.nova_tree import DAY, NovaTree
from tests.node.cli import Answer, Basekeeper
from tests.node.passes import AT_ONCE
from tests.node.window import Window

AUDIT = {"mode": "Audit"}
YOUNG = {"mode": "Enforce"}
"""Removes nothing yet: every file of these tests is young."""


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    """Looks at the tree, with a ledger of its own."""
    return Basekeeper(tree, tmp_path / "state")


@pytest.fixture
def bases(tree: NovaTree) -> list[Path]:
    """Three finished files and one on its way."""
    tree.add_base("three", suffix=".part")
    return [tree.add_base("one"), tree.add_base("two", suffix="_20"), tree.add_swap(1)]


def told(answer: Answer) -> list[str]:
    """What a pass says of files that vanished."""
    assert answer.status in {0, 3}, answer
    return [note["message"] for note in answer.document["notes"] if note["about"] == "FilesVanished"]


@pytest.mark.parametrize("spec", [AUDIT, YOUNG], ids=["Audit", "Enforce"])
def test_what_another_hand_removes_between_two_passes_is_told_once(
    keeper: Basekeeper, bases: list[Path], spec: dict[str, str]
) -> None:
    assert told(keeper.run(spec)) == []
    for base in bases:
        base.unlink()
    for answer in (keeper.ask("plan", spec=spec), keeper.run(spec)):
        (message,) = told(answer)
        assert message.startswith("3 finished files are gone")
        assert all(base.name in message for base in bases)
    assert told(keeper.run(spec)) == []


def test_a_leftover_that_goes_is_no_loss(keeper: Basekeeper, tree: NovaTree, bases: list[Path]) -> None:
    keeper.run(YOUNG)
    tree.add_base("three")
    for leftover in tree.base_dir.glob("*.part"):
        leftover.unlink()
    assert told(keeper.run(YOUNG)) == []


@pytest.mark.parametrize("retention", ["1h", "0s"])
def test_what_a_pass_removes_itself_is_no_loss(keeper: Basekeeper, bases: list[Path], retention: str) -> None:
    keeper.run(YOUNG)
    spec = {**AT_ONCE, "quarantine": {"retention": retention}}
    removed = keeper.run(spec)
    assert not any(base.exists() for base in bases)
    assert told(removed) == told(keeper.run(spec)) == []


def test_what_a_person_restores_and_purges_with_it_is_no_loss(
    keeper: Basekeeper, tree: NovaTree, bases: list[Path]
) -> None:
    keeper.run(AT_ONCE)
    assert keeper.ask("quarantine", "restore", bases[0].name).status == 0
    assert told(keeper.run(AT_ONCE)) == []
    assert keeper.ask("quarantine", "purge", bases[1].name).status == 0
    assert told(keeper.run(AT_ONCE)) == []
    bases[0].unlink()
    assert len(told(keeper.run(AT_ONCE))) == 1


def test_what_goes_while_a_pass_is_under_way_is_told_by_the_next_one(
    keeper: Basekeeper, tree: NovaTree, bases: list[Path]
) -> None:
    keeper.run(YOUNG)
    tree.age(bases[0], DAY)
    window = Window(keeper, {**AT_ONCE, "limits": {"maxFiles": 1, "maxPercent": 100}})
    with window.before_the_rename(bases[0]):
        bases[1].unlink()
    assert (told(window.answer), bases[0].exists()) == ([], False)
    (message,) = told(keeper.run(YOUNG))
    assert message.startswith(f"1 finished file is gone, and basekeeper did not remove what was there: {bases[1].name}")


@pytest.mark.parametrize("adopted", [False, True], ids=["left so", "adopted"])
def test_other_directories_say_nothing_of_what_lay_in_the_old_ones(
    keeper: Basekeeper, tree: NovaTree, bases: list[Path], tmp_path: Path, *, adopted: bool
) -> None:
    keeper.run(YOUNG)
    tree.base_dir.rename(tmp_path / "old")
    tree.base_dir.mkdir()
    if adopted:
        subprocess.run(keeper.command("adopt"), check=True)
    answers = [keeper.run(YOUNG), keeper.run(YOUNG)]
    assert [note for answer in answers for note in answer.document["notes"] if note["about"] == "FilesVanished"] == []


def test_a_cache_that_is_away_for_a_while_has_lost_nothing(
    keeper: Basekeeper, tree: NovaTree, bases: list[Path], tmp_path: Path
) -> None:
    """Seen by a node in Audit too, which has no id of its directories."""
    keeper.run(AUDIT)
    tree.base_dir.rename(tmp_path / "away")
    assert told(keeper.run(AUDIT)) == []
    shutil.move(tmp_path / "away", tree.base_dir)
    assert told(keeper.run(AUDIT)) == []
    bases[0].unlink()
    assert len(told(keeper.run(AUDIT))) == 1


def test_a_cache_that_was_copied_elsewhere_begins_anew(keeper: Basekeeper, tree: NovaTree, bases: list[Path]) -> None:
    keeper.run(AUDIT)
    copy = tree.base_dir.with_name("copy")
    shutil.copytree(tree.base_dir, copy)
    shutil.rmtree(tree.base_dir)
    copy.rename(tree.base_dir)
    bases[0].unlink()
    assert told(keeper.run(AUDIT)) == []
    bases[1].unlink()
    assert len(told(keeper.run(AUDIT))) == 1
