"""Killed at any call that changes a file, or refused any, basekeeper loses nothing and the next pass tidies up.

A pass is traced once to learn every call that changes the tree or the ledger; then it is made once more for each of
them, on a fresh copy, with strace killing it (or failing the call) just before. Two kills between the same two
changes would leave the same files, so these are all the states that a crash can leave behind.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import Queue
from typing import TypeVar

import pytest

from lab.nova_tree import DAY, HOUR, NovaTree

from .cli import ENFORCE, Basekeeper, Spec
from .warm import Ended, Warm

WORKERS = 2
ATTEMPTS = 5
T = TypeVar("T")
SIZE = 4096

TRACED = (
    "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,"
    "chown,lchown,fchown,fchownat,chmod,fchmod,fchmodat,utime,utimes,utimensat,futimesat,truncate,ftruncate,fallocate,"
    "write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,setxattr,fsetxattr,fsync,fdatasync"
)
_CALL = re.compile(r"^(?:\d+ +)?(?P<name>\w+)\((?P<arguments>.*)")
_CREATES = re.compile(r"O_CREAT|O_TRUNC|O_TMPFILE")
SYNCS = frozenset({"fsync", "fdatasync"})


@dataclass(frozen=True)
class Call:
    """One call of a trace."""

    name: str
    when: int
    """The how-manieth of its name, from 1."""
    text: str

    @property
    def changes(self) -> bool:
        """Whether it changes what is on disk for whoever looks next; a sync only makes it last."""
        if self.name == "openat":
            return _CREATES.search(self.text) is not None
        return self.name not in SYNCS

    @property
    def touches_files(self) -> bool:
        """Not what it prints."""
        return not re.match(r"\w+\([0-2][,<]", self.text)

    def __str__(self) -> str:
        return f"{self.name} number {self.when}: {self.text[:160]}"


@dataclass(frozen=True)
class Scenario:
    """A tree, a command that changes it, and what may become of the files."""

    name: str
    build: Callable[[Path], None]
    words: tuple[str, ...] = ("run",)
    spec: Spec | None = field(default_factory=lambda: {**ENFORCE, "quarantine": {"retention": "1h"}})
    needed: frozenset[str] = frozenset()
    """Images whose bases must be in the cache after the next pass."""
    may_be_purged: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    """Images whose bases must be gone from the cache after the next pass: a crash holds nothing up.

    Not asked of a first pass: one that was killed while it made its ledger leaves a damaged one, and ages start anew.
    """
    owner: int = 0
    """Whose the tree is; the command is always root's."""


def base_of(image: str) -> str:
    return hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()


def add_user(tree: NovaTree, instance: str, image: str) -> None:
    """An overlay with a relative name, so that the tree can be copied."""
    tree.add_overlay(instance, f"../_base/{base_of(image)}")


def keeper_of(place: Path) -> Basekeeper:
    """The command on a tree that a scenario built, or a copy of one."""
    tree = NovaTree.__new__(NovaTree)
    tree.instances_path = place / "instances"
    tree.base_dir = place / "instances" / "_base"
    tree.locks_dir = place / "instances" / "locks"
    return Basekeeper(tree, place / "state")


def first_pass(place: Path) -> None:
    """No ledger, no ids, no lock directory: everything is made for the first time."""
    tree = NovaTree(place / "instances")
    for seed, image in enumerate(("unused-a", "unused-b", "used"), 1):
        tree.add_base(image, size=SIZE, age=30 * DAY, seed=seed)
    tree.add_base("unused-a", suffix=".part", size=SIZE, age=30 * DAY, seed=9)
    add_user(tree, "machine", "used")
    tree.locks_dir.rmdir()


def later_pass(place: Path) -> None:
    """One removed file is due, another has got a user, and two more have grown old."""
    tree = NovaTree(place / "instances")
    for seed, image in enumerate(("due", "needed-again", "still-waiting", "used"), 1):
        tree.add_base(image, size=SIZE, age=30 * DAY, seed=seed)
    add_user(tree, "machine", "used")
    made = keeper_of(place).run({**ENFORCE, "quarantine": {"retention": "1h"}})
    assert made.document["outcome"] == "Acted", made
    (sidecar,) = tree.base_dir.glob(f".basekeeper/quarantine/{base_of('due')}.*/entry.json")
    entry = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**entry, "removedAt": entry["removedAt"] - 7200, "dueAt": entry["dueAt"] - 7200}))
    add_user(tree, "copied-back", "needed-again")
    for seed, image in enumerate(("unused-a", "unused-b"), 11):
        tree.add_base(image, size=SIZE, age=20 * DAY, seed=seed)


def pass_that_wants_room(place: Path) -> None:
    """As above, and a file that would have some hours to go."""
    later_pass(place)
    NovaTree(place / "instances").add_base("young", size=SIZE, age=2 * HOUR, seed=21)


def pass_without_retention(place: Path) -> None:
    """What goes is purged at once."""
    first_pass(place)


UNUSED = frozenset({"unused-a", "unused-b"})

SCENARIOS = [
    Scenario("the first pass that acts", first_pass, needed=frozenset({"used"})),
    Scenario("root's first pass in a tree of nova's user", first_pass, needed=frozenset({"used"}), owner=42424),
    Scenario(
        "a pass that restores, removes and purges",
        later_pass,
        needed=frozenset({"used", "needed-again"}),
        may_be_purged=frozenset({"due"}),
        unused=UNUSED,
    ),
    Scenario(
        "a pass that makes room",
        pass_that_wants_room,
        spec={**ENFORCE, "quarantine": {"retention": "1h"}, "maxCacheBytes": 1},
        needed=frozenset({"used", "needed-again"}),
        may_be_purged=frozenset({"due", "still-waiting", "young"}),
        unused=UNUSED,
    ),
    Scenario(
        "a pass with no retention",
        pass_without_retention,
        spec={**ENFORCE, "quarantine": {"retention": "0s"}},
        needed=frozenset({"used"}),
        may_be_purged=UNUSED | {"unused-a.part"},
    ),
    Scenario(
        "an Audit pass that restores",
        later_pass,
        spec={"mode": "Audit"},
        needed=frozenset({"used", "needed-again"}),
        may_be_purged=frozenset({"due"}),  # by the passes after it, which act
    ),
    Scenario(
        "quarantine restore",
        later_pass,
        ("quarantine", "restore", "--all"),
        spec=None,
        needed=frozenset({"used", "needed-again"}),
        may_be_purged=frozenset({"due"}),
    ),
    Scenario(
        "quarantine purge",
        later_pass,
        ("quarantine", "purge"),
        needed=frozenset({"used", "needed-again"}),
        may_be_purged=frozenset({"due", "still-waiting"}),
    ),
    Scenario("adopt", first_pass, ("adopt",), spec=None, needed=frozenset({"used"})),
]
by_name = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where copies are made; with no write to wait for, a few hundred passes take a minute or two."""
    for tool in ("strace", "unshare", "qemu-img"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is not installed; scripts/setup installs what the tests need", pytrace=False)
    place = tmp_path_factory.mktemp("crash")
    yield place
    shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True)
class Template:
    """A built scenario that is copied for each crash."""

    scenario: Scenario
    place: Path
    digests: Mapping[str, str]
    """What each file of the cache and the quarantine held, by name."""
    calls: tuple[Call, ...]
    """What the undisturbed command does."""


@pytest.fixture(scope="module")
def drivers(place: Path) -> Iterator[Queue[Warm]]:
    """As many as may work at a time."""
    with ExitStack() as stack:
        free: Queue[Warm] = Queue()
        for _ in range(WORKERS):
            free.put(stack.enter_context(Warm()))
        yield free


@contextmanager
def driver(drivers: Queue[Warm]) -> Iterator[Warm]:
    warm = drivers.get()
    try:
        yield warm
    finally:
        drivers.put(warm)


@pytest.fixture(scope="module")
def template(place: Path, drivers: Queue[Warm]) -> Callable[[Scenario], Template]:
    @cache
    def build(name: str) -> Template:
        scenario = next(one for one in SCENARIOS if one.name == name)
        original = place / name.replace(" ", "-")
        scenario.build(original)
        with copied(original, scenario.owner) as copy, driver(drivers) as warm:
            ended, calls, _ = traced(scenario, copy, warm)
            assert ended.status in {0, 3}, ended
        return Template(scenario, original, contents(original), calls)

    return lambda scenario: build(scenario.name)


@contextmanager
def copied(original: Path, owner: int) -> Iterator[Path]:
    copy = original.with_name(f"{original.name}-{time.monotonic_ns()}")
    shutil.copytree(original, copy, symlinks=True)
    for path in (copy / "instances", *(copy / "instances").rglob("*")):
        os.chown(path, owner, owner)
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def traced(scenario: Scenario, place: Path, warm: Warm, *inject: str) -> tuple[Ended, tuple[Call, ...], str]:
    """Run the scenario's command under strace; how it ended, what it called, and how the trace ends."""
    words = keeper_of(place).command(*scenario.words, spec=scenario.spec)
    ended = warm.run(words, place, strace=["-e", f"trace={TRACED}", *inject])
    log = (place / "trace").read_text()
    return ended, tuple(parse(log)), log.rstrip().rpartition("\n")[2]


def parse(log: str) -> Iterator[Call]:
    counts: Counter[str] = Counter()
    for line in log.splitlines():
        if match := _CALL.match(line):
            counts[match["name"]] += 1
            yield Call(match["name"], counts[match["name"]], f"{match['name']}({match['arguments']}")


def contents(place: Path) -> dict[str, str]:
    """The digest of each file of the cache and of the quarantine, by name."""
    base = place / "instances" / "_base"
    files = [path for path in base.iterdir() if path.is_file()]
    files += [path for path in base.glob(".basekeeper/quarantine/*/*") if path.name != "entry.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_that_nothing_is_lost(template: Template, place: Path) -> None:
    """Every file's content is in the cache or in the quarantine under its name, unless it was due to be purged."""
    purged = {base_of(image.partition(".")[0]) + image[len(image.partition(".")[0]) :]
              for image in template.scenario.may_be_purged}  # fmt: skip
    found = contents(place)
    for name, digest in template.digests.items():
        assert found.get(name, "gone") == digest or (name in purged and name not in found), f"{name} is lost"


def check_that_the_next_passes_tidy_up(template: Template, place: Path, warm: Warm) -> None:
    """The next pass works, puts back what is needed and leaves nothing half; the one after it has nothing to do."""
    keeper = keeper_of(place)
    words = keeper.command("run", spec={**ENFORCE, "quarantine": {"retention": "1h"}})
    once, again = warm.run(words, place), warm.run(words, place)
    assert once.status in {0, 3}, f"the next pass failed: {once}"
    assert "OtherDirectory" not in {hold["reason"] for hold in once.document["holds"]}
    assert "FilesVanished" not in {note["about"] for note in once.document["notes"]}, (
        "it takes its own act for another's"
    )
    check_that_nothing_is_lost(template, place)
    for image in template.scenario.needed:
        assert (keeper.tree.base_dir / base_of(image)).is_file(), f"{image} is needed and not in the cache"
    for image in template.scenario.unused:
        assert not (keeper.tree.base_dir / base_of(image)).exists(), f"{image} is unused and stays: {once}"
    assert half_made(place) == []
    owners = {path: path.lstat().st_uid for path in (place / "instances").rglob("*")}
    assert {path for path, uid in owners.items() if uid != template.scenario.owner} == set(), "not nova's own any more"
    assert (again.status, again.document["outcome"]) == (0, "Clean"), f"a third pass has something to do: {again}"


def half_made(place: Path) -> list[Path]:
    """Drafts, and entries of the quarantine that are no entry."""
    instances = place / "instances"
    drafts = [path for path in instances.rglob("*") if path.name.endswith(".new") or ".basekeeper-" in path.name]
    drafts = [path for path in drafts if path != instances / ".basekeeper-id"]
    entries = list(instances.glob("_base/.basekeeper/quarantine/*"))
    broken = [
        path for path in entries
        if not path.is_dir() or len(os.listdir(path)) != 2 or not (path / "entry.json").is_file()
    ]  # fmt: skip
    return [*drafts, *broken]


def in_parallel(work: Callable[[T], str | None], calls: Sequence[T]) -> list[str]:
    """What went wrong, a line for each call where something did."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return [wrong for wrong in pool.map(work, calls) if wrong is not None]


def problem(call: Call, check: Callable[[], None]) -> str | None:
    """What is wrong after `call` was interfered with; all cases are shown, not the first one only."""
    try:
        check()
    except AssertionError as error:
        return f"at {call}: {error}"
    return None


@by_name
def test_killed_at_any_change_it_loses_nothing_and_the_next_pass_tidies_up(
    scenario: Scenario, template: Callable[[Scenario], Template], drivers: Queue[Warm]
) -> None:
    built = template(scenario)

    def kill_at(call: Call) -> str | None:
        with copied(built.place, scenario.owner) as place, driver(drivers) as warm:
            kill = f"inject={call.name}:signal=KILL:when={call.when}"
            ended, calls, end = traced(scenario, place, warm, "-e", kill)

            def check() -> None:
                assert "killed by SIGKILL" in end, f"it was not killed: {ended}"
                assert (calls[-1].name, calls[-1].when) == (call.name, call.when), f"it was killed at {calls[-1]}"
                check_that_nothing_is_lost(built, place)
                check_that_the_next_passes_tidy_up(built, place, warm)

            return problem(call, check)

    calls = [call for call in built.calls if call.changes and call.touches_files]
    assert calls, "nothing was traced"
    assert in_parallel(kill_at, calls) == []


FAILURES = {
    "mkdir": ("ENOSPC", "EROFS", "EACCES"),
    "openat": ("ENOSPC", "EROFS", "EACCES", "EIO"),
    "write": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO",),
    "rename": ("EACCES", "EROFS", "EIO"),
    "renameat2": ("EACCES", "EROFS", "EIO", "ENOSPC"),
    "unlink": ("EIO", "EROFS"),
    "rmdir": ("EIO",),
    "lchown": ("EPERM", "EROFS"),
    "chmod": ("EPERM",),
    "utimensat": ("EACCES", "EROFS"),
}
"""The errors that a call may well end with."""


def may_fail_quietly(call: Call) -> bool:
    """What another call makes good, or a later pass, or what failed in the first place."""
    cleared_by_the_next_sweep = call.name in {"unlink", "rmdir"} and "/.basekeeper/quarantine/" in call.text
    tried_again_in_this_pass = call.name == "renameat2" and "quarantine/" in call.text.partition(", AT_FDCWD")[0]
    sqlite_goes_on = call.name == "fdatasync" or "/ledger.db" in call.text
    belongs_to_another_user = call.name == "utimensat"
    kept_back_in_better_times = "/.basekeeper/reserve" in call.text
    return (
        cleared_by_the_next_sweep or kept_back_in_better_times or tried_again_in_this_pass or sqlite_goes_on
        or belongs_to_another_user or " = -1 " in call.text
    )  # fmt: skip


def was_hit(call: Call, calls: Sequence[Call]) -> bool:
    """Whether the error came at such a call: a pass also looks into /proc, where other processes come and go."""
    failed = (done for done in calls if done.text.endswith("(INJECTED)"))
    return any(done.changes == call.changes and done.touches_files for done in failed)


def check_sentence(ended: Ended) -> None:
    """One line for people, which says more than the system's words for the error."""
    assert re.fullmatch(r"basekeeper: [^\n]+\n", ended.stderr), f"no sentence: {ended.stderr}"
    assert len(ended.stderr.split(": ", 2)) > 2 or "(" in ended.stderr, f"it does not say what failed: {ended.stderr}"
    if ended.document.get("kind") == "Pass":
        assert ended.document["outcome"] == "Failed", ended


@by_name
def test_a_call_that_fails_loses_nothing_and_is_told_in_one_sentence(
    scenario: Scenario, template: Callable[[Scenario], Template], drivers: Queue[Warm]
) -> None:
    built = template(scenario)

    def fail_at(case: tuple[Call, str, str]) -> str | None:
        call, error, and_on = case
        for _ in range(ATTEMPTS):
            with copied(built.place, scenario.owner) as place, driver(drivers) as warm:
                failure = f"inject={call.name}:error={error}:when={call.when}{and_on}"
                ended, calls, _ = traced(scenario, place, warm, "-e", failure)
                if and_on or was_hit(call, calls):
                    return judged(call, error, ended, place, warm)
        return f"at {call}: could not be hit, the calls before it are others each time"

    def judged(call: Call, error: str, ended: Ended, place: Path, warm: Warm) -> str | None:
        def check() -> None:
            if not may_fail_quietly(call):
                assert ended.status == 1, f"{error} went unnoticed: {ended}"
            if ended.status == 1:
                check_sentence(ended)
            check_that_nothing_is_lost(built, place)
            check_that_the_next_passes_tidy_up(built, place, warm)

        return problem(call, check)

    calls = [call for call in built.calls if call.touches_files and call.name in FAILURES]
    calls = [call for call in calls if call.changes or call.name in SYNCS]
    cases = [(call, FAILURES[call.name][call.when % len(FAILURES[call.name])], "") for call in calls]
    # And from the first one on: a disk that stays full, or was remounted read-only.
    first = {call.name: call for call in reversed(calls) if call.name not in {"openat", "write"}}
    cases += [(call, error, "+") for call in first.values() for error in FAILURES[call.name]]
    assert in_parallel(fail_at, cases) == []
