"""What pages tell people to open, type and apply is there and is valid: links, commands, policies, values, targets."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from basekeeper.agent.events import EventReason
from basekeeper.cli.app import app
from basekeeper.resources import manifest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")))
VALUES = ROOT / "deploy/helm/basekeeper/values.yaml"
POLICY = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "ImageCachePolicy", "metadata": {"name": "compute"}}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and content."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text_of(page), re.DOTALL | re.MULTILINE)


def typed(page: Path) -> Iterator[str]:
    """What can be typed: lines of fenced blocks, continued ones joined, and code within sentences."""
    for _, block in blocks(page):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose))


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    lost = []
    for target, anchor in re.findall(r"\]\(([^)\s#]*)#?([^)\s]*)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / target).resolve() if target else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            lost.append(f"{target}#{anchor}")
    assert lost == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, to_visit = set(), [ROOT / "README.md"]
    while to_visit:
        page = to_visit.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = re.findall(r"\]\(([\w./-]+)", text_of(page))
        to_visit += [(page.parent / target).resolve() for target in targets]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached | {ROOT / "CHANGELOG.md"}] == []


# Where a program's name stands: first, after a prompt, after what runs it, or as the last part of a path.
PROGRAM = re.compile(r"(?:^(?:\$ )?|-- |sudo (?:-u \S+ )?|/bin/|basekeeper:TAG )(?:basekeeper )(?P<words>[a-z-].*)$")
_END = re.compile(r"\s+(?:#|\||>|<|;|&&).*|[|;].*")


def commands(page: Path) -> Iterator[list[str]]:
    for line in typed(page):
        if found := PROGRAM.search(line.strip()):
            yield _END.sub("", found["words"]).split()


def fault_of(words: list[str]) -> str | None:
    """What the program would not understand of its words."""
    command: Any = get_command(app)
    options = set()
    for word in words:
        if word.startswith("-") and word != "-":
            options.add(word.partition("=")[0])
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"{word} is no command"
            command = command.commands[word]
    known = {"--help", *(name for parameter in command.params for name in parameter.opts)}
    return None if options <= known else f"no options: {sorted(options - known)}"


@pages
def test_every_command_line_of_ours_is_understood(page: Path) -> None:
    faults = {" ".join(words): fault_of(words) for words in commands(page)}
    assert {line: fault for line, fault in faults.items() if fault} == {}


def test_the_check_of_command_lines_sees_commands_and_their_faults() -> None:
    assert fault_of(["plan", "--policy", "policy.yaml"]) is None
    assert fault_of(["quarantine", "restore", "--all", "--for", "7d"]) is None
    assert fault_of(["quarantine", "empty"]) == "empty is no command"
    assert fault_of(["plan", "--polcy=p"]) == "no options: ['--polcy']"
    assert sum(1 for page in PAGES for _ in commands(page)) > 20


def documents(page: Path) -> Iterator[Any]:
    """The YAML of a page: its yaml blocks, and what shell blocks feed to a command."""
    for language, block in blocks(page):
        if language == "yaml":
            yield from yaml.safe_load_all(block)
        for fed in re.findall(r"<<'?EOF'?\n(.*?)^EOF$", block, re.DOTALL | re.MULTILINE):
            if "apiVersion:" in fed:
                yield from yaml.safe_load_all(fed)


@pages
def test_every_policy_of_a_page_is_valid(page: Path) -> None:
    for document in documents(page):
        if isinstance(document, dict) and document.get("kind") == "ImageCachePolicy":
            manifest.parse(document, str(page))


@pages
def test_every_patch_of_a_policy_is_valid(page: Path) -> None:
    for line in typed(page):
        for patch in re.findall(r"kubectl patch icp .*-p '(\{.*\})'", line):
            spec = {"mode": "Audit", **yaml.safe_load(patch)["spec"]}
            manifest.parse({**POLICY, "spec": spec}, str(page))


@cache
def schema(plural: str) -> Any:
    text = (ROOT / f"deploy/crds/basekeeper.io_{plural}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pages
def test_every_field_that_a_jsonpath_asks_for_exists(page: Path) -> None:
    lost = []
    for line in typed(page):
        for short, path in re.findall(r"kubectl get (icp|nic)\b.*jsonpath='\{(\.[^}]+)\}", line):
            here = schema({"icp": "imagecachepolicies", "nic": "nodeimagecaches"}[short])
            for field in re.sub(r"\[[^]]*\]", "[]", path).strip(".").split("."):
                here = here["properties"].get(field.removesuffix("[]"), {"properties": {}})
                here = here.get("items", here) if field.endswith("[]") else here
            if here == {"properties": {}}:
                lost.append(path)
    assert lost == []


@cache
def values() -> Any:
    return yaml.safe_load(VALUES.read_text(encoding="utf-8"))


def is_value(path: str) -> bool:
    """Whether the chart has a value of this name; below an empty one, or a map of labels, anything may be set."""
    here = values()
    for part in re.split(r"(?<!\\)\.", path):
        if here in ({}, "", None) or part.rstrip("]0123456789").endswith("["):
            return True
        if not isinstance(here, dict) or part.replace("\\", "") not in here:
            return False
        here = here[part.replace("\\", "")]
    return True


def named_values(page: Path) -> set[str]:
    """Values of the chart that a page names: with --set, or as code that begins like one."""
    found: set[str] = set()
    for line in typed(page):
        if "helm" in line and "basekeeper" in line:
            found.update(re.findall(r"--set(?:-string|-json)?[ =]['\"]?([\w.\\/-]+)=", line))
        if re.fullmatch(r"[a-z]\w+(\.\w+)+(=\S+)?", line) and line.partition(".")[0] in values():
            found.add(line.partition("=")[0])
    return {name for name in found if not name.endswith((".yaml", ".yml", ".md", ".json"))}


@pages
def test_every_value_of_the_chart_that_a_page_names_exists(page: Path) -> None:
    assert {name for name in named_values(page) if not is_value(name)} == set()


def test_the_check_of_values_sees_names_and_their_faults() -> None:
    assert is_value("agent.paths.state")
    assert is_value("policy.spec.mode")
    assert not is_value("agent.path.state")


@pages
def test_every_metric_alert_and_event_that_a_page_names_exists(page: Path) -> None:
    text = text_of(page)
    metrics = set(re.findall(r"^\| `(\w+)` \|", text_of(ROOT / "docs/metrics.md"), re.MULTILINE))
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bbasekeeper_\w+[a-z]\b", text)}
    assert named - metrics == set()
    alerts = set(re.findall(r"alert: (\w+)", (ROOT / "deploy/alerts/basekeeper.yaml").read_text(encoding="utf-8")))
    assert set(re.findall(r"\bBasekeeper[A-Z]\w+", text)) - alerts == set()
    assert set(re.findall(r"\bBaseImages\w+", text)) - {reason.value for reason in EventReason} == set()


@pages
def test_every_target_and_file_of_the_project_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lost = set()
    for line in typed(page):
        lost |= {f"make {name}" for name in re.findall(r"\bmake ([a-z][\w-]*)", line) if name not in targets}
        for path in re.findall(r"(?<![\w/.])((?:deploy|docs|lab|requirements|scripts|tests)/[\w./-]+)", line):
            if not (ROOT / path.rstrip(".")).exists():
                lost.add(path)
    assert lost == set()


def test_the_policy_that_the_hand_over_makes_of_a_nova_conf_only_audits(tmp_path: Path) -> None:
    conf = tmp_path / "nova.conf"
    conf.write_text("[image_cache]\nmanager_interval = 600\n", encoding="utf-8")
    (line,) = [line for line in typed(ROOT / "docs/hand-over.md") if line.startswith("basekeeper import-nova-conf --")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    line = line.replace("/etc/nova/nova.conf", str(conf))
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env={"PATH": path}, check=True, timeout=60)
    made = yaml.safe_load((tmp_path / "policy.yaml").read_text(encoding="utf-8"))
    assert made["metadata"]["name"] == values()["policy"]["name"]
    assert made["spec"]["mode"] == "Audit"
    assert made["spec"]["interval"] == "10m"
