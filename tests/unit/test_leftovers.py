"""Directories without a domain: found by the walk alone, and measured when somebody tells of them."""

import shutil
from pathlib import Path

from basekeeper.cache import leftovers
from basekeeper.cache.evidence import Ownerless, Usage
from basekeeper.cache.machines import Machines
from basekeeper.cache.settings import Host
from basekeeper.cache.tree import Tree
from lab.nova_tree import NovaTree


def found_in(tree: NovaTree, *, meanwhile: bool = False) -> tuple[Ownerless, ...]:
    """What is found after a walk; the directories may be deleted between both."""
    path = tree.instances_path
    host = Host(
        node="n",
        instances=path,
        base=tree.base_dir,
        snapshots=path / "snapshots",
        state=path.parent / "state",
        libvirt="test:///default",
    )
    walked = Tree(host)
    walked.walk()
    if meanwhile:
        shutil.rmtree(path)
    found = leftovers.find(host, walked, Machines(host, ()))
    assert found is not None
    return found


def test_they_are_found_without_a_second_look_at_the_disk(tmp_path: Path) -> None:
    tree = NovaTree(tmp_path / "instances")
    (tree.instance("a_del") / "nested").mkdir()
    (one,) = found_in(tree, meanwhile=True)
    assert (one.path, len(one.directories)) == ("a_del", 2)
    (left,) = leftovers.measured(Usage(ownerless=(one,))) or ()
    assert (left.path, left.changed_at, left.bytes) == ("a_del", one.changed_at, 0)


def test_what_is_told_is_what_lies_there_when_it_is_told(tmp_path: Path) -> None:
    tree = NovaTree(tmp_path / "instances")
    nested = tree.instance("a_del") / "nested"
    nested.mkdir()
    usage = Usage(ownerless=found_in(tree))
    (before,) = leftovers.measured(usage) or ()
    (nested / "disk").write_bytes(b"x" * 65536)
    (after,) = leftovers.measured(usage) or ()
    assert after.bytes >= before.bytes + 65536
    assert after.changed_at >= before.changed_at


def test_where_domains_are_not_known_nothing_is_measured() -> None:
    assert leftovers.measured(Usage()) is None
