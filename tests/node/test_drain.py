"""Before an uninstall: a policy empties the quarantine, into the cache or for good, and removes nothing meanwhile."""

from pathlib import Path
from typing import Any

import pytest

from lab.nova_tree import DAY, HOUR, NovaTree, image_file_name

from .cli import ENFORCE, Answer, Basekeeper

MONTH = 30 * DAY
INSTANCE = "0f3c0000-0000-4000-8000-000000000001"


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


@pytest.fixture
def removed(tree: NovaTree, keeper: Basekeeper) -> list[Path]:
    """Three files that a pass removed a moment ago, and a fourth that could go since."""
    bases = [tree.add_base(f"unused-{number}", age=MONTH, seed=number + 1) for number in range(3)]
    assert keeper.run().document["outcome"] == "Acted"
    assert not any(base.exists() for base in bases)
    tree.add_base("unused-later", age=MONTH, seed=9)
    return bases


def emptying(how: str, **more: Any) -> dict[str, Any]:
    return {**ENFORCE, "quarantine": {"drain": how}, **more}


def contents(tree: NovaTree) -> list[str]:
    """What is in the quarantine, side-cars and empty directories included."""
    return sorted(path.name for path in tree.base_dir.glob(".basekeeper/quarantine/**/*"))


def quarantined(answer: Answer) -> int:
    return int(answer.document["totals"]["quarantinedBytes"])


@pytest.mark.parametrize("more", [{}, {"suspend": True}], ids=["enforcing", "suspended"])
def test_everything_goes_back_and_its_age_starts_anew(
    tree: NovaTree, keeper: Basekeeper, removed: list[Path], more: dict[str, Any]
) -> None:
    later = tree.base_dir / image_file_name("unused-later")
    before = {base.name for base in removed}
    answer = keeper.run(emptying("Restore", **more))
    assert [answer.verdict(base) for base in removed] == ["Keep(Draining) Restored"] * 3
    assert answer.verdict(later) == ("Hold(Suspended)" if more else "Hold(Draining)")
    assert (answer.status, quarantined(answer), contents(tree)) == (3, 0, [])
    assert all(base.exists() for base in [*removed, later])

    again = keeper.run()
    assert {row["name"] for row in again.document["files"] if row["reason"] == "TooYoung"} == before
    assert all(again.file(base)["ageSeconds"] < HOUR for base in removed)
    assert (again.verdict(later), later.exists()) == ("Remove(Expired) Quarantined", False)


def test_everything_is_purged_but_what_is_needed_which_goes_back(
    tree: NovaTree, keeper: Basekeeper, removed: list[Path]
) -> None:
    wanted = removed[0]
    tree.add_overlay(INSTANCE, str(wanted))
    answer = keeper.run(emptying("Purge"))
    assert answer.verdict(wanted) == "Keep(InUseByOverlay) Restored"
    assert {answer.verdict(base) for base in removed[1:]} == {"Remove(Draining) Purged"}
    assert (quarantined(answer), contents(tree)) == (0, [])
    assert answer.document["totals"]["reclaimedBytes"] > 0
    assert (tree.base_dir / image_file_name("unused-later")).exists()


def test_nothing_is_purged_while_anything_is_unknown(tree: NovaTree, keeper: Basekeeper, removed: list[Path]) -> None:
    disk = tree.instance(INSTANCE) / "disk"
    disk.write_bytes(b"QFI\xfb" + bytes(3))  # a header that ends too soon
    tree.age(disk, DAY)
    answer = keeper.run(emptying("Purge"))
    assert ("UnknownUsage", f"{INSTANCE}/disk") in answer.holds
    assert {answer.verdict(base) for base in removed} == {"Hold(UnknownUsage)"}
    assert {path.name for path in removed} <= set(contents(tree))
    given_back = keeper.run(emptying("Restore"))
    assert (quarantined(given_back), contents(tree)) == (0, [])


def test_what_another_file_has_the_name_of_stays_until_it_is_due(
    tree: NovaTree, keeper: Basekeeper, removed: list[Path]
) -> None:
    newer = removed[0]
    tree.add_base("unused-0", age=0, seed=7)
    content = newer.read_bytes()
    for _ in range(2):
        assert quarantined(keeper.run(emptying("Restore"))) > 0
        assert newer.read_bytes() == content
        assert contents(tree).count(newer.name) == 1
    assert (quarantined(keeper.run(emptying("Purge"))), newer.read_bytes()) == (0, content)


def test_a_plan_says_what_would_go_back_and_changes_nothing(
    tree: NovaTree, keeper: Basekeeper, removed: list[Path]
) -> None:
    before = contents(tree)
    answer = keeper.plan(emptying("Restore"))
    assert {answer.verdict(base) for base in removed} == {"Keep(Draining)"}
    assert (answer.document["outcome"], contents(tree)) == ("Planned", before)


def test_in_audit_no_policy_empties_anything(keeper: Basekeeper, removed: list[Path]) -> None:
    answer = keeper.run(emptying("Restore", mode="Audit"))
    assert (answer.status, "quarantine.drain" in answer.stderr) == (2, True)
    assert not any(base.exists() for base in removed)
