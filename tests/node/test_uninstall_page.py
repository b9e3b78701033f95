"""The way back without basekeeper: the shell of the page on uninstalling is run as it stands, and loses no file."""

import re
import subprocess
from pathlib import Path

from lab.nova_tree import DAY, HOUR, NovaTree

from .cli import Basekeeper

PAGE = Path(__file__).resolve().parents[2] / "docs/install/uninstall.md"
INSTANCES = "/var/lib/nova/instances"


def shell() -> str:
    """The block that the page marks as run by this test."""
    (block,) = re.findall(
        rf"<!-- run by tests/node/{Path(__file__).name} -->\n```sh\n(.*?)^```$",
        PAGE.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    return str(block)


def test_the_page_s_own_shell_puts_removed_files_back_and_never_over_another(tree: NovaTree, tmp_path: Path) -> None:
    keeper = Basekeeper(tree, tmp_path / "state")
    bases = [tree.add_base(f"unused-{number}", age=30 * DAY, seed=number + 1) for number in range(3)]
    contents = [base.read_bytes() for base in bases]
    assert keeper.run().document["totals"]["quarantinedBytes"] > 0
    assert not any(base.exists() for base in bases)
    bases[0].write_bytes(b"fetched again")

    text = shell().replace(INSTANCES, str(tree.instances_path))
    subprocess.run(["sh", "-eu", "-c", text], check=True, timeout=60)

    assert [base.read_bytes() for base in bases] == [b"fetched again", *contents[1:]]
    (left,) = tree.base_dir.glob(".basekeeper/quarantine/*/" + bases[0].name)
    assert left.read_bytes() == contents[0]
    plan = keeper.plan()
    assert [plan.file(base)["reason"] for base in bases] == ["TooYoung"] * 3
    assert all(plan.file(base)["ageSeconds"] < HOUR for base in bases)
    listed = keeper.ask("quarantine", "list").document["items"]
    assert [item["name"] for item in listed] == [bases[0].name]
