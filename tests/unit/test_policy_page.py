"""The page on policies says what a policy can say, no more and no less."""

from pathlib import Path

from basekeeper.resources.generated import policy_spec
from scripts.policy_page import rows, written

PAGE = (Path(__file__).resolve().parents[2] / "docs/policy.md").read_text(encoding="utf-8")


def test_the_page_lists_every_field_with_what_it_says() -> None:
    assert written(PAGE) == PAGE


def test_every_field_that_stands_alone_says_its_default_or_that_it_has_to_be_given() -> None:
    """What is in a list's rows is given with the row."""
    silent = [
        field
        for field, says, _ in rows(policy_spec())
        if "[]." not in field and "nodeSelector." not in field and "Default" not in says and "Required" not in says
    ]
    assert silent == []
