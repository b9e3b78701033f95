"""The breaker on real parts: a file system that is unmounted and mounted again, machines that lose their directories or
their disks at once, and an operator's word that ends one trip and no other."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.node.cli import ENFORCE, TIMEOUT, Answer, Basekeeper, Spec
from tests.node.passes import AT_ONCE

MONTH = 30 * DAY
UUID = "0d0e9a3c-53a8-4a5c-8f3f-2a2f0f1d7c{:02}".format
QUARANTINED = "Remove(Expired) Quarantined"


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


def trips(answer: Answer) -> dict[str, dict[str, Any]]:
    """What stands, by its cause."""
    return {trip["cause"]: trip for trip in answer.document.get("trips", [])}


def word(*names: str, node: str | None = None, spec: Spec = ENFORCE) -> Spec:
    """A policy in which an operator ends these trips of this node, or of another."""
    return {**spec, "resetTrips": [{"node": node or _this_node(), "trip": name} for name in names]}


def _this_node() -> str:
    return subprocess.run(["uname", "--nodename"], capture_output=True, text=True, check=True).stdout.strip()


def adopt(keeper: Basekeeper, trip: str) -> subprocess.CompletedProcess[str]:
    """Say by the command that the next pass is to end a trip."""
    command = keeper.command("adopt", "--trip", trip)
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def notes(answer: Answer) -> list[str]:
    return [note["about"] for note in answer.document["notes"] if note["about"].startswith("Trip")]


# --- a file system that is not there --------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator["_Mount"]:
    with _Mount(tmp_path) as mounted:
        yield mounted


class _Mount:
    """A file system of its own at `path`, which can be taken away and brought back. Takes root."""

    def __init__(self, place: Path) -> None:
        self.path = place / "instances"
        self._image = place / "instances.img"

    def __enter__(self) -> Self:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True, capture_output=True)
        self.mount()
        return self

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.path], check=True, capture_output=True)

    def __exit__(self, *_: object) -> None:
        if self.path.is_mount():
            subprocess.run(["umount", "--lazy", self.path], check=True)


def test_a_file_system_that_is_gone_opens_one_trip_and_its_return_ends_it(disk: _Mount, tmp_path: Path) -> None:
    tree = NovaTree(disk.path)
    keeper = Basekeeper(tree, tmp_path / "state")
    tree.add_overlay("machine", tree.add_base("used", age=MONTH, seed=1))
    assert trips(keeper.run()) == {}
    base = tree.add_base("unused", age=MONTH, seed=2)

    disk.unmount()
    NovaTree(disk.path).add_base("decoy", age=MONTH)
    planned = keeper.plan()
    assert "trip" not in trips(planned)["OtherDirectory"], "a plan remembers nothing: it cannot give a name"
    first, again = keeper.run(), keeper.run()
    assert trips(first) == trips(again) == trips(keeper.plan()), "each is a process of its own"
    (trip,) = trips(first).values()
    assert (trip["cause"], trip["trip"].partition("-")[0]) == ("OtherDirectory", "OtherDirectory")
    assert "the right directories are back" in trip["clears"]

    disk.mount()
    back = keeper.run()
    assert (trips(back), back.verdict(base)) == ({}, QUARANTINED)


def test_an_operator_s_word_takes_over_other_directories_like_adopt(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_base("first", age=MONTH)
    keeper.run()
    base = tree.add_base("unused", age=MONTH)
    mark = tree.instances_path / ".basekeeper-id"
    mark.write_text("0123456789abcdef\n")
    (tree.base_dir / ".basekeeper" / "id").unlink()
    trip = trips(keeper.run())["OtherDirectory"]["trip"]

    answer = keeper.run(word(trip))
    assert (trips(answer), notes(answer)) == ({}, ["TripReset"])
    assert answer.verdict(base) == "Keep(TooYoung)", "in directories that carry another id ages start anew"
    assert mark.read_text() == "0123456789abcdef\n", "an id that is there is left alone"
    assert (tree.base_dir / ".basekeeper" / "id").exists()
    assert keeper.run(AT_ONCE).verdict(base) == QUARANTINED


def test_an_operator_s_word_in_audit_writes_nothing_into_the_cache(tree: NovaTree, keeper: Basekeeper) -> None:
    keeper.run()
    (tree.base_dir / ".basekeeper" / "id").unlink()
    audit = {"mode": "Audit"}
    trip = trips(keeper.run(audit))["OtherDirectory"]["trip"]
    assert trips(keeper.run(word(trip, spec=audit))) == {}
    assert not (tree.base_dir / ".basekeeper" / "id").exists()
    keeper.run()
    assert (tree.base_dir / ".basekeeper" / "id").exists()


# --- users that vanish ----------------------------------------------------------------------------------------------


@pytest.fixture
def vanished(tree: NovaTree, keeper: Basekeeper) -> Path:
    """A base that may go, in the middle of three that lost their users at once."""
    bases = [tree.add_base(f"used-{number}", age=MONTH, seed=number + 1) for number in range(3)]
    disks = [tree.add_overlay(f"machine-{number}", base) for number, base in enumerate(bases)]
    keeper.run()
    base = tree.add_base("unused", age=MONTH, seed=9)
    for disk in disks:
        disk.unlink()
    return base


def test_a_word_about_another_trip_or_another_node_ends_nothing(keeper: Basekeeper, vanished: Path) -> None:
    trip = trips(keeper.run())["UsersVanished"]
    others = [f"InstancesVanished-{trip['trip'].partition('-')[2]}", "UsersVanished-20261124T101500Z"]
    for spec in (word(*others), word(trip["trip"], node="another-node")):
        answer = keeper.run(spec)
        assert (answer.verdict(vanished), trips(answer)["UsersVanished"]["trip"]) == (
            "Hold(UsersVanished)",
            trip["trip"],
        )
    assert notes(keeper.run(word(*others))) == ["TripUnknown"] * 2
    assert notes(keeper.run(word(trip["trip"], node="another-node"))) == []


def test_a_word_that_names_the_trip_ends_it_for_good(tree: NovaTree, keeper: Basekeeper, vanished: Path) -> None:
    trip = trips(keeper.run())["UsersVanished"]["trip"]
    explained = keeper.ask("explain", vanished.name, spec=ENFORCE).document["items"][0]
    assert any(trip in line for line in explained["evidence"])

    answer = keeper.run(word(trip))
    assert (answer.verdict(vanished), trips(answer), notes(answer)) == (QUARANTINED, {}, ["TripReset"])
    later = keeper.run(word(trip))
    assert (trips(later), notes(later)) == ({}, ["TripUnknown"])


def test_the_command_ends_a_trip_and_refuses_the_name_of_none(keeper: Basekeeper, vanished: Path) -> None:
    trip = trips(keeper.run())["UsersVanished"]["trip"]
    refused = adopt(keeper, "UsersVanished-20261124T101500Z")
    assert (refused.returncode, trip in refused.stderr) == (1, True)
    assert keeper.run().verdict(vanished) == "Hold(UsersVanished)"

    assert adopt(keeper, trip).returncode == 0
    assert keeper.run().verdict(vanished) == QUARANTINED
    assert adopt(keeper, trip).returncode == 1


def test_the_trip_says_when_it_will_be_outlived(keeper: Basekeeper, vanished: Path) -> None:
    del vanished
    answer = keeper.run({**ENFORCE, "minimumAge": {"original": "48h"}})
    trip = trips(answer)["UsersVanished"]
    day, time_ = trip["since"].split("T")
    assert f"T{time_} if all evidence is complete until then" in trip["clears"]
    assert day not in trip["clears"]


# --- domains whose directories vanish -------------------------------------------------------------------------------


def machine(node: ComputeNode, tree: NovaTree, number: int, base: Path) -> Path:
    """The directory of a machine that is shut off."""
    disk = tree.add_overlay(UUID(number), base)
    metadata = NovaMetadata(image=UUID(99))
    node.define(domain_xml(f"instance-{number:08}", uuid=UUID(number), disks=[Disk(disk)], metadata=metadata))
    return disk.parent


@pytest.mark.parametrize("how", ["a policy", "the command"])
def test_a_word_about_vanished_instances_holds_until_one_more_vanishes(
    node: ComputeNode, tree: NovaTree, tmp_path: Path, how: str
) -> None:
    keeper = Basekeeper(tree, tmp_path / "state", libvirt=node.read_only_uri)
    directories = [machine(node, tree, number, tree.add_base("used", age=MONTH)) for number in range(3)]
    assert trips(keeper.run()) == {}
    base = tree.add_base("unused", age=MONTH, seed=9)
    for directory in directories[:2]:
        shutil.rmtree(directory)
    gone = trips(keeper.run())["InstancesVanished"]
    assert trips(keeper.run())["InstancesVanished"] == gone

    if how == "a policy":
        answer = keeper.run(word(gone["trip"]))
    else:
        assert adopt(keeper, gone["trip"]).returncode == 0
        answer = keeper.run()
    assert (trips(answer), answer.verdict(base)) == ({}, QUARANTINED)
    assert trips(keeper.run()) == {}

    shutil.rmtree(directories[2])
    base = tree.add_base("unused", age=MONTH, seed=9)
    more = keeper.run(word(gone["trip"]))
    assert more.verdict(base) == "Hold(InstancesVanished)"
    assert trips(more)["InstancesVanished"]["trip"] != gone["trip"]


def test_libvirt_s_silence_ends_no_trip(node: ComputeNode, tree: NovaTree, tmp_path: Path) -> None:
    keeper = Basekeeper(tree, tmp_path / "state", libvirt=node.read_only_uri, libvirt_timeout="1s")
    directory = machine(node, tree, 1, tree.add_base("used", age=MONTH))
    keeper.run()
    shutil.rmtree(directory)
    gone = trips(keeper.run())["InstancesVanished"]["trip"]
    node.stop_libvirtd()
    assert trips(keeper.run())["InstancesVanished"]["trip"] == gone
    node.start_libvirtd()
    assert trips(keeper.run())["InstancesVanished"]["trip"] == gone
