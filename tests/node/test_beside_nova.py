"""Beside nova, on real directories and a real libvirt: leftovers are told, bases in use touched, and who does what."""

import os
import time
import uuid
from pathlib import Path

import pytest

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import DAY, HOUR, NovaTree
from tests.node.cli import ENFORCE, Basekeeper

TOUCH = {**ENFORCE, "touchInUse": True}


def age_of(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def define(node: ComputeNode, tree: NovaTree, base: Path) -> str:
    """An instance of nova's with a domain, whose root disk is built on a base; its id."""
    instance = str(uuid.uuid4())
    disk = tree.add_overlay(instance, base)
    metadata = NovaMetadata(image=str(uuid.uuid4()))
    node.define(domain_xml(f"instance-{instance[:8]}", uuid=instance, disks=[Disk(disk)], metadata=metadata))
    return instance


@pytest.fixture
def keeper(node: ComputeNode, tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state", libvirt=node.read_only_uri, more=("--nova-host", "node-a"))


def orphans(keeper: Basekeeper, *words: str) -> dict[str, dict[str, object]]:
    """What the command lists, by directory."""
    answer = keeper.ask("orphans", "--older-than", "0s", *words)
    assert answer.status == 0, answer.stderr
    return {item["path"]: item for item in answer.document["items"]}


def test_directories_without_a_domain_are_listed_with_the_bases_that_they_alone_keep(
    node: ComputeNode, tree: NovaTree, keeper: Basekeeper
) -> None:
    shared, alone, both = (tree.add_base(name, age=9 * DAY) for name in ("shared", "alone", "both"))
    living = define(node, tree, shared)
    for name, bases in {"left_del": (shared, alone, both), "other": (both,)}.items():
        for number, base in enumerate(bases):
            tree.add_overlay(name, base, disk=f"disk.eph{number}")
    found = orphans(keeper)
    assert set(found) == {"left_del", "other"}
    assert (found["left_del"]["kind"], found["other"]["kind"]) == ("Deleted", "Instance")
    assert found["left_del"]["bases"] == sorted(base.name for base in (shared, alone, both))
    assert (found["left_del"]["alone"], found["other"]["alone"]) == ([alone.name], [])
    directory = tree.instances_path / "left_del"
    expected = sum(path.lstat().st_blocks * 512 for path in (directory, *directory.iterdir()))
    assert found["left_del"]["bytes"] == expected
    totals = keeper.ask("orphans", "--older-than", "0s").document["totals"]
    assert totals["aloneBytes"] == sum(base.stat().st_blocks * 512 for base in (alone, both))
    (told,) = keeper.ask("explain", both.name).document["items"]
    assert "orphans" not in " ".join(told["evidence"]), "unchanged for a day by default, and these are fresh"

    node.undefine(f"instance-{living[:8]}")
    assert set(orphans(keeper)) == {"left_del", "other", living}


def test_only_what_is_old_enough_counts_and_nothing_that_may_be_starting(
    node: ComputeNode, tree: NovaTree, keeper: Basekeeper
) -> None:
    tree.add_overlay("left", tree.add_base("base", age=9 * DAY))
    assert keeper.ask("orphans").document["items"] == []
    keeper.spawn_grace = "10m"
    assert orphans(keeper) == {}, "it may be an instance that is being built"
    assert keeper.plan().document["orphans"] == {"directories": 0, "bytes": 0, "aloneBytes": 0}


def test_where_domains_cannot_be_asked_nothing_is_an_orphan(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_overlay("left", tree.add_base("base", age=9 * DAY))
    for uri in ("none", "qemu+unix:///system?socket=/nowhere"):
        keeper.libvirt = uri
        answer = keeper.ask("orphans", "--older-than", "0s")
        assert (answer.status, answer.document) == (1, {})
        assert "which directories have a domain is not known" in answer.stderr
        assert "orphans" not in keeper.plan().document


def test_where_other_hosts_use_the_storage_a_domain_may_be_there(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_overlay("left", tree.add_base("base", age=9 * DAY))
    tree.register_host("node-b")
    answer = keeper.ask("orphans", "--older-than", "0s")
    assert answer.status == 1
    assert "on another host" in answer.stderr


def test_touch_in_use_acts_in_enforce_also_suspended_and_never_in_audit_or_on_what_nothing_uses(
    node: ComputeNode, tree: NovaTree, keeper: Basekeeper
) -> None:
    used, unused = tree.add_base("used", age=7 * HOUR), tree.add_base("unused", age=7 * HOUR)
    define(node, tree, used)
    for spec in ({**TOUCH, "mode": "Audit"}, ENFORCE):
        keeper.run(spec)
        assert age_of(used) > 6 * HOUR
    document = keeper.run({**TOUCH, "suspend": True}).document
    assert document["touched"] == {"files": 1, "failed": 0}
    assert (age_of(used) < HOUR, age_of(unused) > 6 * HOUR) == (True, True)
    assert "touched" not in keeper.run(TOUCH).document, "it is fresh now"


def test_what_is_qemus_cannot_be_touched_and_that_is_told_and_no_failure(
    node: ComputeNode, tree: NovaTree, keeper: Basekeeper
) -> None:
    base = tree.add_base("used", age=7 * HOUR)
    define(node, tree, base)
    os.chown(base, 64055, 64055)
    without = ("setpriv", "--bounding-set=-fowner", "--inh-caps=-fowner", "--no-new-privs")
    answer = keeper.ask("run", spec=TOUCH, under=without)
    assert answer.status == 0, answer.stderr
    assert answer.document["touched"] == {"files": 0, "failed": 1}
    (note,) = [note for note in answer.document["notes"] if note["about"] == "NotTouched"]
    assert base.name in note["message"]
    assert "64055" in note["message"]
    assert age_of(base) > 6 * HOUR


def test_novas_touches_are_known_from_ours_and_its_removals_by_its_conf_and_by_what_vanishes(
    node: ComputeNode, tree: NovaTree, keeper: Basekeeper, tmp_path: Path
) -> None:
    base, gone = tree.add_base("used", age=7 * HOUR), tree.add_base("gone")
    define(node, tree, base)
    tree.register_host("node-a", age=HOUR)
    known = keeper.run(TOUCH).document["novaManager"]
    assert (known["touches"]["known"], known["removes"]["known"]) == (None, None)
    assert age_of(base) < HOUR
    assert keeper.run(TOUCH).document["novaManager"]["touches"]["known"] is None, "that stamp is ours"

    tree.age(base, HOUR - 1)  # as nova does, right after it registers
    conf = tmp_path / "nova.conf"
    conf.write_text("[image_cache]\nremove_unused_base_images = false\n")
    keeper.more = (*keeper.more, "--nova-conf", str(conf))
    known = keeper.run(TOUCH).document["novaManager"]
    assert [(known[it]["known"], known[it]["sign"]) for it in known] == [(True, "Touched"), (False, "NovaConf")]

    gone.unlink()
    for _ in range(2):
        removes = keeper.run(TOUCH).document["novaManager"]["removes"]
        assert (removes["known"], removes["sign"]) == (True, "FilesVanished")
    conf.write_text("[image_cache]\nmanager_interval = -1\n")
    assert keeper.run(TOUCH).document["novaManager"]["touches"]["known"] is False
    conf.write_text("no section\n")
    assert keeper.run(TOUCH).document["novaManager"]["touches"]["known"] is True
