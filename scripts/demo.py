#!/usr/bin/env python3
"""`make demo`: the main job on real files, under a temporary directory, in less than a minute.

Builds the cache of the story that nova's cleaner began with in 2012 and a live one beside it, with real overlays
and, where libvirtd can run, real domains in a libvirtd of its own; then lets the real command line work on it, and
checks in the end that everything that machines need is still there, byte for byte.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.compute_node import ComputeNode, available
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import DAY, HOUR, NovaTree, image_file_name

OUT = Console(highlight=False)
STARTED = time.monotonic()
PROGRAM = str(Path(sys.executable).with_name("basekeeper"))
POLICY = """\
apiVersion: basekeeper.io/v1alpha1
kind: ImageCachePolicy
metadata:
  name: demo
spec:
  mode: Enforce
  limits:
    maxPercent: 100    # the default of 25 would take two passes for so small a cache
"""


@dataclass
class Cloud:
    """The demo's compute node, and what must survive on it."""

    place: Path
    tree: NovaTree
    node: ComputeNode | None
    needed: dict[str, Path] = field(default_factory=dict)
    """What a machine needs, and which file that is."""
    instances: dict[str, str] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)

    def basekeeper(self, *words: str, expect: int = 0) -> None:
        """Run the real program as a user would, and show what it was told."""
        options = [
            "--instances-path", str(self.tree.instances_path),
            "--state-dir", str(self.place / "state"),
            "--libvirt", self.node.read_only_uri if self.node else "none",
            "--spawn-grace", "0s",
        ]  # fmt: skip
        OUT.print(Text.assemble(("$ basekeeper ", "bold cyan"), (" ".join(words), "bold cyan")))
        table = [] if words[1:2] == ("acknowledge",) else ["--output", "table"]
        done = subprocess.run([PROGRAM, *words, *options, *table], check=False)
        if done.returncode != expect:
            raise SystemExit(f"demo: that should have ended with status {expect}, not {done.returncode}")


def main() -> None:
    """Build, show, act, prove."""
    missing = available()
    with tempfile.TemporaryDirectory(prefix="basekeeper-demo-") as place, contextlib.ExitStack() as stack:
        node = stack.enter_context(ComputeNode("demo-node")) if missing is None else None
        cloud = Cloud(Path(place), NovaTree(Path(place) / "instances"), node)
        chapter("A compute node", "An instances directory under a temporary path; nothing of this host is used.")
        build(cloud)
        show_plan(cloud)
        act(cloud)
        undo(cloud)
        prove(cloud, missing)


def build(cloud: Cloud) -> None:
    """Lay out the cache: leftovers of 2012, and bases that machines of today need."""
    tree = cloud.tree
    old = "2012"
    tree.add_base(old, size=64 << 20, age=30 * DAY, seed=1)
    tree.add_base(old, suffix="_20", size=64 << 20, age=30 * DAY, seed=2)
    tree.add_base(old, suffix=".part", size=16 << 20, age=400 * DAY, seed=3)
    tree.add_file("notes-of-the-operator.txt", size=4096, age=90 * DAY)
    tell("the story of 2012: an image nobody uses, its resized copy, and a download that a crash cut off")

    add_machine(cloud, "running", image="debian", seed=10)
    add_machine(cloud, "shut off", image="ubuntu", seed=11)
    add_machine(cloud, "booted from a snapshot", image="snapshot-of-debian", metadata_image="debian-original", seed=12)
    add_machine(cloud, "being resized", image="rocky", seed=13)
    resized = cloud.instances["being resized"]
    tree.rename_instance(resized, f"{resized}_resize")
    tell("machines of today: running, shut off, booted from a snapshot, and one that waits in <uuid>_resize")
    if cloud.node:
        start_domains(cloud, cloud.node)
    cloud.digests = {path: digest(path) for path in cloud.needed.values()}


def add_machine(cloud: Cloud, what: str, *, image: str, seed: int, metadata_image: str | None = None) -> None:
    """Make an instance whose disk is an overlay over its image's base, long since cached."""
    instance = str(uuid.uuid5(uuid.NAMESPACE_DNS, what))
    base = cloud.tree.add_base(image_id(image), size=32 << 20, age=9 * DAY, seed=seed)
    cloud.tree.add_overlay(instance, base)
    cloud.instances[what] = instance
    cloud.needed[f"the base of the machine that is {what}"] = base
    if metadata_image:
        cloud.tree.add_base(image_id(metadata_image), size=32 << 20, age=2 * HOUR, seed=seed + 100)


def start_domains(cloud: Cloud, node: ComputeNode) -> None:
    """Define the machines as nova does; start one."""
    images = {"running": "debian", "shut off": "ubuntu", "booted from a snapshot": "debian-original"}
    for number, (what, image) in enumerate(images.items(), 1):
        instance = cloud.instances[what]
        disk = Disk(cloud.tree.instances_path / instance / "disk")
        xml = domain_xml(
            f"instance-{number:08x}", uuid=instance, disks=[disk], metadata=NovaMetadata(image=image_id(image))
        )
        node.define(xml)
    node.start(cloud.instances["running"])
    tell("real domains in a libvirtd of its own: one runs under qemu, two are shut off")


def show_plan(cloud: Cloud) -> None:
    """Ask what may go, and why."""
    chapter("What may go, and why?", "plan reads only: no file, lock or time stamp changes.")
    cloud.basekeeper("plan", expect=3)
    tell("without a policy it is Audit with the defaults, which would take a quarter of the cache in one pass")
    chapter("Why is this file still here?", "explain shows each piece of evidence; an image's id finds its files.")
    cloud.basekeeper("explain", image_id("debian"), image_file_name("2012") + "_20", expect=3)


def act(cloud: Cloud) -> None:
    """Make a pass that acts."""
    policy = cloud.place / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    chapter("A pass that acts", "The policy is the manifest that kubectl apply takes:")
    OUT.print(Text(POLICY.rstrip(), style="dim"))
    cloud.basekeeper("run", "--policy", str(policy))
    cloud.basekeeper("quarantine", "list")


def undo(cloud: Cloud) -> None:
    """Take removals back: by hand, and by itself."""
    chapter("Nothing is gone yet", "A removal is a rename into a quarantine; it can be taken back.")
    cloud.basekeeper("quarantine", "restore", image_file_name("2012"))
    tell("and when something turns up that needs a removed file, say an instance that somebody copied back:")
    resized = cloud.tree.base_dir / (image_file_name("2012") + "_20")
    cloud.tree.add_overlay("copied-back-from-tape", str(resized), size=64 << 20)
    cloud.basekeeper("run")
    if not resized.exists():
        raise SystemExit("demo: the resized base should be back")


def prove(cloud: Cloud, missing: str | None) -> None:
    """Check that what machines need is there, byte for byte, and say what was shown and what was not."""
    chapter("What was proven", "")
    for what, path in cloud.needed.items():
        if digest(path) != cloud.digests[path]:
            raise SystemExit(f"demo: {what} changed: {path}")
        tell(f"{what} is there, byte for byte")
    if qemu_img := shutil.which("qemu-img"):
        for disk in sorted(cloud.tree.instances_path.glob("*/disk")):
            chain = [qemu_img, "info", "--force-share", "--backing-chain", str(disk)]
            subprocess.run(chain, check=True, stdout=subprocess.DEVNULL)
        tell("qemu-img follows the chain of every disk to its end")
    if cloud.node:
        state = cloud.node.state(cloud.instances["running"])
        if state != "running":
            raise SystemExit(f"demo: the running machine is {state}")
        cloud.node.start(cloud.instances["booted from a snapshot"])
        tell("the running machine still runs, and the one booted from a snapshot starts")
    part = cloud.tree.base_dir / (image_file_name("2012") + ".part")
    if part.exists():
        raise SystemExit("demo: the cut-off download should be gone")
    tell("the cut-off download, which nova would have kept for ever, is out of the way")
    if not qemu_img:
        OUT.print("[yellow]left out:[/] qemu-img's own look at the chains: it is not installed")
    if missing is not None:
        OUT.print(f"[yellow]left out:[/] real domains ({missing}); the disks spoke for the machines alone")
    OUT.print(f"[dim]{time.monotonic() - STARTED:.0f} s; everything was under a temporary directory and is gone now[/]")


def image_id(name: str) -> str:
    """A stable UUID for an image of the story."""
    return name if name == "2012" else str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def digest(path: Path) -> str:
    """What a file holds."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def chapter(title: str, text: str) -> None:
    """Begin a part of the story."""
    OUT.print()
    OUT.print(Panel(Text.assemble((title, "bold"), f"  {text}"), expand=False))


def tell(line: str) -> None:
    """One step of the story."""
    OUT.print(f"[green]✓[/] {line}")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "150")
    main()
