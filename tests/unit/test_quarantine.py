"""The quarantine on real files: a removed file stays whole, comes back whole, and never replaces another."""

import ctypes
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache import durable, quarantine
from basekeeper.cache.evidence import CachedFile, FileType, QuarantineEntry
from basekeeper.cache.names import parse
from basekeeper.cache.quarantine import Occupied, directory, file_of, give_back, inode_of, prepare, purge, put, sweep
from tests.unit.judging import HOUR, NOW, ORIGINAL, PARTIAL

NAME = ORIGINAL.decode()
CONTENT = b"the only copy"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A cache with a quarantine and one original."""
    base = tmp_path / "_base"
    base.mkdir()
    prepare(base)
    (base / NAME).write_bytes(CONTENT)
    return base


def seen(path: Path) -> CachedFile:
    """A file as the inventory sees it."""
    found = path.stat()
    return CachedFile(
        name=parse(os.fsencode(path.name)),
        type=FileType.REGULAR,
        inode=inode_of(found),
        size=found.st_size,
        allocated=found.st_blocks * 512,
        links=found.st_nlink,
        mtime=found.st_mtime,
    )


def put_away(base: Path, name: str = NAME, users: tuple[str, ...] = ()) -> QuarantineEntry:
    return put(base, seen(base / name), now=NOW, due_at=NOW + HOUR, reason="Expired", users=users)


def tree(base: Path) -> list[str]:
    """Every path under the cache."""
    return sorted(str(path.relative_to(base)) for path in base.rglob("*"))


def told(base: Path) -> list[str | None]:
    """The paths of which the quarantine says that they cannot be understood; nothing in them is ever due by itself."""
    entries, notes = quarantine.read(base)
    assert [entry for entry in entries if entry.due_at < 2e11] == []
    assert {note.about for note in notes} <= {"QuarantineEntryUnreadable"}
    return [note.path for note in notes]


def test_a_removed_file_waits_whole_beside_what_is_needed_to_bring_it_back(base: Path) -> None:
    entry = put_away(base, users=("a/disk", "domain 7"))
    assert not (base / NAME).exists()
    assert file_of(base, entry).read_bytes() == CONTENT
    assert quarantine.read(base) == ((entry,), ())


def test_a_removed_file_comes_back_as_it_was(base: Path) -> None:
    before = seen(base / NAME)
    give_back(base, put_away(base))
    assert (base / NAME).read_bytes() == CONTENT
    assert seen(base / NAME) == before
    assert tree(base) == [".basekeeper", ".basekeeper/quarantine", NAME]


def test_a_purge_leaves_nothing_behind(base: Path) -> None:
    purge(base, put_away(base))
    assert tree(base) == [".basekeeper", ".basekeeper/quarantine"]


def test_several_files_of_one_name_wait_beside_each_other(base: Path) -> None:
    put_away(base)
    (base / NAME).write_bytes(b"another")
    put_away(base)
    entries, _ = quarantine.read(base)
    assert sorted(file_of(base, entry).read_bytes() for entry in entries) == [b"another", CONTENT]


def test_what_comes_back_never_replaces_another_file(base: Path) -> None:
    entry = put_away(base)
    (base / NAME).write_bytes(b"newer")
    with pytest.raises(Occupied, match=NAME):
        give_back(base, entry)
    assert (base / NAME).read_bytes() == b"newer"
    assert file_of(base, entry).read_bytes() == CONTENT
    assert quarantine.read(base) == ((entry,), ())


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a dangling symbolic link": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES)
def test_nothing_of_any_kind_is_replaced(base: Path, obstacle: Callable[[Path], object]) -> None:
    entry = put_away(base)
    obstacle(base / NAME)
    before = os.lstat(base / NAME)
    with pytest.raises(Occupied):
        give_back(base, entry)
    assert os.lstat(base / NAME).st_ino == before.st_ino
    assert file_of(base, entry).read_bytes() == CONTENT


def test_a_file_that_is_gone_leaves_no_entry(base: Path) -> None:
    file = seen(base / NAME)
    (base / NAME).unlink()
    with pytest.raises(FileNotFoundError):
        put(base, file, now=NOW, due_at=NOW, reason="Expired", users=())
    assert tree(base) == [".basekeeper", ".basekeeper/quarantine"]


def test_a_side_car_that_cannot_be_written_leaves_the_file_where_it_was(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(quarantine, "write_new", full)
    with pytest.raises(OSError, match="No space left"):
        put_away(base)
    assert tree(base) == [".basekeeper", ".basekeeper/quarantine", NAME]


def test_the_side_car_is_there_before_the_file_comes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def synced(path: Path) -> None:
        order.append(f"sync of {'the entry' if path.parent == directory(base) else path.name}")

    def renamed(source: Path, target: Path) -> None:
        assert json.loads((target.parent / quarantine.SIDECAR).read_text())["name"] == NAME
        order.append("rename")
        source.rename(target)

    monkeypatch.setattr(quarantine, "sync_directory", synced)
    monkeypatch.setattr(quarantine, "rename_no_replace", renamed)
    put_away(base)
    assert order == ["sync of the entry", "sync of quarantine", "rename"]


# What a killed process leaves


def entry_directory(base: Path, **files: bytes) -> Path:
    place = directory(base) / "entry"
    place.mkdir()
    for name, content in files.items():
        (place / name.replace("entry_json", quarantine.SIDECAR)).write_bytes(content)
    return place


def document(**changed: Any) -> bytes:
    """A side-car as `put` writes it, with changes; None takes a key away."""
    sound = {
        "version": 1,
        "name": NAME,
        "inode": 7,
        "size": 1,
        "mtime": NOW,
        "removedAt": NOW,
        "dueAt": NOW + HOUR,
        "reason": "Expired",
        "lastUsers": ["a/disk"],
    }
    return json.dumps({key: value for key, value in (sound | changed).items() if value is not ...}).encode()


FILELESS: dict[str, dict[str, bytes]] = {
    "an entry without anything": {},
    "an entry without its file": {"entry_json": document()},
    "half a side-car": {"entry_json": document()[:40]},
    "an empty side-car": {"entry_json": b""},
}


@pytest.mark.parametrize("files", FILELESS.values(), ids=FILELESS)
def test_an_entry_without_a_file_is_no_entry_and_is_swept_away(base: Path, files: dict[str, bytes]) -> None:
    place = entry_directory(base, **files)
    assert quarantine.read(base) == ((), ())
    sweep(base)
    assert not place.exists()
    assert (base / NAME).read_bytes() == CONTENT


UNSOUND: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "half": document()[:40],
    "no JSON": b"\xff\xfe",
    "no mapping": b"[]",
    "a text": b'"version"',
    "nested without end": b"[" * 100_000,
    "a newer version's": document(version=2),
    "no version": document(version=...),
    "no name": document(name=...),
    "a name of another type": document(name=7),
    "a name elsewhere": document(name="../" + NAME),
    "a name with NUL": document(name=r"\x00"),
    "a name of nothing": document(name=""),
    "its own name": document(name="entry.json"),
    "the name of its directory": document(name="."),
    "another file's name": document(name="swap_512"),
    "no text at all for a name": document(name="\ud800"),
    "no due time": document(dueAt=...),
    "a due time that is no number": document(dueAt="soon"),
    "a due time that is not a number": document(dueAt=float("nan")),
    "a due time without end": document(dueAt=float("inf")),
    "a due time that no float holds": document(dueAt=10**400),
    "a due time before the removal": document(dueAt=NOW - 1),
    "a removal before all time": document(removedAt=-1),
    "a removal that is not a number": document(removedAt=float("nan")),
    "no users": document(lastUsers=None),
}


@pytest.mark.parametrize("side_car", UNSOUND.values(), ids=UNSOUND)
def test_a_file_whose_side_car_says_nothing_sound_is_told_of_and_can_go_back(
    base: Path, side_car: bytes | None
) -> None:
    files = {NAME: CONTENT} | ({} if side_car is None else {"entry_json": side_car})
    place = entry_directory(base, **files)
    assert told(base) == [".basekeeper/quarantine/entry"]
    sweep(base)
    assert (place / NAME).read_bytes() == CONTENT
    assert told(base) == [".basekeeper/quarantine/entry"]
    (base / NAME).unlink()
    ((entry,), _) = quarantine.read(base)
    give_back(base, entry)
    assert (base / NAME).read_bytes() == CONTENT


@given(content=st.binary(max_size=300) | st.integers(0, 200).map(lambda at: document()[:at]))
def test_no_side_car_ends_a_pass(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    base = tmp_path_factory.mktemp("base")
    prepare(base)
    entry_directory(base, entry_json=content, **{NAME: CONTENT})
    entries, notes = quarantine.read(base)
    assert len(entries) == 1
    assert len(notes) <= 1


def test_a_symbolic_link_is_no_side_car(base: Path, tmp_path: Path) -> None:
    place = entry_directory(base, **{NAME: CONTENT})
    (tmp_path / "elsewhere.json").write_bytes(document())
    (place / quarantine.SIDECAR).symlink_to(tmp_path / "elsewhere.json")
    assert told(base) == [".basekeeper/quarantine/entry"]


def test_a_pipe_for_a_side_car_makes_nobody_wait(base: Path) -> None:
    place = entry_directory(base, **{NAME: CONTENT})
    os.mkfifo(place / quarantine.SIDECAR)
    assert told(base) == [".basekeeper/quarantine/entry"]


def test_a_symbolic_link_is_no_removed_file(base: Path) -> None:
    place = entry_directory(base, entry_json=document())
    (place / NAME).symlink_to(base / NAME)
    assert told(base) == [".basekeeper/quarantine/entry"]
    sweep(base)
    assert (base / NAME).read_bytes() == CONTENT


def test_a_directory_with_the_name_of_a_removed_file_is_none(base: Path) -> None:
    place = entry_directory(base, entry_json=document())
    (place / NAME).mkdir()
    assert told(base) == [".basekeeper/quarantine/entry"]


def test_a_stranger_beside_a_removed_file_survives_its_purge(base: Path) -> None:
    entry = put_away(base)
    stranger = file_of(base, entry).with_name("notes")
    stranger.write_text("mine")
    purge(base, entry)
    sweep(base)
    assert stranger.read_text() == "mine"
    assert len(told(base)) == 1


def test_an_entry_of_any_name_is_told_of_in_text(base: Path) -> None:
    place = directory(base) / os.fsdecode(b"odd\xff\n")
    place.mkdir()
    (place / NAME).write_bytes(CONTENT)
    assert told(base) == [r".basekeeper/quarantine/odd\xff\x0a"]


def test_what_is_no_directory_is_no_entry(base: Path, tmp_path: Path) -> None:
    (directory(base) / "file").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / quarantine.SIDECAR).write_bytes(document())
    (directory(base) / "link").symlink_to(tmp_path / "elsewhere")
    assert quarantine.read(base) == ((), ())
    sweep(base)
    assert (tmp_path / "elsewhere" / quarantine.SIDECAR).exists()
    assert (directory(base) / "link").is_symlink()


def test_a_cache_without_a_quarantine_has_no_entries(tmp_path: Path) -> None:
    assert quarantine.read(tmp_path) == ((), ())
    sweep(tmp_path)
    assert tree(tmp_path) == []


def test_reading_changes_nothing(base: Path) -> None:
    put_away(base)
    entry_directory(base, entry_json=b"", **{NAME: CONTENT})

    def state() -> list[tuple[str, int, int]]:
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in sorted(base.rglob("*"))]

    before = state()
    quarantine.read(base)
    assert state() == before


# The side-car


@given(
    times=st.tuples(*[st.floats(0, 253402300799, allow_nan=False)] * 2).map(sorted),
    users=st.lists(st.text(st.characters(codec="utf-8")), max_size=3),
    reason=st.text(st.characters(codec="utf-8")),
)
def test_a_side_car_tells_all_that_it_was_told(
    tmp_path_factory: pytest.TempPathFactory, times: list[float], users: list[str], reason: str
) -> None:
    base = tmp_path_factory.mktemp("base")
    prepare(base)
    (base / NAME).write_bytes(CONTENT)
    removed_at, due_at = times
    entry = put(base, seen(base / NAME), now=removed_at, due_at=due_at, reason=reason, users=tuple(users))
    assert quarantine.read(base) == ((entry,), ())


def test_sizes_and_inode_are_the_file_s_own_not_what_the_side_car_remembers(base: Path) -> None:
    entry_directory(base, entry_json=document(inode=1, size=2, mtime=3), **{PARTIAL.decode(): b""}, **{NAME: CONTENT})
    (entry,), _ = quarantine.read(base)
    found = os.stat(file_of(base, entry))
    assert (entry.inode, entry.size, entry.mtime) == (inode_of(found), len(CONTENT), found.st_mtime)


# A file system without a rename that refuses to replace


class NoSuchRename:
    """The C library on such a file system; nothing else of it is used."""

    def __init__(self, code: int) -> None:
        self.code = code

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(self.code)
        return -1


@pytest.fixture(params=[errno.EINVAL, errno.ENOSYS, errno.ENOTSUP], ids=["EINVAL", "ENOSYS", "ENOTSUP"])
def plain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_libc", NoSuchRename(request.param))


@pytest.mark.usefixtures("plain")
def test_files_move_by_link_and_unlink_where_no_other_rename_is_safe(base: Path) -> None:
    before = seen(base / NAME)
    entry = put_away(base)
    assert not (base / NAME).exists()
    give_back(base, entry)
    assert seen(base / NAME) == before
    assert tree(base) == [".basekeeper", ".basekeeper/quarantine", NAME]


@pytest.mark.usefixtures("plain")
def test_link_and_unlink_replace_nothing_either(base: Path) -> None:
    entry = put_away(base)
    (base / NAME).write_bytes(b"newer")
    with pytest.raises(Occupied):
        give_back(base, entry)
    assert (base / NAME).read_bytes() == b"newer"
    assert file_of(base, entry).read_bytes() == CONTENT


@pytest.mark.usefixtures("plain")
def test_a_symbolic_link_moves_itself_not_what_it_names(base: Path) -> None:
    (base / "link").symlink_to(NAME)
    durable.rename_no_replace(base / "link", base / "moved")
    assert (base / "moved").is_symlink()
    assert not (base / "link").is_symlink()


def test_any_other_refusal_is_told_and_nothing_moves(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_libc", NoSuchRename(errno.EROFS))
    with pytest.raises(OSError, match="Read-only file system"):
        put_away(base)
    assert tree(base) == [".basekeeper", ".basekeeper/quarantine", NAME]


def test_a_file_killed_between_link_and_unlink_has_two_names_and_a_purge_takes_one(base: Path) -> None:
    entry = put_away(base)
    os.link(file_of(base, entry), base / NAME)
    ((again,), _) = quarantine.read(base)
    assert again == replace(entry, links=2)
    assert again.reclaimable == 0
    purge(base, again)
    assert (base / NAME).read_bytes() == CONTENT


def test_our_directories_are_made_once(base: Path) -> None:
    prepare(base)
    assert directory(base).is_dir()
