"""SIGINT, SIGTERM and SIGHUP: between two files where a command acts, at once elsewhere, one line in any case.

Imports next to nothing: it is there before everything else. A signal that is ignored when the program starts, as under
nohup, stays ignored.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended the command. No KeyboardInterrupt: of that typer makes status 130, and says nothing."""


def end_at_once(said: str) -> None:
    """Let a signal end the process where it is, with one line."""

    def end(_number: int, _frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(2, f"basekeeper: {said}\n".encode())
        os._exit(1)

    _handle(end)


def raise_once() -> None:
    """Let a signal raise Interrupted, and one that follows end the process at once."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        end_at_once("interrupted twice; what was under way is completed or undone by the next pass")
        raise Interrupted

    _handle(interrupt)


def ignore() -> None:
    """Let no signal change how a command ended that has said all it had to say."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def between_files() -> Iterator[Callable[[], bool]]:
    """Let the first signal be a wish, which what is yielded tells of; one that follows does what it did before."""
    wished = False
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def wish(_number: int, _frame: FrameType | None) -> None:
        nonlocal wished
        wished = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    _handle(wish)
    try:
        yield lambda: wished
    finally:
        restore()


def _handle(handler: Callable[[int, FrameType | None], Any]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
