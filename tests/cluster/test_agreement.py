"""Bases that nodes have of one image, compared across a cluster: by what nodes report, and by real agents that read."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ApiError, ControlPlane
from lab.nova_tree import DAY, MIB, image_file_name
from tests.cluster.fleet import Fleet, Object, Program, condition, eventually, is_condition

NODES = ("node-a", "node-b", "node-c")
IMAGE = "0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f"
NAME = image_file_name(IMAGE)
GOOD, BAD = f"XXH3:1073741824:{'a' * 32}", f"XXH3:1073741824:{'b' * 32}"
ROLLED_UP = 45.0
"""Seconds in which a policy's status follows: it is written every half minute."""
READ = 90.0
"""Seconds in which agents have read small bases and told of it, on a busy machine: they make a pass every minute."""


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def _suspects(controller: Program) -> int:
    _, text = controller.ask("/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith('basekeeper_disagreements{kind="Suspect"}')]
    return int(float(line.split()[-1]))


def _is_said(policy: Object, status: str, reason: str) -> bool:
    return is_condition(policy, "CachesAgree", status, reason)


def test_what_one_node_reports_otherwise_is_told_where_that_node_belongs_and_until_it_ends(fleet: Fleet) -> None:
    for name in NODES:
        fleet.add_node(name, {"pool": "odd" if name == "node-c" else "even"})
    fleet.apply("compute", mode="Audit")
    fleet.apply("odd", mode="Audit", priority=1, nodeSelector={"matchLabels": {"pool": "odd"}})
    controller = fleet.start_controller()
    eventually(lambda: set(fleet.caches()) == set(NODES), "the nodes have objects")
    eventually(lambda: _is_said(fleet.policy("odd"), "Unknown", "NothingToCompare"), "nothing is known", ROLLED_UP)

    for name, told in zip(NODES, (GOOD, GOOD, BAD), strict=True):
        fleet.say(name, integrity={"digests": {NAME: told, "swap_512": told, image_file_name("x" + name): told}})
    eventually(lambda: _is_said(fleet.policy("odd"), "False", "SuspectContent"), "the suspect is told", ROLLED_UP)
    policy = fleet.policy("odd")
    (row,) = policy["status"]["disagreements"]
    assert row == {"name": NAME, "kind": "Suspect", "suspects": ["node-c"], "undecided": [], "agreeing": 2,
                   "variants": 2}  # fmt: skip
    assert f"{NAME} on node-c differs from 2 that agree" in condition(policy, "CachesAgree")["message"]
    assert _suspects(controller) == 1
    eventually(lambda: _is_said(fleet.policy("compute"), "True", "SameContent"), "the others agree", ROLLED_UP)
    assert fleet.policy("compute")["status"]["disagreements"] == []

    fleet.say("node-a", integrity={"digests": {NAME: "damaged", "/etc/passwd": "x" * 80}})
    eventually(lambda: _is_said(fleet.policy("odd"), "Unknown", "Undecided"), "one stands against one", ROLLED_UP)
    with pytest.raises(ApiError, match=r"integrity\.digests"):
        fleet.say("node-a", integrity={"digests": {f"{number:040x}": BAD for number in range(65)}})

    fleet.say("node-c", integrity={"digests": {NAME: GOOD}})
    eventually(lambda: _is_said(fleet.policy("odd"), "True", "SameContent"), "it has been mended", ROLLED_UP)
    assert fleet.policy("odd")["status"]["disagreements"] == []
    assert _suspects(controller) == 0


def test_agents_find_the_base_that_was_damaged_before_anybody_read_it(fleet: Fleet, tmp_path: Path) -> None:
    """Four nodes that nova converted the image for, each with other holes; and one that keeps it as glance has it."""
    image = _image(tmp_path)
    converting = {
        "node-a": ("-f", "qcow2", "-O", "raw"),
        "node-b": ("-f", "qcow2", "-O", "raw", "-S", "0"),
        "node-c": ("-f", "qcow2", "-O", "raw", "-S", "1M"),
        "node-d": ("-f", "qcow2", "-O", "qcow2"),
    }
    for node, options in converting.items():
        base = fleet.tree(node).base_dir / NAME
        _run("qemu-img", "convert", *options, str(image), str(base))
        fleet.tree(node).age(base, DAY)
    damaged = fleet.tree("node-c").base_dir / NAME
    assert len({(fleet.tree(node).base_dir / NAME).stat().st_blocks for node in NODES}) > 1, "other holes"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: 5 * MIB] + bytes([whole[5 * MIB] ^ 1]) + whole[5 * MIB + 1 :])
    fleet.tree("node-c").age(damaged, DAY)

    for node in converting:
        fleet.add_node(node)
    fleet.apply("compute", mode="Audit", integrity={})
    controller = fleet.start_controller()
    for node in converting:
        fleet.start_agent(node)
    eventually(lambda: _is_said(fleet.policy("compute"), "False", "SuspectContent"), "the suspect", READ + ROLLED_UP)
    eventually(lambda: fleet.policy("compute")["status"]["disagreements"] == [
        {"name": NAME, "kind": "Suspect", "suspects": ["node-c"], "undecided": [], "agreeing": 2, "variants": 3}
    ], "all have read it", READ + ROLLED_UP)  # fmt: skip
    assert all(is_condition(fleet.cache(node), "IntegrityVerified", "True") for node in converting)
    assert _suspects(controller) == 1

    copy = damaged.with_name("copy")
    copy.write_bytes(whole)
    copy.rename(damaged)  # another file, as when nova fetches it again
    fleet.tree("node-c").age(damaged, DAY)
    fleet.run_now("node-c", "mended")
    eventually(lambda: _is_said(fleet.policy("compute"), "True", "Variants"), "the mended one agrees", READ + ROLLED_UP)
    assert _suspects(controller) == 0


def _image(directory: Path) -> Path:
    """An image of 8 MiB with data, zeros that are written, and holes."""
    raw, image = directory / "image.raw", directory / "image.qcow2"
    content = bytearray(8 * MIB)
    content[: MIB // 2] = bytes(range(256)) * (MIB // 512)
    content[5 * MIB : 5 * MIB + 4096] = b"\x5a" * 4096
    raw.write_bytes(content)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    return image


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
