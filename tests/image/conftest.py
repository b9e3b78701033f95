"""Tests of the container image that scripts/image builds; root only, because they run it."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def means() -> None:
    """Fail, never skip, where an image cannot be built or run."""
    missing = [tool for tool in ("buildah", "runc") if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not installed: run scripts/setup test", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("the container image's tests run it, which takes root", pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.image)
