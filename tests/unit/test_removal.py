"""The act on one file: what a late look finds is undone at once, and nothing is ever replaced by undoing it."""

import os
from pathlib import Path

import pytest

from basekeeper.cache import quarantine, removal
from basekeeper.cache.acts import Action, Done, Doubt
from basekeeper.cache.evidence import CachedFile, QuarantineEntry
from basekeeper.cache.inventory import scan
from basekeeper.cache.judged import Judged
from basekeeper.cache.settings import Host
from basekeeper.cache.verdicts import Reason, Verdict
from tests.unit.judging import HOUR, NOW, ORIGINAL

NAME = ORIGINAL.decode()
CONTENT = b"the only copy"
DOUBT = Doubt(Reason.USER_APPEARED, "a/disk needs it, since a moment ago")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with one original in its cache."""
    instances = tmp_path / "instances"
    base = instances / "_base"
    base.mkdir(parents=True)
    (instances / "locks").mkdir()
    quarantine.prepare(base)
    (base / NAME).write_bytes(CONTENT)
    return Host("node", instances, base, instances / "snapshots", tmp_path / "state", libvirt=None)


def judged(host: Host) -> Judged:
    (file,) = scan(host).files
    return Judged(file, Verdict.REMOVE, Reason.EXPIRED, "unused")


def remove(
    host: Host, item: Judged | None = None, finding: Doubt | Exception | None = None, *, newer: bool = False
) -> Done:
    """Remove the original while a third look finds this, and nova fetches the name again meanwhile."""

    def third_look(file: CachedFile, entry: QuarantineEntry) -> Doubt | None:
        assert quarantine.file_of(host.base, entry).read_bytes() == CONTENT
        if newer:
            (host.base / str(file.name)).write_bytes(b"newer")
        if isinstance(finding, Exception):
            raise finding
        return finding

    return removal.remove(host, item or judged(host), now=NOW, retention=HOUR, third_look=third_look)


def in_quarantine(host: Host) -> list[bytes]:
    entries, _ = quarantine.read(host.base)
    return [quarantine.file_of(host.base, entry).read_bytes() for entry in entries]


def test_what_nothing_speaks_for_goes_into_the_quarantine(host: Host) -> None:
    done = remove(host)
    assert done.action is Action.QUARANTINED
    assert done.entry is not None
    assert (done.entry.removed_at, done.entry.due_at, done.entry.reason) == (NOW, NOW + HOUR, "Expired")
    assert not (host.base / NAME).exists()


UNDONE: dict[str, tuple[Doubt | Exception, Action]] = {
    "a user": (DOUBT, Action.SKIPPED),
    "an error of the system": (OSError(5, "Input/output error"), Action.FAILED),
    "an error of ours": (RuntimeError("a bug"), Action.FAILED),
}


@pytest.mark.parametrize(("finding", "action"), UNDONE.values(), ids=UNDONE)
def test_what_the_third_look_finds_brings_the_file_back(host: Host, finding: Doubt | Exception, action: Action) -> None:
    done = remove(host, finding=finding)
    assert (done.action, done.failure is None) == (action, action is not Action.FAILED)
    assert (host.base / NAME).read_bytes() == CONTENT
    assert in_quarantine(host) == []


@pytest.mark.parametrize("finding", [finding for finding, _ in UNDONE.values()], ids=UNDONE)
def test_a_file_whose_name_was_taken_meanwhile_stays_whole_in_the_quarantine(
    host: Host, finding: Doubt | Exception
) -> None:
    done = remove(host, finding=finding, newer=True)
    assert done.action is Action.SKIPPED
    assert done.doubt is not None
    assert done.doubt.reason is Reason.CONFLICT
    assert (host.base / NAME).read_bytes() == b"newer"
    assert in_quarantine(host) == [CONTENT]


def test_a_file_that_was_touched_since_it_was_judged_stays(host: Host) -> None:
    item = judged(host)
    os.utime(host.base / NAME)
    assert remove(host, item).action is Action.SKIPPED
    assert (host.base / NAME).read_bytes() == CONTENT


def test_a_file_that_is_gone_since_it_was_judged_is_no_failure(host: Host) -> None:
    item = judged(host)
    (host.base / NAME).unlink()
    assert remove(host, item).action is Action.SKIPPED


def purged(host: Host, *, as_copy: bool) -> Done:
    ((entry,), _) = quarantine.read(host.base)
    return removal.purge(host, entry, lambda _: None, as_copy=as_copy)


def test_a_copy_is_purged_only_while_it_is_one(host: Host) -> None:
    remove(host)
    (host.base / NAME).write_bytes(CONTENT[::-1])
    done = purged(host, as_copy=True)
    assert done.doubt is not None
    assert (done.action, done.doubt.reason) == (Action.SKIPPED, Reason.CONFLICT)
    assert in_quarantine(host) == [CONTENT]
    (host.base / NAME).write_bytes(CONTENT)
    assert purged(host, as_copy=True).action is Action.PURGED
    assert (host.base / NAME).read_bytes() == CONTENT


def test_a_copy_of_a_file_that_is_gone_is_not_purged(host: Host) -> None:
    remove(host)
    assert purged(host, as_copy=True).action is Action.FAILED
    assert in_quarantine(host) == [CONTENT]


def test_what_goes_back_counts_as_used_now(host: Host) -> None:
    os.utime(host.base / NAME, (1, 1))
    remove(host)
    ((entry,), _) = quarantine.read(host.base)
    assert removal.restore(host, entry).action is Action.RESTORED
    assert (host.base / NAME).stat().st_mtime > 1e9


SIZES = {"nothing": 0, "a byte": 1, "one block and a byte": (4 << 20) + 1}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_contents_are_compared_to_the_last_byte(tmp_path: Path, size: int) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for path in (one, same):
        path.write_bytes(bytes(size))
    other.write_bytes(bytes(size)[:-1] + b"x")
    assert removal.same_content(one, same)
    assert not removal.same_content(one, other)
