"""Bases that were cached beforehand: what was never seen in use waits longer, and what was fetched anew is new."""

import os
from pathlib import Path

import pytest

from lab.nova_tree import DAY, NovaTree

from .cli import ENFORCE, Basekeeper

INSTANCE = "0f3c0000-0000-4000-8000-000000000001"
PATIENT = {**ENFORCE, "minimumAge": {"original": "0s", "neverUsed": "1000h"}}


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


def evidence(keeper: Basekeeper, base: Path) -> list[str]:
    """What `explain` says for and against a base."""
    lines: list[str] = keeper.ask("explain", base.name, spec=PATIENT).document["items"][0]["evidence"]
    return lines


def test_a_base_that_was_used_once_goes_by_its_own_age_and_one_that_never_was_waits(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    cached, used = (tree.add_base(name, age=30 * DAY, seed=seed) for seed, name in enumerate(("cached", "used"), 1))
    disk = tree.add_overlay(INSTANCE, str(used))
    assert keeper.run(PATIENT).verdict(used) == "Keep(InUseByOverlay)"
    disk.unlink()

    answer = keeper.run(PATIENT)
    assert answer.verdict(used) == "Remove(Expired) Quarantined"
    assert answer.verdict(cached) == "Keep(TooYoung)"
    assert answer.file(cached)["message"].endswith("as it was never seen in use")
    assert "never seen in use" in evidence(keeper, cached)


@pytest.mark.parametrize("by", ["basekeeper", "nova"])
def test_a_base_that_is_fetched_anew_after_its_removal_was_never_seen_in_use(
    tree: NovaTree, keeper: Basekeeper, by: str
) -> None:
    base = tree.add_base("image", age=30 * DAY)
    disk = tree.add_overlay(INSTANCE, str(base))
    keeper.run(PATIENT)
    disk.unlink()
    if by == "basekeeper":
        assert keeper.run(PATIENT).verdict(base) == "Remove(Expired) Quarantined"
    else:
        os.rename(base, base.with_name("elsewhere"))  # so that its inode is not given to the next file
    base = tree.add_base("image", age=20 * DAY)

    assert keeper.run(PATIENT).verdict(base) == "Keep(TooYoung)"
    assert "this file was never seen in use" in evidence(keeper, base)
