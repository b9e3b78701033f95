"""What is said of a file that may not be read: enough to know what to change."""

import errno
import os
from pathlib import Path

from basekeeper.cache.files import why

DENIED = PermissionError(errno.EACCES, "Permission denied")
ASKER = f"basekeeper is {os.geteuid()}:{os.getegid()}"


def test_a_missing_right_is_told_with_whose_the_file_is_and_who_asks(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    disk.chmod(0o600)

    status = disk.stat()
    owner = f"{status.st_uid}:{status.st_gid}"
    assert why(DENIED, disk) == f"Permission denied: owner {owner}, mode 0600; {ASKER}"


def test_a_directory_above_that_may_not_be_entered_is_told(tmp_path: Path) -> None:
    assert why(DENIED, tmp_path / "closed/disk").startswith(f"Permission denied: {ASKER} and may not enter")


def test_other_errors_are_told_in_the_systems_words(tmp_path: Path) -> None:
    assert why(OSError(errno.EIO, "Input/output error"), tmp_path) == "Input/output error"
