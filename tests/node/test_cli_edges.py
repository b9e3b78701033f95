"""The command line where it is least comfortable: poor, full and closed outputs, signals, empty and endless values."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from lab.nova_tree import DAY, NovaTree

from .cli import ENFORCE, Basekeeper

MONTH = 30 * DAY
ENTRY = "from basekeeper.__main__ import main\nmain()\n"


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


def ran(
    command: list[str], *, env: Mapping[str, str] | None = None, redirect: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `redirect` is what a shell would have after it, such as `>/dev/full`."""
    words = ["sh", "-c", f'"$@" {redirect}', "sh", *command] if redirect else command
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )


def said(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error."""
    assert re.fullmatch(r"basekeeper: [^\n]+\n", answer.stderr), f"not one line: {answer.stderr}"
    return answer.stderr


def many(tree: NovaTree, count: int = 4) -> list[Path]:
    return [tree.add_base(f"unused-{number}", age=MONTH, seed=number + 1) for number in range(count)]


def in_quarantine(tree: NovaTree) -> list[str]:
    return sorted(path.name for path in tree.base_dir.glob(".basekeeper/quarantine/*/*") if path.name != "entry.json")


# --- outputs that cannot show or take it ---------------------------------------------------------------------------

POOR = {
    "POSIX": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict ascii": {"PYTHONIOENCODING": "ascii:strict"},
}


@pytest.mark.parametrize("env", POOR.values(), ids=POOR)
@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_an_output_that_has_few_characters_gets_them_all_the_same(
    tree: NovaTree, keeper: Basekeeper, env: Mapping[str, str], form: str
) -> None:
    base = tree.add_base("unused", age=MONTH)
    tree.add_file("bild-ж.txt", age=MONTH)
    tree.add_file(b"\xff\xfea", age=MONTH)
    answer = ran([*keeper.command("run", spec=ENFORCE)[:-1], form], env=env)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert in_quarantine(tree) == [base.name]
    if form == "table":
        assert f"{base.name[:12]}.." in answer.stdout
        assert r"\u0436" in answer.stdout
    else:
        document = json.loads(answer.stdout) if form == "json" else yaml.safe_load(answer.stdout)
        assert {"bild-ж.txt", r"\xff\xfea"} <= {row["name"] for row in document["files"]}


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",)], ids=" ".join)
def test_help_needs_no_rich_characters(words: tuple[str, ...]) -> None:
    answer = ran([sys.executable, "-m", "basekeeper", *words], env=POOR["POSIX"])
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout


def test_a_rich_output_gets_an_ellipsis(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    answer = ran([*keeper.command("plan")[:-1], "table"], env={"PYTHONIOENCODING": "utf-8"})
    assert f"{base.name[:12]}… " in answer.stdout


NO_OUTPUT = {
    "full": (">/dev/full", "No space left on device"),
    "closed": (">&-", "Bad file descriptor"),
    "all closed": ("<&- >&-", "Bad file descriptor"),
}
PRINTING: Mapping[str, tuple[str, ...]] = {
    "plan": ("plan",),
    "run": ("run",),
    "quarantine list": ("quarantine", "list"),
    "hold list": ("hold", "list"),
}


@pytest.mark.parametrize("how", NO_OUTPUT)
@pytest.mark.parametrize("form", ["table", "json", "yaml"])
@pytest.mark.parametrize("command", PRINTING)
def test_an_output_that_takes_nothing_is_1_and_one_line(
    tree: NovaTree, keeper: Basekeeper, command: str, form: str, how: str
) -> None:
    many(tree)
    redirect, reason = NO_OUTPUT[how]
    answer = ran([*keeper.command(*PRINTING[command])[:-1], form], redirect=redirect)
    assert answer.returncode == 1
    assert said(answer) == f"basekeeper: cannot write to standard output: {reason}\n"


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("adopt",)], ids=" ".join)
@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_so_it_is_for_sentences(tree: NovaTree, keeper: Basekeeper, words: tuple[str, ...], redirect: str) -> None:
    command = keeper.command(*words) if words == ("adopt",) else [sys.executable, "-m", "basekeeper", *words]
    answer = ran(command, redirect=redirect)
    assert answer.returncode == 1
    assert "cannot write to standard output" in said(answer)


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_goes_away_is_1_and_one_line(tree: NovaTree, keeper: Basekeeper, form: str) -> None:
    many(tree)
    reader, writer = os.pipe()
    os.close(reader)
    command = [*keeper.command("plan")[:-1], form]
    answer = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert answer.returncode == 1
    assert said(answer) == "basekeeper: cannot write to standard output: Broken pipe\n"


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_without_standard_error_the_status_still_tells(keeper: Basekeeper, redirect: str) -> None:
    assert ran(keeper.command("plan"), redirect=redirect).returncode == 0
    assert ran(keeper.command("explain", "nothing"), redirect=redirect).returncode == 1
    assert ran(keeper.command("explain", ""), redirect=redirect).returncode == 2


def test_a_pass_without_any_stream_writes_into_no_file_by_accident(tree: NovaTree, keeper: Basekeeper) -> None:
    bases = many(tree)
    assert ran(keeper.command("run", spec=ENFORCE), redirect="<&- >&- 2>&-").returncode == 1
    assert in_quarantine(tree) == sorted(base.name for base in bases)
    assert keeper.plan().document["outcome"] == "Clean"


# --- options -------------------------------------------------------------------------------------------------------

EMPTY = ("instances-path", "base-dir", "state-dir", "snapshots-dir", "policy", "libvirt", "nova-host", "spawn-grace")


@pytest.mark.parametrize("option", EMPTY)
def test_an_empty_value_is_wrong_use(tree: NovaTree, keeper: Basekeeper, option: str) -> None:
    answer = ran([*keeper.command("plan"), f"--{option}", ""], cwd=tree.instances_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert f"--{option}" in said(answer)
    if option != "spawn-grace":
        assert f"--{option} is empty; give " in answer.stderr


@pytest.mark.parametrize("option", ["instances-path", "base-dir", "state-dir", "snapshots-dir"])
def test_a_name_too_long_for_any_file_is_wrong_use(keeper: Basekeeper, option: str) -> None:
    answer = ran([*keeper.command("plan"), f"--{option}", "/" + "a" * 5000])
    assert (answer.returncode, answer.stdout) == (2, "")
    assert f"--{option} " in said(answer)
    assert "File name too long" in answer.stderr


def test_so_it_is_for_a_policy_and_a_nova_conf(keeper: Basekeeper) -> None:
    endless = "/" + "a" * 5000
    answer = ran([*keeper.command("plan"), "--policy", endless])
    assert (answer.returncode, "File name too long" in said(answer)) == (2, True)
    answer = ran([sys.executable, "-m", "basekeeper", "import-nova-conf", endless])
    assert (answer.returncode, "File name too long" in said(answer)) == (2, True)


def test_an_instances_path_that_leads_nowhere_is_wrong_use(tmp_path: Path, keeper: Basekeeper) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    answer = ran([*keeper.command("plan"), "--instances-path", str(loop)])
    assert (answer.returncode, "--instances-path" in said(answer)) == (2, True)


def test_a_relative_path_in_a_directory_that_is_gone_is_wrong_use(tmp_path: Path, keeper: Basekeeper) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [*keeper.command("plan"), "--base-dir", "base"]
    answer = disturbed(command, "os.rmdir(os.getcwd())\n", cwd=gone)
    assert (answer.returncode, "--base-dir" in said(answer)) == (2, True)


# --- explain -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [{}, POOR["POSIX"]], ids=["UTF-8", "POSIX"])
@pytest.mark.parametrize("name", [b"\xff\xfea", "bild-ж.txt".encode(), b"back\\slash"])
def test_explain_takes_a_name_s_own_bytes(
    tree: NovaTree, keeper: Basekeeper, name: bytes, env: Mapping[str, str]
) -> None:
    tree.add_file(name, age=MONTH)
    command = keeper.command("explain", os.fsdecode(name))
    answer = ran(command, env=env)
    assert answer.returncode == 0, answer
    (item,) = json.loads(answer.stdout)["items"]
    assert ran(keeper.command("explain", item["name"])).returncode == 0


def test_explain_shows_bytes_that_no_file_has(keeper: Basekeeper) -> None:
    answer = ran(keeper.command("explain", "\udcff\udcfea"))
    assert answer.returncode == 1
    assert said(answer).startswith(r"basekeeper: \xff\xfea: no file")


def test_explain_nothing_is_wrong_use(keeper: Basekeeper) -> None:
    answer = ran(keeper.command("explain", ""))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "empty" in said(answer)


# --- signals -------------------------------------------------------------------------------------------------------

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
PREPARE = "import os, signal, sys\nsys.argv[0] = 'basekeeper'\n"
WHILE_IMPORTING = """
class Finder:
    def find_spec(self, name, *rest):
        if name == "typer":
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Finder())
"""
AROUND = """
from basekeeper.cache import {module} as module
real = module.{function}
def around(*args, **more):
    for _ in range({before}):
        os.kill(os.getpid(), signal.{signal})
    done = real(*args, **more)
    for _ in range({after}):
        os.kill(os.getpid(), signal.{signal})
    return done
module.{function} = around
"""
BROKEN = """
import socket
def broken():
    raise OSError(5, "Input/output error", "/somewhere")
socket.gethostname = broken
"""


def disturbed(command: list[str], how: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in an interpreter in which `how` ran before, which sends signals or breaks something."""
    return ran([sys.executable, "-c", PREPARE + how + ENTRY, *command[3:]], cwd=cwd)


def around(module: str, function: str, signal: str = "SIGINT", *, before: int = 0, after: int = 0) -> str:
    return AROUND.format(module=module, function=function, signal=signal, before=before, after=after)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_during_the_imports_is_one_line(keeper: Basekeeper, signal: str) -> None:
    answer = disturbed(keeper.command("run"), WHILE_IMPORTING.format(signal=signal))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert said(answer) == "basekeeper: interrupted before anything was done\n"


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("form", ["json", "table"])
def test_a_signal_stops_a_pass_between_two_files(tree: NovaTree, keeper: Basekeeper, signal: str, form: str) -> None:
    bases = many(tree)
    command = [*keeper.command("run", spec=ENFORCE)[:-1], form]
    answer = disturbed(command, around("removal", "remove", signal, after=1))
    assert answer.returncode == 1
    assert said(answer) == "basekeeper: interrupted between two files; the next pass does the rest\n"
    assert len(in_quarantine(tree)) == 1
    if form == "json":
        files = json.loads(answer.stdout)["files"]
        assert [row["name"] for row in files if row.get("action") == "Quarantined"] == in_quarantine(tree)
    else:
        assert "Quarantined" in answer.stdout
    assert keeper.run().status == 0
    assert in_quarantine(tree) == sorted(base.name for base in bases)


def test_a_signal_that_comes_while_the_document_is_made_lets_it_be_printed(tree: NovaTree, keeper: Basekeeper) -> None:
    many(tree)
    how = around("quarantine", "sweep", before=1)
    answer = disturbed(keeper.command("run", spec=ENFORCE), how)
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["outcome"] == "Acted"
    assert "interrupted" in said(answer)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_second_signal_ends_a_pass_at_once(tree: NovaTree, keeper: Basekeeper, signal: str) -> None:
    bases = many(tree)
    how = around("removal", "_in_use", signal, before=2)
    answer = disturbed(keeper.command("run", spec=ENFORCE), how)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "interrupted; " in said(answer)
    assert in_quarantine(tree) == []
    assert keeper.run().status == 0
    assert in_quarantine(tree) == sorted(base.name for base in bases)


def test_a_third_signal_needs_nobody_s_leave(tree: NovaTree, keeper: Basekeeper) -> None:
    many(tree)
    how = around("removal", "_in_use", before=3)
    answer = disturbed(keeper.command("run", spec=ENFORCE), how.replace("for _ in range(3):", "while True:"))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "interrupted" in said(answer)
    assert keeper.run().status == 0


@pytest.mark.parametrize("order", ["purge", "restore"])
def test_a_signal_stops_an_order_between_two_files(tree: NovaTree, keeper: Basekeeper, order: str) -> None:
    many(tree)
    keeper.run()
    command = keeper.command("quarantine", order, "--all")
    answer = disturbed(command, around("removal", order, after=1))
    assert answer.returncode == 1
    assert said(answer) == "basekeeper: interrupted between two files; give the order again for the rest\n"
    actions = [item.get("action") for item in json.loads(answer.stdout)["items"]]
    assert [action for action in actions if action] == [{"purge": "Purged", "restore": "Restored"}[order]]
    assert len(in_quarantine(tree)) == 3
    assert ran(command).returncode == 0
    assert in_quarantine(tree) == []


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("words", [("plan",), ("explain", "x"), ("hold", "list")], ids=" ".join)
def test_a_signal_ends_what_changes_nothing_at_once(keeper: Basekeeper, words: tuple[str, ...], signal: str) -> None:
    answer = disturbed(keeper.command(*words), around("engine", "remember", signal, before=1))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "interrupted; " in said(answer)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_after_the_last_word_changes_nothing(keeper: Basekeeper, signal: str) -> None:
    late = f"import atexit\natexit.register(os.kill, os.getpid(), signal.{signal})\n"
    answer = disturbed(keeper.command("run"), late)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_what_is_ignored_stays_ignored(tree: NovaTree, keeper: Basekeeper) -> None:
    many(tree)
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    how = ignoring + around("removal", "remove", "SIGHUP", after=1)
    answer = disturbed(keeper.command("run", spec=ENFORCE), how)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert len(in_quarantine(tree)) == 4


def test_an_error_nobody_thought_of_is_1_and_one_line(keeper: Basekeeper) -> None:
    answer = disturbed(keeper.command("plan"), BROKEN)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert said(answer) == "basekeeper: /somewhere: Input/output error\n"


def test_both_entries_are_the_program() -> None:
    for entry in ("basekeeper.__main__", "basekeeper.cli.app"):
        answer = ran([sys.executable, "-c", f"from {entry} import main; main()", "--version"])
        assert (answer.returncode, answer.stderr) == (0, "")
        assert re.fullmatch(r"basekeeper \S+\n", answer.stdout)
