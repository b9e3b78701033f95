"""Several hosts on one instances directory, as nova uses them: instances come, move and go while basekeeper is at work.

Each host is a libvirtd of its own and a loop of `basekeeper run`, each in a mount namespace of its own, with a ledger
of its own. The driver does what nova does, in its order, and remembers when each base was certainly in use.
"""

import fcntl
import random
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import NovaTree, image_file_name
from tests.node.cli import TIMEOUT, Answer, Basekeeper, Spec

OWN_MOUNTS = ("unshare", "--mount", "--propagation", "slave")
ACTS = ("Quarantined", "Purged", "Restored")


@dataclass(frozen=True)
class Act:
    """What one pass did with one file."""

    host: str
    name: str
    action: str
    entry: str | None
    began: float
    ended: float


@dataclass
class Loop:
    """`with Loop(...)`: one pass after the other on one host, whatever becomes of each."""

    host: str
    keeper: Basekeeper
    spec: Spec
    under: Sequence[str] = OWN_MOUNTS
    answers: list[Answer] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    killed: int = 0
    process: subprocess.Popen[str] | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._repeat, name=self.host, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(TIMEOUT)
        if error is None and self._failure is not None:
            raise self._failure

    def _repeat(self) -> None:
        try:
            while not self._over.is_set():
                began = time.time()
                self.process = process = self.keeper.start("run", spec=self.spec, under=self.under)
                answer = self.keeper.end(process)
                if answer.status == -signal.SIGKILL:
                    self.killed += 1
                    continue
                assert answer.status in (0, 1, 3), answer
                assert answer.status != 1 or "another basekeeper" in answer.stderr, answer
                self.answers.append(answer)
                self.acts += [
                    Act(self.host, row["name"], row["action"], row.get("quarantineEntry"), began, time.time())
                    for row in answer.document.get("files", ())
                    if row.get("action") in ACTS
                ]
        except BaseException as error:  # noqa: BLE001 (told by whoever ends the loop)
            self._failure = error


@dataclass
class Instance:
    """An instance and where it is."""

    uuid: str
    image: str
    host: ComputeNode


class Cloud:
    """What nova does on hosts that share a storage."""

    def __init__(self, tree: NovaTree, hosts: Sequence[ComputeNode], images: int, seed: int) -> None:
        self.tree = tree
        self.hosts = hosts
        self.images = [str(uuid.UUID(int=number + 1)) for number in range(images)]
        self.random = random.Random(seed)  # noqa: S311 (which machine is next is no secret)
        self.instances: list[Instance] = []
        self.used: list[tuple[str, float, float]] = []
        """Names of bases, and between which times each was certainly in use."""
        self.since: dict[str, float] = {}
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        """Do one thing."""
        choices = [self.spawn] if len(self.instances) < 2 else [self.spawn, self.move, self.delete, self.delete]
        if len(self.instances) > 8:
            choices = [self.move, self.delete]
        self.random.choice(choices)()

    def spawn(self) -> None:
        """Build an instance: directory, base, overlay, domain, in nova's order."""
        image, host = self.random.choice(self.images), self.random.choice(self.hosts)
        name = str(uuid.UUID(int=self.random.getrandbits(128)))
        base = self.tree.base_dir / image_file_name(image)
        self.tree.declare(name, "disk", "qcow2")
        with self._nova_lock(base.name):
            if not base.exists():
                self.done["fetched"] += 1
                part = self.tree.add_base(image, suffix=".part", seed=1 + self.images.index(image))
                part.rename(base)
        try:
            base.touch(exist_ok=True) if base.exists() else base.stat()
            with self._nova_lock(base.name):
                base.stat()  # qemu-img create opens it
                disk = self.tree.add_overlay(name, base, declare=False)
        except FileNotFoundError:  # nova: the spawn fails, and is tried elsewhere
            self.done["failed"] += 1
            shutil.rmtree(self.tree.instances_path / name)
            return
        self.since[name] = time.time()
        host.define(self._xml(name, disk))
        self.instances.append(Instance(name, image, host))
        self.done["spawned"] += 1

    def move(self) -> None:
        """Cold-migrate an instance: the disk stays where all hosts see it."""
        instance = self.random.choice(self.instances)
        target = self.random.choice([host for host in self.hosts if host is not instance.host])
        target.define(self._xml(instance.uuid, self.tree.instances_path / instance.uuid / "disk"))
        instance.host.undefine(instance.uuid)
        instance.host = target
        self.done["moved"] += 1

    def delete(self) -> None:
        """Delete an instance, its domain first."""
        instance = self.instances.pop(self.random.randrange(len(self.instances)))
        self.used.append((image_file_name(instance.image), self.since.pop(instance.uuid), time.time()))
        instance.host.undefine(instance.uuid)
        shutil.rmtree(self.tree.instances_path / instance.uuid)
        self.done["deleted"] += 1

    def in_use(self) -> list[tuple[str, float, float]]:
        """All that was or is in use, and between which times."""
        now = [(image_file_name(one.image), self.since[one.uuid], time.time()) for one in self.instances]
        return [*self.used, *now]

    def without_base(self) -> list[str]:
        """Instances whose base is not in the cache at this moment."""
        return [one.uuid for one in self.instances if not self.base_of(one).exists()]

    def base_of(self, instance: Instance) -> Path:
        """Where the base of an instance is."""
        return self.tree.base_dir / image_file_name(instance.image)

    def is_whole(self, instance: Instance) -> bool:
        """Whether an instance's base is what its image was."""
        model = self.tree.add_file("model", seed=1 + self.images.index(instance.image))
        return model.read_bytes() == self.base_of(instance).read_bytes()

    def _nova_lock(self, name: str) -> Any:
        return _Lock(self.tree.locks_dir / f"nova-{name}")

    @staticmethod
    def _xml(name: str, disk: Path) -> str:
        return domain_xml(name, uuid=name, disks=[Disk(disk)], metadata=NovaMetadata(None))


class _Lock:
    """nova's own lock, as fasteners takes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("a")
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def removed_while_in_use(acts: Sequence[Act], used: Sequence[tuple[str, float, float]]) -> list[Act]:
    """Removals of bases that were in use from before the pass until after it.

    A purge of a name in use is none: nova may have fetched the base anew, and what is purged is a copy of it.
    """
    return [
        act
        for act in acts
        if act.action == "Quarantined"
        and any(name == act.name and since < act.began and act.ended < until for name, since, until in used)
    ]


def send(loop: Loop, what: signal.Signals) -> None:
    """Send a signal to the pass that is under way on a host, if there is one."""
    process = loop.process
    if process is not None and process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(what)
