"""The `basekeeper` command as an operator runs it: a process of its own, with a document and a status for an answer."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.nova_tree import NovaTree

TIMEOUT = 60.0
"""Seconds after which a command counts as hung."""
Spec = Mapping[str, Any]
"""An `ImageCachePolicy`'s spec, as in a manifest."""
ENFORCE: Spec = {"mode": "Enforce", "limits": {"maxPercent": 100}}
"""Acts, and is not throttled by how small a test's cache is."""
_WITHOUT_OUTPUT = (("adopt",), ("adopt", "--trip"), ("hold", "acknowledge"))


def write_policy(path: Path, spec: Spec, *, name: str = "test") -> Path:
    """Write a manifest; every JSON document is a YAML document."""
    manifest = {
        "apiVersion": "basekeeper.io/v1alpha1",
        "kind": "ImageCachePolicy",
        "metadata": {"name": name},
        "spec": dict(spec),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return unfinished.rename(path)  # whole at every moment: another command may be reading it


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    status: int
    document: dict[str, Any]
    stderr: str
    seconds: float
    """Wall time, the interpreter's start included."""

    def file(self, name: str | Path) -> dict[str, Any]:
        """The only row about a file of the cache."""
        wanted = name.name if isinstance(name, Path) else name
        rows = [row for row in self.document["files"] if row["name"] == wanted]
        assert len(rows) == 1, f"{len(rows)} rows about {wanted}: {json.dumps(self.document, indent=1)}"
        return dict(rows[0])

    def verdict(self, name: str | Path) -> str:
        """`Keep(InUseByOverlay)` and the like; after an act `Keep(UserAppeared) Skipped`."""
        row = self.file(name)
        return " ".join(filter(None, [f"{row['verdict']}({row['reason']})", row.get("action")]))

    @property
    def holds(self) -> list[tuple[str, str | None]]:
        """What held something: reason and path."""
        return [(hold["reason"], hold.get("path")) for hold in self.document["holds"]]


@dataclass
class Basekeeper:
    """Runs the command against one tree, with a ledger of its own in `state`."""

    tree: NovaTree
    state: Path
    libvirt: str = "none"
    spawn_grace: str = "0s"
    libvirt_timeout: str = "10s"
    more: Sequence[str] = field(default_factory=tuple)
    """Further options for every command."""

    def plan(self, spec: Spec | None = ENFORCE, **how: Any) -> Answer:
        """What a pass would do."""
        return self.ask("plan", spec=spec, **how)

    def run(self, spec: Spec | None = ENFORCE, **how: Any) -> Answer:
        """One pass."""
        return self.ask("run", spec=spec, **how)

    def ask(self, *words: str, spec: Spec | None = None, under: Sequence[str] = (), timeout: float = TIMEOUT) -> Answer:
        """Run any command to its end; `under` goes before it, as `strace` and its options do."""
        started = time.monotonic()
        process = self.start(*words, spec=spec, under=under)
        return self.end(process, started=started, timeout=timeout)

    def start(self, *words: str, spec: Spec | None = None, under: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start any command and let it run; its owner ends it, with `end`."""
        return subprocess.Popen(
            [*under, *self.command(*words, spec=spec)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], *, started: float | None = None, timeout: float = TIMEOUT) -> Answer:
        """Wait for a command that was started; one that hangs is killed, and an error."""
        started = time.monotonic() if started is None else started
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        document = json.loads(stdout) if stdout.strip() else {}
        return Answer(process.returncode, document, stderr, time.monotonic() - started)

    def command(self, *words: str, spec: Spec | None = None) -> list[str]:
        """The words of a command line."""
        # A file for each ledger: loops on two nodes do not write into each other's.
        policy = ["--policy", str(self._policy(spec))] if spec is not None else []
        return [
            *(sys.executable, "-m", "basekeeper", *words, *policy),
            *("--instances-path", str(self.tree.instances_path)),
            *("--state-dir", str(self.state)),
            *("--libvirt", self.libvirt, "--libvirt-timeout", self.libvirt_timeout),
            *("--spawn-grace", self.spawn_grace),
            *self.more,
            *(() if words[:2] in _WITHOUT_OUTPUT else ("--output", "json")),
        ]

    def _policy(self, spec: Spec) -> Path:
        return write_policy(self.state.with_name(f"{self.state.name}-policy.yaml"), spec)
