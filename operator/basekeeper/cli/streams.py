"""Standard output and error, which may be closed, full, or unable to show a character: never a traceback."""

import io
import os
import sys
from contextlib import suppress

from .errors import CommandFailed


class _Output(io.TextIOWrapper):
    """Standard output; where it takes nothing, that ends the command, once, and leaves nothing to be flushed."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._refused(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> CommandFailed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return CommandFailed(f"cannot write to standard output: {error.strerror or error}")


def prepare() -> None:
    """Make both streams take any character, and give closed ones a place that no other file can take."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number: this one
    # Nothing can be written to what was opened for reading: a closed standard output is one that refuses.
    out = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if isinstance(out, io.TextIOWrapper):
        encoding, lines, through = out.encoding, out.line_buffering, out.write_through
        sys.stdout = _Output(out.detach(), encoding, "backslashreplace", line_buffering=lines, write_through=through)
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def can_show(text: str) -> bool:
    """Whether standard output has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def say(text: str) -> None:
    """Write text and a line's end to standard output. Raises CommandFailed."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    """Write one line to standard error, if that takes it."""
    try:
        sys.stderr.write("basekeeper: " + " ".join(message.split()) + "\n")
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
