"""What old clouds have left behind, one case each: real qemu-img trees and what must be said of every base.

The expectations are nova's behaviour and the project's rules, written down before the program was asked. In every
tree lie two bases that have not been touched for a month: one that the case is about, and one that nothing names, by
which it shows whether a case holds removals up.
"""

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.nova_tree import DAY, HOUR, MIB, NovaTree, image_file_name

from .cli import ENFORCE, Basekeeper, Spec

USED, UNUSED = image_file_name("used"), image_file_name("unused")
OTHER, MISSING = image_file_name("other"), image_file_name("missing")
NEEDED, GOES, HELD = "Keep(InUseByOverlay)", "Remove(Expired)", "Hold(UnknownUsage)"
FOREIGN, NO_FILE, LEFTOVER = "Foreign(ForeignName)", "Foreign(NotAFile)", "Remove(StalePartial)"
MONTH = 30 * DAY
JSON_TREE = 'json:{"driver":"raw","file":{"driver":"file","filename":"{base}/' + USED + '"}}'
JSON_FLAT = 'json:{"file.filename":"{base}/' + USED + '"}'
SECRET = ("--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")
Builder = Callable[[NovaTree], object]


@dataclass(frozen=True)
class Case:
    """A tree, and what must be said of it."""

    name: str
    build: Builder
    used: str = NEEDED
    unused: str = GOES
    others: Mapping[str, str] = field(default_factory=dict)
    """Further files of the cache."""
    notes: frozenset[str] = frozenset()
    """What the notes must be about; everything else in them is unasked."""
    spec: Spec = field(default_factory=lambda: ENFORCE)
    spawn_grace: str = "0s"

    @property
    def status(self) -> int:
        """Held is 3, whatever else is said."""
        return 3 if any(said.startswith("Hold") for said in (self.used, self.unused, *self.others.values())) else 0


def unused(name: str, build: Builder, **more: object) -> Case:
    """A case in which nothing needs either base, and nothing is held."""
    return Case(name, build, used=GOES, **more)  # type: ignore[arg-type]


def held(name: str, build: Builder, *, used: str = HELD, **more: object) -> Case:
    """A case in which it cannot be known what is needed."""
    return Case(name, build, used=used, unused=HELD, **more)  # type: ignore[arg-type]


def qemu_img(*arguments: object) -> None:
    # To make a LUKS header qemu measures its own processor time, and gives up where the kernel counts that coarsely.
    for _ in range(50):
        made = subprocess.run(["qemu-img", *map(str, arguments)], check=False, timeout=60, capture_output=True)
        if b"Unable to get accurate CPU usage" not in made.stderr:
            assert made.returncode == 0, made.stderr
            return
    pytest.fail("qemu-img never got an accurate processor time")


def base(tree: NovaTree, name: str = USED) -> Path:
    return tree.base_dir / name


def overlay(instance: str = "machine", disk: str = "disk", backing: str | None = None, **more: object) -> Builder:
    """An overlay of the base in question, or of whatever `backing` says (`{base}` is the cache)."""

    def build(tree: NovaTree) -> Path:
        spec = base(tree) if backing is None else backing.replace("{base}", str(tree.base_dir))
        return tree.add_overlay(instance, spec, disk=disk, **more)  # type: ignore[arg-type]

    return build


def created(*options: str, form: str = "qcow2", backing: str = USED, disk: str = "disk") -> Builder:
    """A disk that qemu-img makes with some options."""

    def build(tree: NovaTree) -> Path:
        path = tree.instance("machine") / disk
        named = [option.replace("{base}", str(tree.base_dir)).replace("{dir}", str(path.parent)) for option in options]
        chain = ["-b", base(tree, backing), "-F", "raw"] if backing else []
        qemu_img("create", "-q", *named, "-f", form, *chain, path, MIB)
        return path

    return build


def chain(length: int) -> Builder:
    """Overlays upon overlays, by relative names; the last one is on the base."""

    def build(tree: NovaTree) -> None:
        directory = tree.instance("machine")
        backing, form = f"../_base/{USED}", "raw"
        for number in range(length - 1, -1, -1):
            name = f"layer{number}" if number else "disk"
            qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", form, "-b", backing, directory / name, MIB)
            backing, form = name, "qcow2"

    return build


def loop(tree: NovaTree) -> None:
    for name, backing in (("disk", "other"), ("other", "disk")):
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, tree.instance("m") / name, MIB)


def patched(disk: Path, *patches: tuple[int, bytes]) -> Path:
    """Overwrite bytes of a disk."""
    with disk.open("r+b") as file:
        for offset, content in patches:
            file.seek(offset)
            file.write(content)
    return disk


def far_name(tree: NovaTree) -> None:
    """The backing file's name a MiB into the header's cluster of two, where the format allows it."""
    disk = created("-o", "cluster_size=2M")(tree)
    assert isinstance(disk, Path)
    name = os.fsencode(base(tree))
    patched(disk, (8, struct.pack(">QI", MIB, len(name))), (MIB, name))
    said = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True, timeout=60)
    assert json.loads(said.stdout)["backing-filename"] == str(base(tree)), "qemu itself reads it otherwise"


def header_naming_the_base(path: Path, tree: NovaTree) -> Path:
    """The bytes that a guest writes who wants its disk to be taken for an overlay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", base(tree), path, MIB)
    return path


def crafted(disk: str = "disk", declared: str | None = "raw", instance: str = "machine") -> Builder:
    def build(tree: NovaTree) -> None:
        header_naming_the_base(tree.instance(instance) / disk, tree)
        if declared:
            tree.declare(instance, disk, declared)

    return build


def renamed(build: Builder, suffix: str) -> Builder:
    """The same instance after nova renamed its directory."""

    def rename(tree: NovaTree) -> None:
        build(tree)
        tree.rename_instance("machine", f"machine{suffix}")

    return rename


def several(*builders: Builder) -> Builder:
    return lambda tree: [build(tree) for build in builders]


def linked_directory(tree: NovaTree) -> None:
    overlay()(tree)
    elsewhere = tree.instances_path.parent / "elsewhere"
    shutil.move(tree.instances_path / "machine", elsewhere)
    (tree.instances_path / "machine").symlink_to(elsewhere)


def linked_disk(tree: NovaTree) -> None:
    overlay()(tree)
    disk = tree.instances_path / "machine" / "disk"
    disk.symlink_to(disk.rename(tree.instances_path.parent / "volume"))


def nested(depth: int) -> Builder:
    def build(tree: NovaTree) -> None:
        path = tree.instance("machine").joinpath(*["deeper"] * depth)
        path.mkdir(parents=True, exist_ok=True)
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base(tree), path / "disk", MIB)

    return build


def snapshot_delta(tree: NovaTree) -> None:
    path = tree.instances_path / "snapshots" / "tmp4a7x"
    path.mkdir(parents=True)
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base(tree), path / "0f3c9a.delta", MIB)


def second_ephemeral(tree: NovaTree) -> None:
    ephemeral = tree.add_ephemeral(1, age=MONTH)
    for disk in ("disk.eph0", "disk.eph1"):
        tree.add_overlay("machine", ephemeral if disk == "disk.eph1" else base(tree), disk=disk)


def base_over_a_base(declared_as: str) -> Builder:
    """A base of qcow2 format over another one; with `raw` only its content, which is a user's, says so."""

    def build(tree: NovaTree) -> None:
        base(tree).unlink()
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base(tree, UNUSED), base(tree), MIB)
        tree.age(base(tree), MONTH)
        overlay(backing=f"{{base}}/{USED}", backing_format=declared_as)(tree)

    return build


def rescued_once(tree: NovaTree) -> None:
    overlay()(tree)
    tree.declare("machine", "disk.rescue", "qcow2")


def registered(host: str, age: float) -> Builder:
    return lambda tree: tree.register_host(host, age=age)


def registry_of(content: str) -> Builder:
    return lambda tree: (tree.instances_path / "compute_nodes").write_text(content)


def hard_link(tree: NovaTree) -> None:
    overlay()(tree)
    base(tree, OTHER).hardlink_to(base(tree))


def outside_hard_link(tree: NovaTree) -> None:
    (tree.instances_path.parent / "kept-by-somebody").hardlink_to(base(tree))


def link_in_the_cache(tree: NovaTree) -> None:
    """An overlay of a name that leads to another base."""
    base(tree, OTHER).symlink_to(USED)
    tree.add_overlay("machine", f"{tree.base_dir}/{OTHER}")


def link_out_of_the_cache(tree: NovaTree) -> None:
    base(tree, OTHER).symlink_to(tree.instances_path.parent / "old-cache")


def strange_disks(tree: NovaTree) -> None:
    directory = tree.instance("machine")
    os.mkfifo(directory / "disk")
    (directory / "disk.local").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(directory)  # the address of a socket is short, a temporary directory's path may not be
    try:
        listener.bind("disk.swap")
    finally:
        os.chdir(here)
        listener.close()


def strange_entries(tree: NovaTree) -> None:
    (base(tree, OTHER)).mkdir()
    os.mkfifo(base(tree, MISSING))


def dangling(tree: NovaTree) -> None:
    (tree.instance("machine") / "disk").symlink_to("/nowhere/at/all")
    (tree.instances_path / "gone").symlink_to("/nowhere/at/all")


def large_info(tree: NovaTree) -> None:
    crafted(declared=None)(tree)
    disks = {f"/instances/machine/{'x' * 200}{number}": "raw" for number in range(45000)}
    info = json.dumps({**disks, str(tree.instances_path / "machine" / "disk"): "raw"})
    assert len(info) > 10 * MIB
    (tree.instances_path / "machine" / "disk.info").write_text(info)


def name_past_the_end(tree: NovaTree) -> None:
    disk = created()(tree)
    assert isinstance(disk, Path)
    patched(disk, (8, struct.pack(">QI", 1 << 40, 40)))


def with_bytes(*patches: tuple[int, bytes]) -> Builder:
    def build(tree: NovaTree) -> None:
        disk = created()(tree)
        assert isinstance(disk, Path)
        patched(disk, *patches)

    return build


def with_content(content: bytes, declared: str | None = None, disk: str = "disk") -> Builder:
    def build(tree: NovaTree) -> None:
        (tree.instance("machine") / disk).write_bytes(content)
        if declared:
            tree.declare("machine", disk, declared)

    return build


def moved_cache(tree: NovaTree) -> None:
    """`_base` is a symbolic link, as where operators moved it to another disk."""
    elsewhere = tree.instances_path.parent / "big-disk"
    shutil.move(tree.base_dir, elsewhere)
    tree.base_dir.symlink_to(elsewhere)
    tree.add_overlay("machine", str(elsewhere / USED))


def other_host_s_cache(tree: NovaTree) -> None:
    """A directory of another `subdirectory_name`, in which a base of the same image lies."""
    other = tree.instances_path / "_base_192.0.2.7"
    other.mkdir()
    shutil.copy2(base(tree), other / USED)
    tree.add_overlay("machine", str(other / USED))


def console_log(tree: NovaTree) -> None:
    header_naming_the_base(tree.instance("machine") / "console.log", tree)


NEEDS = [
    Case("an absolute name", overlay()),
    Case("a relative name", overlay(backing=f"../_base/{USED}")),
    Case("a name with file:", overlay(backing=f"file:{{base}}/{USED}")),
    Case("a json: name", overlay(backing=JSON_TREE)),
    Case("a json: name with a flat key", overlay(backing=JSON_FLAT)),
    Case("a remote name that is a base's", overlay(backing=f"nbd://192.0.2.1:10809/{USED}")),
    Case("a chain of three", chain(3)),
    Case("a chain of three hundred", chain(300)),
    Case("a name far into a header of two MiB", far_name),
    Case("version 2", created("-o", "compat=0.10")),
    Case("version 3", created("-o", "compat=1.1")),
    Case("version 1", created(form="qcow")),
    Case("the smallest clusters", created("-o", "cluster_size=512")),
    Case("an external data file", created("-o", "data_file={dir}/data")),
    Case("a cache file as external data", created("-o", f"data_file={{base}}/{USED}", backing="")),
    Case("an encrypted overlay", created(*SECRET)),
    Case("a disk that disk.info does not name", several(overlay(declare=False), crafted("disk.config"))),
    Case("a guest's header on an undeclared disk", crafted(declared=None)),
    Case("a directory in _resize", renamed(overlay(), "_resize")),
    Case("a directory in _del", renamed(overlay(), "_del")),
    Case("a directory of the old template", overlay("instance-0000001a")),
    Case("a directory of a custom template", overlay("web tier #7 ü")),
    Case("a linked instance directory", linked_directory),
    Case("a linked disk", linked_disk),
    Case("a nested directory", nested(2)),
    Case("a live snapshot's delta", snapshot_delta),
    Case("disk.local", overlay(disk="disk.local")),
    Case("disk.eph0", overlay(disk="disk.eph0")),
    Case("disk.swap", overlay(disk="disk.swap")),
    Case("disk.rescue", overlay(disk="disk.rescue")),
    Case("disk.swap.rescue", overlay(disk="disk.swap.rescue")),
    Case("a copy of a disk under any name", overlay(disk="before-the-upgrade.bak")),
    Case("a second ephemeral disk", second_ephemeral, others={"ephemeral_1_0706d66": NEEDED}),
    Case("a base over another base", base_over_a_base("qcow2"), unused=NEEDED),
    Case("a base whose content, declared raw, names another", base_over_a_base("raw")),
    Case("a machine that was rescued once", rescued_once),
    Case("two names of one base", hard_link, others={OTHER: NEEDED}),
    Case("a link in the cache", link_in_the_cache, others={OTHER: NO_FILE}),
    Case("a disk.info of ten MiB", large_info, notes=frozenset({"DiskInfoUnreadable"})),
    Case("a cache that is a link", moved_cache),
    Case("a name in another host's cache", other_host_s_cache),
]  # fmt: skip

REMOVE_CACHED: Spec = {**ENFORCE, "cachedOnly": "Remove"}

NEEDS_NOTHING = [
    unused("a loop", loop, notes=frozenset({"ChainLoop"})),
    unused("a missing base under _del", renamed(overlay(backing=f"{{base}}/{MISSING}"), "_del")),
    unused("a missing base under _resize", renamed(overlay(backing=f"{{base}}/{MISSING}"), "_resize")),
    unused("a missing base under a machine", overlay(backing=f"{{base}}/{MISSING}")),
    unused("a remote name that is no base's", overlay(backing="rbd:volumes/volume-7")),
    unused("a guest's header on a raw disk", crafted(), spec=REMOVE_CACHED),
    unused("a guest's header on a raw disk in _resize", renamed(crafted(), "_resize"), spec=REMOVE_CACHED),
    unused("a guest's header in the console log", console_log),
    unused("a raw disk", with_content(b"\0" * 4096, "raw"), spec=REMOVE_CACHED),
    unused("a FIFO, a socket and a directory named like disks", strange_disks, notes=frozenset({"NotAFile"})),
    unused("links that lead nowhere", dangling, notes=frozenset({"DanglingLink"})),
    unused("an empty disk where nothing can be starting", with_content(b"", "qcow2")),
    unused("a directory and a FIFO in the cache", strange_entries, others={OTHER: NO_FILE, MISSING: NO_FILE}),
    unused("a link out of the cache", link_out_of_the_cache, others={OTHER: NO_FILE}),
    unused("a hard link from outside", outside_hard_link),
    unused("a host that is long gone", registered("other", 26 * HOUR), notes=frozenset({"RegistryStale"})),
    unused("this host alone in the registry", registered(socket.gethostname(), HOUR)),
    unused("a registry that was cut off", registry_of('{"other": 17'), notes=frozenset({"RegistryUnreadable"})),
    unused("an empty registry", registry_of(""), notes=frozenset({"RegistryUnreadable"})),
]  # fmt: skip

SHARED = "Hold(SharedStorage)"
NO_IMAGE = "Hold(ImageUnknown)"
SPAWN = "Hold(SpawnInProgress)"

HOLDS = [
    held("a middle of a chain that is missing", overlay(backing="gone.qcow2")),
    held("a name past the end of the file", name_past_the_end),
    held("a version nobody knows", with_bytes((4, struct.pack(">I", 99)))),
    held("a header cut within its magic", with_content(b"QFI", "qcow2")),
    held("a header cut after its magic", with_content(b"QFI\xfb\0\0\0\3", "qcow2")),
    held("a disk declared qcow2 that is none", with_content(b"\0" * 4096, "qcow2")),
    held("a disk declared in a format nobody reads", with_content(b"KDMV" + b"\0" * 4096, "vmdk")),
    held("features nobody knows", with_bytes((72, struct.pack(">Q", 1 << 40))), used=NEEDED),
    held("a json: name without a file name", overlay(backing='json:{"driver":"quorum"}')),
    held("a protocol nobody knows", overlay(backing="warp:/space")),
    held("directories without end", nested(9)),
    held("an empty disk where something may be starting", with_content(b"", "qcow2"), spawn_grace="10m"),
    Case("another host in the registry", registered("other", HOUR), SHARED, SHARED),
    Case("another host with a fast clock", registered("other", -2 * HOUR), SHARED, SHARED),
    Case("a raw disk, and nothing says of which image", with_content(b"\0" * 4096, "raw"), NO_IMAGE, NO_IMAGE),
    Case("a guest's header on a raw disk of no known image", crafted(), NO_IMAGE, NO_IMAGE),
    Case("an overlay that may be starting", overlay(), NEEDED, SPAWN, spawn_grace="10m"),
    Case("a directory that may be starting", lambda tree: tree.instance("machine"), SPAWN, SPAWN, spawn_grace="10m"),
]  # fmt: skip

H = image_file_name("named")
NAMES = {
    f"{H}": GOES,
    f"{H}_20": GOES,
    f"{H}_5": GOES,  # nova's length test never sees it
    f"{H}_10737418240": GOES,
    f"{H}_sm": GOES,
    f"{H}.part": LEFTOVER,
    f"{H}.converted": LEFTOVER,
    f"{H}.sha1": LEFTOVER,
    f"{H}.info": LEFTOVER,
    f"{H}_20.part": LEFTOVER,
    f"{H}_20.info": LEFTOVER,
    f".{H}.AbC123": LEFTOVER,
    ".nfs000000000a1b2c3d00000001": "Keep(OpenInProcess)",
    "swap_512": GOES,
    "swap_512_512": GOES,
    "ephemeral_20_0706d66": GOES,
    "ephemeral_20_40d1d2c": GOES,
    "ephemeral_20_default": GOES,
    "ephemeral_0_20_None": GOES,
    "ephemeral_20_backup": FOREIGN,
    "ephemeral_20": FOREIGN,
    "swap_": FOREIGN,
    "swap_512.part": FOREIGN,
    H.upper(): FOREIGN,
    H[:39]: FOREIGN,
    f"{H}0": FOREIGN,
    f"{H}_": FOREIGN,
    f"{H}_20_20": FOREIGN,
    f"{H}_sm2": FOREIGN,
    f"{H}.bak": FOREIGN,
    f"{H}.part.bak": FOREIGN,
    f" {H}": FOREIGN,
    "z" * 40: FOREIGN,
    "lost.txt": FOREIGN,
    "\\x5c": FOREIGN,
}
BYTES_NAMES = {b"\xff\xfe": r"\xff\xfe", f"{H}\n".encode(): rf"{H}\x0a", b"tab\there": r"tab\x09here"}


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    if shutil.which("qemu-img") is None:
        pytest.fail("qemu-img is not installed; scripts/setup installs what the tests need", pytrace=False)
    return Basekeeper(tree, tmp_path / "state")


@pytest.mark.parametrize("case", [*NEEDS, *NEEDS_NOTHING, *HOLDS], ids=lambda case: case.name)
def test_a_base_is_kept_held_or_let_go_as_the_case_demands(tree: NovaTree, keeper: Basekeeper, case: Case) -> None:
    tree.add_base("used", age=MONTH, seed=1)
    tree.add_base("unused", age=MONTH, seed=2)
    case.build(tree)
    for name in (USED, UNUSED):  # qemu-img and the kernel touch what they are given
        if base(tree, name).is_file():
            tree.age(base(tree, name), MONTH)
    keeper.spawn_grace = case.spawn_grace

    answer = keeper.plan(case.spec)

    expected = {USED: case.used, UNUSED: case.unused, **case.others}
    assert {name: answer.verdict(name) for name in expected} == expected, answer
    assert answer.status == case.status, answer
    assert bool(answer.document["holds"]) == (case.status == 3)
    assert {note["about"] for note in answer.document["notes"]} >= case.notes


@pytest.mark.parametrize("case", NEEDS, ids=lambda case: case.name)
def test_a_pass_leaves_what_is_needed_where_it_is(tree: NovaTree, keeper: Basekeeper, case: Case) -> None:
    tree.add_base("used", age=MONTH, seed=1)
    tree.add_base("unused", age=MONTH, seed=2)
    case.build(tree)
    before = base(tree).lstat()

    answer = keeper.run(case.spec)

    after = base(tree).lstat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert answer.status == 0, answer
    assert base(tree, UNUSED).exists() == (case.unused == NEEDED)


def test_a_name_decides_what_may_ever_go(tree: NovaTree, keeper: Basekeeper) -> None:
    names: list[str | bytes] = [*NAMES, *BYTES_NAMES]
    for name in names:
        tree.add_file(name, size=4096, age=MONTH)

    answer = keeper.plan({**ENFORCE, "limits": {"maxPercent": 100, "maxFiles": 1000}})

    shown = {
        **{name.replace("\\", r"\x5c"): said for name, said in NAMES.items()},
        **dict.fromkeys(BYTES_NAMES.values(), FOREIGN),
    }
    assert {row["name"]: f"{row['verdict']}({row['reason']})" for row in answer.document["files"]} == shown


AGES = {
    "a day less an hour": (23 * HOUR, "Keep(TooYoung)"),
    "a day and an hour": (25 * HOUR, GOES),
    "in the future": (-DAY, "Keep(TooYoung)"),
}


@pytest.mark.parametrize(("age", "said"), AGES.values(), ids=AGES)
def test_a_base_goes_after_a_day(tree: NovaTree, keeper: Basekeeper, age: float, said: str) -> None:
    tree.add_base("unused", age=age)
    assert keeper.plan().verdict(UNUSED) == said


def test_a_base_without_a_time_stamp_is_never_old(tree: NovaTree, keeper: Basekeeper) -> None:
    os.utime(tree.add_base("unused"), (0, 0))
    answer = keeper.plan()
    assert (answer.verdict(UNUSED), answer.file(UNUSED)["ageSeconds"]) == ("Keep(TooYoung)", None)


def test_what_another_link_keeps_frees_nothing(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_base("used", age=MONTH)
    outside_hard_link(tree)
    assert keeper.plan().file(USED)["bytes"] == 0


def test_a_whole_cloud_of_cases_keeps_every_base_that_any_of_them_needs(tree: NovaTree, keeper: Basekeeper) -> None:
    """All overlays of all shapes in one tree, each on a base of its own; nothing of one case disturbs another."""
    shapes: dict[str, Callable[[Path], str | Path]] = {
        "absolute": lambda path: path,
        "relative": lambda path: f"../_base/{path.name}",
        "file": lambda path: f"file:{path}",
        "json": lambda path: "json:" + json.dumps({"driver": "raw", "file.filename": str(path)}),
    }
    needed: list[Path] = []
    for directory in ("{}", "{}_resize", "{}_del", "instance-{}"):
        for disk in ("disk", "disk.local", "disk.eph1", "disk.swap", "disk.rescue"):
            for shape, spec in shapes.items():
                label = f"{directory} {disk} {shape}"
                needed.append(tree.add_base(label, size=4096, age=MONTH, seed=len(needed) + 1))
                tree.add_overlay(directory.format(shape), spec(needed[-1]), disk=disk, declare=len(needed) % 2 == 0)
    gone = tree.add_base("unused", size=4096, age=MONTH)

    answer = keeper.run()

    assert answer.status == 0, answer
    assert [path for path in needed if not path.is_file()] == []
    assert not gone.exists()
