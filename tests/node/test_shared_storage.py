"""Hosts that share their storage: what one of them needs none removes, whatever becomes of any of them."""

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.node.cli import Basekeeper
from tests.node.passes import AT_ONCE
from tests.node.sharing import OWN_MOUNTS, Cloud, Loop, removed_while_in_use, send
from tests.node.window import wait_until

SECONDS = float(os.environ.get("BASEKEEPER_SHARED_SECONDS", "60"))
"""How long the story takes: an hour of a cloud with ages of seconds. Longer by hand."""
SHARED = {
    **AT_ONCE,
    "minimumAge": {"original": "2s", "resized": "2s", "swap": "2s", "ephemeral": "2s", "partial": "2s"},
    "quarantine": {"retention": "2s"},
    "sharedStorage": {"mode": "Coordinate"},
}
IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
OTHER_IMAGE = "a4b0cd0c-40cf-4f0c-8d3f-6a5c1a1c9e02"
MakeNode = Callable[[str], ComputeNode]


def keeper_of(host: str, tree: NovaTree, place: Path, *, libvirt: str = "none", timeout: str = "10s") -> Basekeeper:
    return Basekeeper(
        tree, place / host, libvirt=libvirt, libvirt_timeout=timeout, spawn_grace="1s", more=("--nova-host", host)
    )


def are_back(cloud: Cloud, instances: Sequence[str]) -> bool:
    """Whether the bases of these instances are in the cache."""
    return not set(instances) & set(cloud.without_base())


def test_three_hosts_remove_each_unused_base_once_and_none_that_any_of_them_needs(
    make_node: MakeNode, tree: NovaTree, tmp_path: Path
) -> None:
    nodes = [make_node(f"host-{letter}") for letter in "abc"]
    cloud = Cloud(tree, nodes, images=12, seed=7)
    for node in nodes:
        tree.register_host(node.name)
    for number in range(5):
        tree.add_base(f"never used {number}", age=30 * DAY, seed=100 + number)
    with ExitStack() as stack:
        loops = [
            stack.enter_context(
                Loop(node.name, keeper_of(node.name, tree, tmp_path, libvirt=node.read_only_uri), SHARED)
            )
            for node in nodes
        ]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            cloud.step()
            if gone := cloud.without_base():
                # A look after the rename puts back what a spawn took a moment before it.
                wait_until(partial(are_back, cloud, gone))
            time.sleep(cloud.random.uniform(0.1, 0.6))
            victim = cloud.random.choice(loops)
            if cloud.random.random() < 0.15:
                send(victim, signal.SIGKILL)
            elif cloud.random.random() < 0.15:
                send(victim, signal.SIGSTOP)
                time.sleep(cloud.random.uniform(0.1, 1.5))
                send(victim, signal.SIGCONT)

    acts = [act for loop in loops for act in loop.acts]
    counts = Counter(act.action for act in acts)
    passes = {loop.host: (len(loop.answers), loop.killed) for loop in loops}
    told = f"{counts} {cloud.done}, passes and killed ones {passes}"
    assert removed_while_in_use(acts, cloud.in_use()) == [], told
    purged = Counter(act.entry for act in acts if act.action == "Purged")
    assert [entry for entry, times in purged.items() if times > 1] == [], told
    assert cloud.without_base() == [], told
    assert all(map(cloud.is_whole, cloud.instances)), told
    assert counts["Quarantined"] >= 3, told
    assert counts["Purged"] >= 1, told
    assert sum(loop.killed for loop in loops) > 0, told


def two_hosts(tree: NovaTree, place: Path, **second: str) -> tuple[Basekeeper, Basekeeper]:
    """Two hosts that know of each other, each of which has published once."""
    for name in ("host-a", "host-b"):
        tree.register_host(name)
    both = keeper_of("host-a", tree, place), keeper_of("host-b", tree, place, **second)
    for keeper in both:
        keeper.run(SHARED)
    time.sleep(2.5)  # to the second one the directories are new: its ages begin now
    return both


def test_a_base_that_only_a_domain_elsewhere_names_stays_and_says_whose_it_is(
    make_node: MakeNode, tree: NovaTree, tmp_path: Path
) -> None:
    there = make_node("host-b")
    base = tree.add_base(IMAGE, age=30 * DAY)
    there.define(domain_xml("by-hand", disks=[Disk(base, format="raw")]))  # as after `blockcommit --pivot`
    a, b = two_hosts(tree, tmp_path, libvirt=there.read_only_uri)
    with Loop("host-b", b, SHARED):
        answers = [a.run(SHARED) for _ in range(4)]
    assert {answer.verdict(base) for answer in answers} == {"Keep(InUseByDomain)"}
    assert "(host host-b)" in answers[-1].file(base)["users"][0]
    explained = a.ask("explain", base.name, spec=SHARED)
    assert any("(host host-b)" in line for line in explained.document["items"][0]["evidence"])

    there.pause_libvirtd()
    try:
        with Loop("host-b", keeper_of("host-b", tree, tmp_path, libvirt=there.read_only_uri, timeout="1s"), SHARED):
            held = [a.run(SHARED) for _ in range(3)]
        assert all(base.exists() for _ in held)
    finally:
        there.resume_libvirtd()


def test_a_host_that_died_holds_the_others_until_it_is_retired_and_silent(tree: NovaTree, tmp_path: Path) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    a, b = two_hosts(tree, tmp_path)
    held = a.run(SHARED)
    assert (held.status, held.verdict(base)) == (3, "Hold(SharedStorage)")
    assert "host host-b has not answered round" in held.document["holds"][0]["message"]

    retired = {**SHARED, "sharedStorage": {"mode": "Coordinate", "retiredHosts": ["host-b"]}}
    assert "retiredHosts; that counts from a next pass on" in a.run(retired).file(base)["message"]
    assert a.run(retired).verdict(base) == "Remove(Expired) Quarantined"
    other = tree.add_base(OTHER_IMAGE, age=30 * DAY)
    b.run(retired)  # it was not gone after all
    assert "but it published at" in a.run(retired).file(other)["message"]


def test_locks_that_do_not_work_between_hosts_are_noticed_and_hold(tree: NovaTree, tmp_path: Path) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    a, b = two_hosts(tree, tmp_path)
    lock = tree.base_dir / ".basekeeper/hosts/leader.lock"
    private = tmp_path / "private"
    private.touch()
    # What nolock does: each host has locks of its own.
    blind = (*OWN_MOUNTS, "sh", "-c", f'mount --bind {private} {lock} && exec "$@"', "sh")
    with Loop("host-b", b, {**SHARED, "mode": "Audit"}, under=blind):
        answers = [a.run(SHARED) for _ in range(3)]
    assert base.exists()
    told = [str(answer.document) for answer in answers]
    assert all("file locks do not work" in text or "for dead" in text or "has not answered" in text for text in told)


def test_a_clock_that_is_an_hour_off_holds_and_names_its_host(tree: NovaTree, tmp_path: Path) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    a, b = two_hosts(tree, tmp_path)
    fast = ("env", "NO_FAKE_STAT=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", "+1h")
    with Loop("host-b", b, SHARED, under=fast):
        # Its ages begin anew when its clock leaps, so the base is too young for a moment.
        wait_until(lambda: "the clock of host host-b is 3600 s ahead of" in str(a.run(SHARED).document["holds"]))
    assert base.exists()


def test_a_share_that_a_host_cannot_write_holds_there_and_on_the_others(tree: NovaTree, tmp_path: Path) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    a, b = two_hosts(tree, tmp_path)
    where = tree.instances_path
    read_only = (*OWN_MOUNTS, "sh", "-c", f'mount --bind -o ro {where} {where} && exec "$@"', "sh")
    answer = b.ask("run", spec=SHARED, under=read_only)
    assert answer.verdict(base) == "Hold(SharedStorage)"
    assert "cannot publish what it needs" in answer.file(base)["message"]
    assert a.run(SHARED).verdict(base) == "Hold(SharedStorage)"


GONE = {
    "cannot list the hosts": ("getdents64", ""),
    "cannot open what another host said": ("openat", "/host-b.json"),
    "cannot read what another host said": ("read", "/host-b.json"),
    "cannot read the round": ("read", "/round"),
    "cannot open the leader's lock": ("openat", "/leader.lock"),
    "cannot open the cache": ("openat", "/../.."),
}
"""What a share that went away refuses."""


@pytest.mark.parametrize(
    ("call", "place", "error"),
    [(*what, "ESTALE") for what in GONE.values()] + [("read", "/host-b.json", "EIO")],
    ids=[*GONE, "cannot read what another host said, for a bad disk"],
)
def test_a_share_that_went_away_holds_until_it_is_back(
    tree: NovaTree, tmp_path: Path, call: str, place: str, error: str
) -> None:
    base = tree.add_base(IMAGE, age=30 * DAY)
    a, b = two_hosts(tree, tmp_path)
    hosts = tree.base_dir / ".basekeeper/hosts"
    where = os.path.normpath(f"{hosts}{place}")
    gone = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", where, "-e", f"inject={call}:error={error}")
    with Loop("host-b", b, SHARED):
        wait_until((hosts / "host-b.json").exists)

        def is_told() -> bool:
            answer = a.ask("run", spec=SHARED, under=gone)
            assert base.exists()
            return answer.status in (1, 3) and os.strerror(getattr(errno, error)) in str(answer.document)

        wait_until(is_told)  # a moment after its last use elsewhere it is kept as too young, and nothing is held
        assert base.exists()
