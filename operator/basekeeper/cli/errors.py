"""What ends a command, each with its exit status (DESIGN: 0 done, 1 failed, 2 wrong use, 3 held)."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses: an interface."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    HELD = 3


class UsageError(Exception):
    """Wrong use or a bad policy; the message is one line that names the option, file or field."""


class CommandFailed(Exception):
    """The command could not do its work; the message is one line."""
