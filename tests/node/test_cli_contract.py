"""The command line as an interface: exit statuses, documents, errors, and what passes do one after another."""

import fcntl
import json
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.nova_tree import DAY, HOUR, NovaTree, image_file_name

from .cli import ENFORCE, Answer, Basekeeper, Spec, write_policy

NOVA = 42424
"""The uid that openstack-helm's images give to nova."""
MONTH = 30 * DAY
KEPT, GOES, YOUNG = "Keep(InUseByOverlay)", "Remove(Expired)", "Keep(TooYoung)"
QUARANTINED, PURGED, RESTORED = "Remove(Expired) Quarantined", "Remove(Expired) Purged", f"{KEPT} Restored"


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    for tool in ("qemu-img", "faketime", "setpriv"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is not installed; scripts/setup installs what the tests need", pytrace=False)
    return Basekeeper(tree, tmp_path / "state")


def retention(text: str) -> Spec:
    return {**ENFORCE, "quarantine": {"retention": text}}


def unreadable_disk(tree: NovaTree) -> Path:
    """A disk that says it is an overlay and cannot be understood."""
    path = tree.instance("broken") / "disk"
    path.write_bytes(b"QFI\xfb\0\0\0\x63" + bytes(100))
    return path


def ordered(keeper: Basekeeper, *words: str) -> int:
    """The status of a command that answers with a sentence and not with a document."""
    process = keeper.start(*words)
    stdout, stderr = process.communicate(timeout=60)
    assert len(stdout.splitlines()) + len(stderr.splitlines()) == 1, (stdout, stderr)
    return process.returncode


def in_quarantine(tree: NovaTree) -> list[str]:
    return sorted(path.name for path in tree.base_dir.glob(".basekeeper/quarantine/*/*") if path.name != "entry.json")


# --- documents -----------------------------------------------------------------------------------------------------

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SECONDS = float
KINDS = {"Original", "Resized", "Swap", "Ephemeral", "Partial", "Foreign"}
REASONS = re.compile(r"[A-Z][A-Za-z]+")
# `?` marks what may be missing; a set lists the words, a pattern what a text looks like.
PARTS = {f"{part}?": SECONDS for part in ("inventory", "libvirt", "disks", "locks")}
"""A pass that fails as a whole does not know them."""
FILE: Mapping[str, Any] = {
    "name": str,
    "kind": KINDS,
    "verdict": {"Keep", "Remove", "Hold", "Foreign"},
    "reason": REASONS,
    "message": str,
    "users": [str],
    "ageSeconds": (int, None),
    "bytes": int,
    "removableAt?": TIME,
    "action?": {"Quarantined", "Purged", "Restored", "Skipped", "Failed"},
    "error?": str,
    "quarantineEntry?": str,
}
ANSWER: Mapping[str, Any] = {"known": (bool, None), "sign": REASONS, "message": str}
PASS: Mapping[str, Any] = {
    "kind": {"Plan", "Pass"},
    "apiVersion": {"basekeeper.io/v1alpha1"},
    "node": {socket.gethostname()},
    "time": TIME,
    "policy": {"name": str, "mode": {"Audit", "Enforce"}},
    "outcome": {"Clean", "Planned", "Acted", "Held", "Failed"},
    "holds": [{"reason": REASONS, "message": str, "path?": str}],
    "notes": [{"about": REASONS, "message": str, "path?": str}],
    "novaManager?": {"touches": ANSWER, "removes": ANSWER},
    "orphans?": {"directories": int, "bytes": int, "aloneBytes": int},
    "touched?": {"files": int, "failed": int},
    "files": [FILE],
    "totals": {
        "files": int,
        "bytes": int,
        "removableBytes": int,
        "reclaimedBytes": int,
        "quarantinedBytes": int,
        "keptByReason": dict,
    },
    "seconds": {"observe": SECONDS, "judge": SECONDS, "act": SECONDS, "observeBy": PARTS},
    "error?": str,
}
ENTRY: Mapping[str, Any] = {
    "name": str,
    "entry": str,
    "kind": KINDS,
    "reason": REASONS,
    "removedAt": TIME,
    "dueAt": TIME,
    "bytes": int,
    "lastUsers": [str],
}


def a_list(kind: str, item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"kind": {kind}, "apiVersion": {"basekeeper.io/v1alpha1"}, "items": [item]}


SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "plan": PASS,
    "run": PASS,
    "explain": a_list("Explanation", {**FILE, "meaning": str, "evidence": [str], "whatNext": str}),
    "hold list": a_list("HoldList", {"reason": REASONS, "message": str, "path?": str}),
    "quarantine list": a_list("QuarantineList", ENTRY),
    "quarantine restore": a_list("QuarantineResult", {**ENTRY, "action": FILE["action?"], "message?": str}),
}


def misfits(schema: Any, value: Any, at: str = "$") -> list[str]:
    """Where a document is not what the schema says."""
    if isinstance(schema, Mapping):
        if not isinstance(value, dict):
            return [f"{at}: no object"]
        wanted = {key.rstrip("?"): inner for key, inner in schema.items()}
        absent = [f"{at}.{key}: missing" for key in schema if not key.endswith("?") and key not in value]
        strange = [f"{at}.{key}: not in the schema" for key in value if key not in wanted]
        below = [misfits(wanted[key], inner, f"{at}.{key}") for key, inner in value.items() if key in wanted]
        return [*absent, *strange, *(found for one in below for found in one)]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{at}: no list"]
        return [found for number, item in enumerate(value) for found in misfits(schema[0], item, f"{at}[{number}]")]
    return [] if fits(schema, value) else [f"{at}: {value!r}"]


def fits(schema: Any, value: Any) -> bool:
    if isinstance(schema, re.Pattern):
        return isinstance(value, str) and schema.fullmatch(value) is not None
    if isinstance(schema, set):
        return value in schema
    if isinstance(schema, tuple):
        return value is None or type(value) is schema[0]
    return isinstance(value, int | float) if schema is float else type(value) is schema


@pytest.fixture
def everything(tree: NovaTree, keeper: Basekeeper) -> NovaTree:
    """A tree that puts something into every field: a quarantine, holds, notes, users, all verdicts."""
    tree.add_base("removed", age=MONTH)
    keeper.run(retention("1h"))
    tree.add_base("young", age=HOUR)
    tree.add_base("unused", age=MONTH)
    tree.add_base("unused", suffix=".part", age=MONTH)
    tree.add_file("notes.txt", age=MONTH)
    tree.add_overlay("machine", tree.add_base("used", age=MONTH))
    tree.add_overlay("late", f"{tree.base_dir}/{image_file_name('removed')}")
    tree.register_host("gone", age=MONTH)
    unreadable_disk(tree)
    return tree


COMMANDS = {
    "plan": ("plan",),
    "run": ("run",),
    "explain": ("explain", image_file_name("unused"), image_file_name("used"), image_file_name("young")),
    "hold list": ("hold", "list"),
    "quarantine list": ("quarantine", "list"),
    "quarantine restore": ("quarantine", "restore", "--all"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_document_is_as_documented(everything: NovaTree, keeper: Basekeeper, command: str) -> None:
    spec = None if command.startswith("quarantine") else retention("1h")
    answer = keeper.ask(*COMMANDS[command], spec=spec)
    assert misfits(SCHEMAS[command], answer.document) == []
    assert answer.document.get("files", answer.document.get("items")), "an empty document shows nothing"


def test_the_schema_would_find_a_wrong_document(everything: NovaTree, keeper: Basekeeper) -> None:
    document = keeper.plan().document
    del document["node"]
    document["files"][0]["verdict"] = "Maybe"
    document["files"][1]["size"] = 1
    found = [where.rpartition(":")[0].split(": ")[0] for where in misfits(PASS, document)]
    assert found == ["$.node", "$.files[0].verdict", "$.files[1].size"]


def test_yaml_says_the_same_as_json(everything: NovaTree, keeper: Basekeeper) -> None:
    command = keeper.command("plan", spec=ENFORCE)
    said = subprocess.run([*command[:-1], "yaml"], capture_output=True, text=True, timeout=60, check=False)
    document, other = yaml.safe_load(said.stdout), keeper.plan().document
    for changing in ("time", "seconds"):
        document.pop(changing, None)
        other.pop(changing, None)
    messages = [row.pop("message") for row in document["files"]], [row.pop("message") for row in other["files"]]
    assert all(one[:8] == two[:8] for one, two in zip(*messages, strict=True)), "but for the ages that they tell"
    ages = [row.pop("ageSeconds") for row in document["files"]], [row.pop("ageSeconds") for row in other["files"]]
    assert all(type(one) is type(two) for one, two in zip(*ages, strict=True))
    assert json.dumps(document) == json.dumps(other)


def test_totals_are_the_sums_of_the_files(everything: NovaTree, keeper: Basekeeper) -> None:
    document = keeper.plan().document
    rows = [row for row in document["files"] if "quarantineEntry" not in row]
    totals = document["totals"]
    assert (totals["files"], totals["bytes"]) == (len(rows), sum(row["bytes"] for row in rows))
    kept = [row["reason"] for row in document["files"] if row["verdict"] in {"Keep", "Hold"}]
    assert totals["keptByReason"] == {reason: kept.count(reason) for reason in sorted(set(kept))}
    assert totals["quarantinedBytes"] > 0


def test_a_terminal_gets_a_table(everything: NovaTree, keeper: Basekeeper) -> None:
    command = keeper.command("plan", spec=ENFORCE)[:-2]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    assert process.returncode == 3
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for words in ("Plan on", "verdict", image_file_name("unused")[:12], "Hold", "UnknownUsage", "held", "note"):
        assert words in plain, plain
    assert "{" not in plain


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the last one on the other side is gone
        return b""


# --- exit statuses and errors --------------------------------------------------------------------------------------


def test_done_is_0_and_held_is_3(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_base("unused", age=MONTH)
    assert (keeper.plan().status, keeper.plan().document["outcome"]) == (0, "Planned")
    unreadable_disk(tree)
    assert (keeper.plan().status, keeper.plan().document["outcome"]) == (3, "Held")
    held = keeper.run()
    assert (held.status, held.document["outcome"]) == (3, "Held")
    assert held.verdict(image_file_name("unused")) == "Hold(UnknownUsage)"


def test_a_cache_that_nova_has_not_made_yet_is_an_empty_one(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.base_dir.rmdir()
    answer = keeper.run()
    assert (answer.status, answer.document["outcome"]) == (0, "Clean")
    assert not tree.base_dir.exists()


def a_file_for_a_cache(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.base_dir.rmdir()
    tree.base_dir.write_text("")


def a_file_for_a_state_directory(tree: NovaTree, keeper: Basekeeper) -> None:
    keeper.state.write_text("")


@pytest.mark.parametrize("break_it", [a_file_for_a_cache, a_file_for_a_state_directory])
def test_a_pass_that_cannot_be_made_is_1_with_a_document_and_one_line(
    tree: NovaTree, keeper: Basekeeper, break_it: Any
) -> None:
    break_it(tree, keeper)
    answer = keeper.run()
    assert answer.status == 1
    assert one_line(answer)
    assert misfits(PASS, answer.document) == []
    assert (answer.document["outcome"], answer.document["files"]) == ("Failed", [])
    assert answer.document["error"] in answer.stderr


def one_line(answer: Answer) -> str:
    assert re.fullmatch(r"basekeeper: [^\n]+\n", answer.stderr), f"not one line: {answer.stderr}"
    return answer.stderr


HEAD = "apiVersion: basekeeper.io/v1alpha1\nkind: ImageCachePolicy\nmetadata: {name: x}\n"
BAD_POLICIES = {
    "a wrong unit": (f"{HEAD}spec: {{mode: Audit, minimumAge: {{original: 1d}}}}", r"minimumAge\.original: .*h\b"),
    "no unit": (f"{HEAD}spec: {{mode: Audit, quarantine: {{retention: 60}}}}", r"spec\.quarantine\.retention: "),
    "a negative age": (f"{HEAD}spec: {{mode: Audit, minimumAge: {{resized: -1h}}}}", r"minimumAge\.resized: "),
    "an unknown field": (f"{HEAD}spec: {{mode: Audit, minimumAges: {{}}}}", r"spec\.minimumAges: .*minimumAge\?"),
    "marks the wrong way round": (
        f"{HEAD}spec: {{mode: Audit, pressure: {{lowPercent: 90}}}}",
        r"spec\.pressure: expected lowPercent below highPercent, got 90 and 85",
    ),
    "no mode": (f"{HEAD}spec: {{}}", r"spec\.mode: required"),
    "a mode nobody knows": (f"{HEAD}spec: {{mode: Delete}}", r"spec\.mode: .*Audit.*Enforce"),
    "a percentage of nothing": (f"{HEAD}spec: {{mode: Audit, limits: {{maxPercent: 0}}}}", r"limits\.maxPercent: "),
    "an image that is no id": (f"{HEAD}spec: {{mode: Audit, pinnedImages: [debian]}}", r"spec\.pinnedImages\[0\]: "),
    "an empty selector": (f"{HEAD}spec: {{mode: Audit, nodeSelector: {{}}}}", r"spec\.nodeSelector: "),
    "another kind": ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", r"kind: "),
    "no YAML": ("spec: mode: Audit", r"line 1"),
    "two policies": (f"{HEAD}spec: {{mode: Audit}}\n---\n{HEAD}spec: {{mode: Audit}}", r"2 documents"),
    "nothing": ("", r"nothing"),
    "bytes": (b"\xff\xfe\x00", r"UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), BAD_POLICIES.values(), ids=BAD_POLICIES)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_bad_policy_is_2_and_one_line_that_names_the_field(
    tree: NovaTree, keeper: Basekeeper, tmp_path: Path, command: str, content: str | bytes, said: str
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(content.encode() if isinstance(content, str) else content)
    answer = keeper.ask(command, "--policy", str(policy))
    assert answer.status == 2
    assert re.search(said, one_line(answer)), answer.stderr
    assert str(policy) in answer.stderr
    assert not keeper.state.exists()


WRONG_USES = {
    "a missing policy": (("plan", "--policy", "/nowhere.yaml"), "/nowhere.yaml"),
    "a directory for a policy": (("plan", "--policy", "/"), "/"),
    "an option nobody knows": (("plan", "--force"), "--force"),
    "a grace without a unit": (("plan", "--spawn-grace", "10"), "--spawn-grace"),
    "a time-out without a unit": (("plan", "--libvirt-timeout", "10"), "--libvirt-timeout"),
    "a form nobody knows": (("plan", "-o", "xml"), "xml"),
    "a command nobody knows": (("prune",), "prune"),
    "nothing to explain": (("explain",), "NAME"),
    "nothing to restore": (("quarantine", "restore"), "--all"),
    "names and all": (("quarantine", "restore", "x", "--all"), "--all"),
    "a pin without a unit": (("quarantine", "restore", "x", "--for", "7"), "--for"),
    "a missing instances directory": (("plan", "--instances-path", "/nowhere"), "/nowhere"),
    "a file for an instances directory": (("plan", "--instances-path", "/etc/passwd"), "/etc/passwd"),
}


@pytest.mark.parametrize(("words", "said"), WRONG_USES.values(), ids=WRONG_USES)
def test_wrong_use_is_2_and_one_line(tree: NovaTree, keeper: Basekeeper, words: tuple[str, ...], said: str) -> None:
    command = keeper.command(words[0])
    ours = [option for option in ("--instances-path", "--spawn-grace", "--libvirt-timeout") if option not in words]
    options = ["--libvirt", "none", *(word for option in ours for word in (option, command[command.index(option) + 1]))]
    ran = subprocess.run([*command[:3], *words, *options], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2, ran
    assert said in one_line(Answer(2, {}, ran.stderr, 0.0))
    assert ran.stdout == ""


# --- passes --------------------------------------------------------------------------------------------------------


def test_a_pass_does_what_the_plan_said_and_the_next_does_nothing(tree: NovaTree, keeper: Basekeeper) -> None:
    for number in range(4):
        tree.add_base(f"unused-{number}", age=MONTH, seed=number + 1)
    tree.add_base("unused-0", suffix="_20", age=2 * HOUR)
    tree.add_base("unused-0", suffix=".part", age=MONTH)
    tree.add_overlay("machine", tree.add_base("used", age=MONTH))

    plan, made, again = keeper.plan(), keeper.run(), keeper.run()

    def verdicts(answer: Answer) -> set[tuple[str, str, str]]:
        return {(row["name"], row["verdict"], row["reason"]) for row in answer.document["files"]}

    assert verdicts(made) == verdicts(plan)
    acted = {row["name"] for row in made.document["files"] if row.get("action") == "Quarantined"}
    assert acted == {row["name"] for row in plan.document["files"] if row["verdict"] == "Remove"}
    assert sorted(acted) == in_quarantine(tree)
    assert made.document["totals"]["removableBytes"] == plan.document["totals"]["removableBytes"] > 0
    assert (again.status, again.document["outcome"]) == (0, "Clean")


def test_audit_removes_nothing(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    answer = keeper.run({"mode": "Audit"})
    assert (answer.status, answer.document["outcome"], answer.verdict(base)) == (0, "Planned", GOES)
    assert base.exists()


def test_suspended_removes_nothing_and_is_held(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    answer = keeper.run({**ENFORCE, "suspend": True})
    assert (answer.status, answer.verdict(base)) == (3, "Hold(Suspended)")
    assert base.exists()


def test_limits_let_the_longest_unused_go_first_over_several_passes(tree: NovaTree, keeper: Basekeeper) -> None:
    bases = [tree.add_base(f"unused-{number}", age=(50 - number) * DAY, seed=number + 1) for number in range(5)]
    spec = {"mode": "Enforce", "limits": {"maxPercent": 100, "maxFiles": 2}}
    seen = []
    for _ in range(3):
        answer = keeper.run(spec)
        seen.append((answer.status, answer.document["outcome"], [base.exists() for base in bases]))
    assert seen == [
        (3, "Acted", [False, False, True, True, True]),
        (3, "Acted", [False, False, False, False, True]),
        (0, "Acted", [False] * 5),
    ]


LIMITS: Mapping[str, tuple[Spec, int]] = {
    "a quarter of the cache": ({}, 2),
    "a percentage": ({"maxPercent": 50}, 4),
    "bytes": ({"maxPercent": 100, "maxBytes": "3Mi"}, 3),
    "at least one, whatever the bytes": ({"maxPercent": 100, "maxBytes": 1}, 1),
    "at least one, whatever the percentage": ({"maxPercent": 1}, 1),
}


@pytest.mark.parametrize(("limits", "go"), LIMITS.values(), ids=LIMITS)
def test_a_limit_throttles_a_pass(tree: NovaTree, keeper: Basekeeper, limits: Spec, go: int) -> None:
    for number in range(8):
        tree.add_base(f"unused-{number}", age=MONTH, seed=number + 1)
    answer = keeper.plan({"mode": "Enforce", "limits": limits})
    said = [row["reason"] for row in answer.document["files"]]
    assert (said.count("Expired"), said.count("LimitReached"), answer.status) == (go, 8 - go, 3)


def test_without_retention_a_file_is_purged_in_the_pass_that_removes_it(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    answer = keeper.run(retention("0s"))
    assert answer.verdict(base) == PURGED
    assert answer.document["totals"]["reclaimedBytes"] > 0
    assert answer.document["totals"]["quarantinedBytes"] == 0
    assert (base.exists(), in_quarantine(tree)) == (False, [])


def test_a_removed_file_waits_for_its_retention(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    assert keeper.run(retention("1h")).verdict(base) == QUARANTINED
    waiting = keeper.run(retention("0s"))
    assert (waiting.document["outcome"], in_quarantine(tree)) == ("Clean", [base.name]), (
        "it keeps the time it was given"
    )


def test_a_removed_file_is_purged_when_its_retention_is_over(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    assert keeper.run(retention("1s")).verdict(base) == QUARANTINED
    assert in_quarantine(tree) == [base.name]
    time.sleep(1.1)
    answer = keeper.run(retention("1h"))
    (row,) = answer.document["files"]
    assert (row["name"], row["reason"], row["action"]) == (base.name, "RetentionOver", "Purged")
    assert in_quarantine(tree) == []


@pytest.mark.parametrize("spec", [{"mode": "Audit"}, {**ENFORCE, "suspend": True}, ENFORCE, None])
def test_what_is_needed_goes_back_in_every_mode(tree: NovaTree, keeper: Basekeeper, spec: Spec | None) -> None:
    base = tree.add_base("unused", age=MONTH)
    keeper.run(retention("1h"))
    tree.add_overlay("machine", f"{tree.base_dir}/{base.name}")
    answer = keeper.run(spec)
    assert answer.verdict(base) == RESTORED
    assert (base.exists(), in_quarantine(tree)) == (True, [])
    assert time.time() - base.stat().st_mtime < 60, "its time stamp says that it is used now"


def test_a_second_acting_program_ends_with_1_and_changes_nothing(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_base("removed", age=MONTH)
    keeper.run(retention("1h"))
    base = tree.add_base("unused", age=MONTH)
    acting = (("run",), ("quarantine", "restore", "--all"), ("quarantine", "purge"), ("adopt",))
    with open(tree.base_dir / ".basekeeper" / "lock", "r+b") as lock:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        for words in acting:
            answer = keeper.ask(*words, spec=ENFORCE if words in {("run",), ("quarantine", "purge")} else None)
            assert answer.status == 1, (words, answer)
            assert "another basekeeper is at work" in one_line(answer)
        assert keeper.plan().status == 0, "looking needs no lock"
    assert base.exists()
    assert in_quarantine(tree) == [image_file_name("removed")]
    assert keeper.run().verdict(base) == QUARANTINED


# --- the quarantine by hand ----------------------------------------------------------------------------------------


def test_restore_all_empties_the_quarantine_and_pins(tree: NovaTree, keeper: Basekeeper) -> None:
    bases = [tree.add_base(f"unused-{number}", age=MONTH, seed=number + 1) for number in range(3)]
    keeper.run()
    answer = keeper.ask("quarantine", "restore", "--all")
    assert answer.status == 0
    assert [item["action"] for item in answer.document["items"]] == ["Restored"] * 3
    assert all(base.exists() for base in bases)
    assert keeper.ask("quarantine", "list").document["items"] == []
    for base in bases:
        tree.age(base, MONTH)
    assert {keeper.plan().verdict(base) for base in bases} == {"Keep(Pinned)"}


def test_a_pin_ends(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    keeper.run()
    assert keeper.ask("quarantine", "restore", base.name, "--for", "1s").status == 0
    time.sleep(1.1)
    assert keeper.plan().verdict(base) == YOUNG


def test_restore_never_replaces_a_file(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH, seed=1)
    keeper.run()
    newer = tree.add_base("unused", seed=2).read_bytes()
    answer = keeper.ask("quarantine", "restore", base.name)
    assert (answer.status, answer.document["items"][0]["action"]) == (3, "Skipped")
    assert base.read_bytes() == newer
    assert in_quarantine(tree) == [base.name]


def test_a_name_that_is_not_quarantined_is_1_and_one_line(tree: NovaTree, keeper: Basekeeper) -> None:
    answer = keeper.ask("quarantine", "restore", "nobody")
    assert answer.status == 1
    assert "nobody" in one_line(answer)


def test_purge_by_hand_needs_complete_evidence(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    keeper.run()
    disk = unreadable_disk(tree)
    held = keeper.ask("quarantine", "purge", spec=ENFORCE)
    assert held.status == 3
    assert held.document["items"][0]["verdict"] == "Hold"
    assert in_quarantine(tree) == [base.name]
    shutil.rmtree(disk.parent)
    done = keeper.ask("quarantine", "purge", spec=ENFORCE)
    assert (done.status, done.document["items"][0]["action"], in_quarantine(tree)) == (0, "Purged", [])


def test_purge_by_hand_puts_back_what_is_needed(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    keeper.run()
    tree.add_overlay("machine", f"{tree.base_dir}/{base.name}")
    answer = keeper.ask("quarantine", "purge", spec=ENFORCE)
    assert (answer.document["items"][0]["action"], base.exists()) == ("Restored", True)


# --- holds and the operator's word ---------------------------------------------------------------------------------


def test_an_acknowledged_unknown_holds_nothing_until_it_changes(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    disk = unreadable_disk(tree)
    listed = keeper.ask("hold", "list", spec=ENFORCE)
    assert listed.status == 3
    assert [item["path"] for item in listed.document["items"]] == ["broken/disk"]

    assert ordered(keeper, "hold", "acknowledge", "broken/disk", "--reason", "an old test") == 0
    assert (keeper.plan().status, keeper.plan().verdict(base)) == (0, GOES)
    assert keeper.ask("hold", "list", spec=ENFORCE).status == 0

    disk.write_bytes(disk.read_bytes() + b"more")
    assert keeper.plan().verdict(base) == "Hold(UnknownUsage)"


def test_what_is_not_unknown_cannot_be_acknowledged(tree: NovaTree, keeper: Basekeeper) -> None:
    answer = keeper.ask("hold", "acknowledge", "machine/disk")
    assert answer.status == 1
    assert "machine/disk" in one_line(answer)


def test_a_word_never_waives_a_reference_that_can_be_read(tree: NovaTree, keeper: Basekeeper) -> None:
    used = tree.add_base("used", age=MONTH)
    disk = tree.add_overlay("machine", used)
    with disk.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 1 << 40))  # a feature nobody knows: what it names can be read all the same
    assert keeper.plan().status == 0, "nothing would go, so nothing is held"
    assert ordered(keeper, "hold", "acknowledge", "machine/disk") == 0
    assert keeper.run().verdict(used) == KEPT


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_policy_acknowledges_by_either_path_until_it_changes(
    tree: NovaTree, keeper: Basekeeper, absolute: bool
) -> None:
    disk = unreadable_disk(tree)
    bases = [tree.add_base(name, age=MONTH, seed=seed) for seed, name in enumerate(("unused", "later"), 1)]
    path = str(disk) if absolute else "broken/disk"
    spec = {**ENFORCE, "limits": {"maxPercent": 100, "maxFiles": 1}, "acknowledged": [{"path": path, "reason": "old"}]}
    answer = keeper.run(spec)
    assert sorted(base.exists() for base in bases) == [False, True], answer
    disk.write_bytes(disk.read_bytes() + b"more")
    assert ("UnknownUsage", "broken/disk") in keeper.run(spec).holds
    assert any(base.exists() for base in bases)


def test_a_policy_s_word_ends_when_it_says_and_is_for_its_node_only(tree: NovaTree, keeper: Basekeeper) -> None:
    base = tree.add_base("unused", age=MONTH)
    unreadable_disk(tree)
    rows = [
        ({"until": "2020-01-01T00:00:00Z"}, "Hold(UnknownUsage)"),
        ({"node": "another-node"}, "Hold(UnknownUsage)"),
        ({"node": socket.gethostname()}, GOES),
        ({"until": "2199-01-01T00:00:00Z"}, GOES),
    ]
    for more, said in rows:
        row = {"path": "broken/disk", "reason": "old", **more}
        assert keeper.plan({**ENFORCE, "acknowledged": [row]}).verdict(base) == said, more


# --- memory, directories, clocks -----------------------------------------------------------------------------------


def lose(ledger: Path) -> None:
    ledger.unlink()


def corrupt(ledger: Path) -> None:
    ledger.write_bytes(b"not a database, " * 4096)


def cut(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [lose, corrupt, cut])
def test_without_its_ledger_every_age_starts_anew(tree: NovaTree, keeper: Basekeeper, damage: Any) -> None:
    tree.add_base("first", age=MONTH)
    assert keeper.run().document["outcome"] == "Acted"
    base = tree.add_base("unused", age=MONTH)
    damage(keeper.state / "ledger.db")

    for answer in (keeper.plan(), keeper.run(), keeper.run()):
        assert (answer.status, answer.verdict(base)) == (0, YOUNG), answer
    assert "MemoryLost" in {note["about"] for note in keeper_note(keeper, damage)}


def keeper_note(keeper: Basekeeper, damage: Any) -> list[dict[str, Any]]:
    """The notes of the first look after the loss, made once more."""
    damage(keeper.state / "ledger.db")
    return list(keeper.plan().document["notes"])


@pytest.mark.parametrize("which", [".basekeeper-id", "_base/.basekeeper/id"])
@pytest.mark.parametrize("how", ["gone", "another"])
def test_other_directories_hold_everything_until_adopted(
    tree: NovaTree, keeper: Basekeeper, which: str, how: str
) -> None:
    tree.add_base("first", age=MONTH)
    keeper.run()
    base = tree.add_base("unused", age=MONTH)
    mark = tree.instances_path / which
    mark.unlink() if how == "gone" else mark.write_text("0123456789abcdef\n")

    for answer in (keeper.plan(), keeper.run(), keeper.run()):
        assert (answer.status, answer.verdict(base)) == (3, "Hold(OtherDirectory)"), answer
    assert ordered(keeper, "adopt") == 0
    time.sleep(1.1)  # in directories that carry another id ages start anew
    answer = keeper.run({**ENFORCE, "minimumAge": {"original": "1s"}})
    assert (answer.status, answer.verdict(base)) == (0, QUARANTINED), answer


def test_a_missing_mount_is_another_directory(tree: NovaTree, keeper: Basekeeper) -> None:
    """An empty directory where the file system with the instances was."""
    tree.add_overlay("machine", tree.add_base("used", age=MONTH))
    keeper.run()
    tree.instances_path.rename(tree.instances_path.with_name("unmounted"))
    NovaTree(tree.instances_path)
    base = tree.add_base("unused", age=MONTH)
    assert keeper.run().verdict(base) == "Hold(OtherDirectory)"


def at_clock(offset: str) -> tuple[str, ...]:
    """Run under a wall clock that is off; the time since boot, which no clock setting moves, is the real one."""
    return ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1", "faketime", "-f", offset)


def test_the_faked_clock_is_the_wall_clock_only() -> None:
    script = "import os, time; print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), os.stat('/').st_mtime)"
    real, faked = (
        subprocess.run([*under, sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
        for under in ((), at_clock("+2d"))
    )
    before, after = ([float(word) for word in ran.stdout.split()] for ran in (real, faked))
    assert [later - earlier for earlier, later in zip(before, after, strict=True)] == pytest.approx(
        [2 * DAY, 0, 0], abs=30
    )


@pytest.mark.parametrize("offset", ["+2d", "-2d", "+10m", "-10m"])
def test_a_clock_that_jumps_holds_everything_once_and_ages_start_anew(
    tree: NovaTree, keeper: Basekeeper, offset: str
) -> None:
    tree.add_base("first", age=MONTH)
    keeper.run(retention("1h"))
    base = tree.add_base("unused", age=MONTH)

    jumped = keeper.run(retention("1h"), under=at_clock(offset))
    after = keeper.run(retention("1h"), under=at_clock(offset))

    assert (jumped.status, jumped.verdict(base)) == (3, "Hold(ClockJumped)"), jumped
    assert (after.status, after.verdict(base)) == (0, YOUNG), after
    assert in_quarantine(tree) == [image_file_name("first")], "a jump ends no retention"


def test_a_clock_that_is_slewed_is_no_jump(tree: NovaTree, keeper: Basekeeper) -> None:
    keeper.run()
    base = tree.add_base("unused", age=MONTH)
    assert keeper.run(under=at_clock("+60s")).verdict(base) == QUARANTINED


def machines(tree: NovaTree, count: int) -> list[Path]:
    return [
        tree.add_overlay(f"machine-{number}", tree.add_base(f"used-{number}", age=MONTH, seed=number + 1))
        for number in range(count)
    ]


def test_users_that_vanish_at_once_open_the_breaker_until_they_are_back(tree: NovaTree, keeper: Basekeeper) -> None:
    disks = machines(tree, 4)
    keeper.run()
    base = tree.add_base("unused", age=MONTH)
    for disk in disks:
        disk.rename(disk.with_name(".hidden"))
        disk.with_name(".hidden").write_bytes(b"")

    for answer in (keeper.plan(), keeper.run(), keeper.run()):
        assert (answer.status, answer.verdict(base)) == (3, "Hold(UsersVanished)"), answer
    for number, disk in enumerate(disks):
        tree.add_overlay(disk.parent.name, f"{tree.base_dir}/{image_file_name(f'used-{number}')}")
    assert keeper.run().verdict(base) == QUARANTINED


def test_adopting_closes_the_breaker(tree: NovaTree, keeper: Basekeeper) -> None:
    disks = machines(tree, 3)
    keeper.run()
    base = tree.add_base("unused", age=MONTH)
    for disk in disks:
        disk.unlink()
    assert keeper.run().verdict(base) == "Hold(UsersVanished)"
    assert ordered(keeper, "adopt") == 0
    assert keeper.run().verdict(base) == QUARANTINED


def test_a_drained_node_opens_no_breaker(tree: NovaTree, keeper: Basekeeper) -> None:
    disks = machines(tree, 4)
    keeper.run()
    base = tree.add_base("unused", age=MONTH)
    for disk in disks:
        shutil.rmtree(disk.parent)
    answer = keeper.run()
    assert (answer.status, answer.verdict(base)) == (0, QUARANTINED)
    assert {answer.verdict(image_file_name(f"used-{number}")) for number in range(4)} == {YOUNG}


# --- two files of one name -----------------------------------------------------------------------------------------


def fetched_again(tree: NovaTree, keeper: Basekeeper, *, seed: int) -> Path:
    """A removed base, and a newer file of its name that a machine uses."""
    tree.add_base("contested", age=MONTH, seed=1)
    keeper.run(retention("1s"))
    base = tree.add_base("contested", seed=seed)
    tree.add_overlay("machine", base)
    time.sleep(1.1)
    return base


def test_the_older_of_two_different_files_is_never_purged_by_itself(tree: NovaTree, keeper: Basekeeper) -> None:
    base = fetched_again(tree, keeper, seed=2)
    for _ in range(3):
        answer = keeper.run(retention("1s"))
        assert answer.status == 3
        assert ("Hold", "Conflict") in {(row["verdict"], row["reason"]) for row in answer.document["files"]}
        assert in_quarantine(tree) == [base.name]


def test_the_older_of_two_equal_files_is_purged_when_it_is_due(tree: NovaTree, keeper: Basekeeper) -> None:
    base = fetched_again(tree, keeper, seed=1)
    answers = [keeper.run(retention("1s")) for _ in range(2)]
    assert (in_quarantine(tree), base.exists(), answers[-1].status) == ([], True, 0)


def test_the_operator_may_purge_the_older_file_by_its_entry(tree: NovaTree, keeper: Basekeeper) -> None:
    fetched_again(tree, keeper, seed=2)
    (entry,) = keeper.ask("quarantine", "list").document["items"]
    answer = keeper.ask("quarantine", "purge", entry["entry"], spec=ENFORCE)
    assert (answer.status, in_quarantine(tree)) == (0, []), answer


def test_the_operator_may_move_the_newer_file_away_and_restore_the_older(tree: NovaTree, keeper: Basekeeper) -> None:
    base = fetched_again(tree, keeper, seed=2)
    base.rename(tree.instances_path.parent / "set-aside")
    assert keeper.ask("quarantine", "restore", base.name).status == 0
    assert (base.exists(), in_quarantine(tree)) == (True, [])


# --- nova.conf, users ----------------------------------------------------------------------------------------------

NOVA_CONF = """\
[DEFAULT]
image_cache_manager_interval = 1800
[image_cache]
remove_unused_base_images = True
remove_unused_original_minimum_age_seconds = 172800
[libvirt]
remove_unused_resized_minimum_age_seconds = 7200
"""


def test_an_imported_nova_conf_is_a_policy_that_plan_takes(tree: NovaTree, keeper: Basekeeper, tmp_path: Path) -> None:
    conf, policy = tmp_path / "nova.conf", tmp_path / "imported.yaml"
    conf.write_text(NOVA_CONF)
    command = [sys.executable, "-m", "basekeeper", "import-nova-conf", str(conf)]
    policy.write_text(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    for number in range(6):  # of which a quarter may go: nova had no limits, the default holds
        tree.add_base(f"young-{number}")
    bases = [tree.add_base(f"unused-{hours}", age=hours * HOUR) for hours in (47, 49)]
    resized = [tree.add_base("other", suffix=f"_{hours}0", age=hours * HOUR) for hours in (1, 3)]

    answer = keeper.ask("plan", "--policy", str(policy))

    assert answer.document["policy"]["mode"] == "Enforce"
    said = [answer.verdict(path).partition("(")[0] for path in (*bases, *resized)]
    assert said == ["Keep", "Remove", "Keep", "Remove"], answer


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users can get to, unlike pytest's."""
    place = Path(tempfile.mkdtemp(prefix="basekeeper-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def as_nova(place: Path) -> tuple[str, ...]:
    """Be nova, without any of root's powers; everything there is nova's."""
    for path in (place, *place.rglob("*")):
        os.chown(path, NOVA, NOVA, follow_symlinks=False)
    return ("setpriv", f"--reuid={NOVA}", f"--regid={NOVA}", "--clear-groups", "--no-new-privs", "--bounding-set=-all")


def test_nova_s_own_user_can_do_everything(open_place: Path) -> None:
    assert os.geteuid() == 0, "changing users needs root"
    tree = NovaTree(open_place / "instances")
    keeper = Basekeeper(tree, open_place / "state")
    unused, used = tree.add_base("unused", age=MONTH), tree.add_base("used", age=MONTH)
    tree.add_overlay("machine", used)
    write_policy(open_place / "state-policy.yaml", ENFORCE)
    nova = as_nova(open_place)

    made = keeper.run(under=nova)
    assert (made.status, made.verdict(unused), made.verdict(used)) == (0, QUARANTINED, KEPT), made
    tree.add_overlay("late", f"{tree.base_dir}/{unused.name}")
    assert keeper.run(under=as_nova(open_place)).verdict(unused) == RESTORED
    owners = {path: path.lstat().st_uid for path in open_place.rglob("*") if "policy" not in path.name}
    assert {path for path, uid in owners.items() if uid != NOVA} == set()


def test_what_root_makes_nova_s_user_can_use(open_place: Path) -> None:
    tree = NovaTree(open_place / "instances")
    keeper = Basekeeper(tree, open_place / "state")
    tree.add_base("unused", age=MONTH)
    shutil.rmtree(tree.locks_dir)
    as_nova(open_place)
    assert keeper.run().document["outcome"] == "Acted"
    foreign = [path for path in tree.instances_path.rglob("*") if path.lstat().st_uid != NOVA]
    assert foreign == [], "nova cannot open these"


def test_a_disk_that_nova_s_user_may_not_read_holds_removals(open_place: Path) -> None:
    tree = NovaTree(open_place / "instances")
    keeper = Basekeeper(tree, open_place / "state")
    base = tree.add_base("unused", age=MONTH)
    disk = tree.add_overlay("machine", tree.add_base("used", age=MONTH))
    nova = as_nova(open_place)
    os.chown(disk, 64055, 64055)  # as libvirt gives it to qemu
    disk.chmod(0o600)
    answer = keeper.plan(under=nova)
    assert (answer.status, answer.verdict(base)) == (3, "Hold(UnknownUsage)"), answer
    assert ("UnknownUsage", "machine/disk") in answer.holds
    assert "Permission denied" in str(answer.document["holds"])


def test_times_in_documents_are_utc(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_base("young", age=HOUR)
    answer = keeper.plan(under=("env", "TZ=Asia/Tokyo"))
    (row,) = answer.document["files"]
    at = datetime.fromisoformat(row["removableAt"])
    assert at.timestamp() == pytest.approx(time.time() + 23 * HOUR, abs=60)
