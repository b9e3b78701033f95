"""Runs the `basekeeper` command hundreds of times in seconds: one interpreter, a fork for each command.

A driver, in a process namespace of its own so that what else runs on the machine changes neither a pass nor the count
of its calls, has everything imported; for each order it forks, has strace attach if asked to, and lets the fork go on
into the program's `main`. This file is both the driver (run as a script) and the client.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 60
"""Seconds after which a command counts as hung, and is killed."""
ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    """Its exit status, or minus the signal that killed it."""
    document: dict[str, Any]
    stderr: str


class Warm(AbstractContextManager["Warm"]):
    """One driver; takes one order at a time."""

    def __init__(self) -> None:
        self._driver = subprocess.Popen(
            [*ALONE, sys.executable, "-BP", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __exit__(self, *_: object) -> None:
        self._driver.communicate()

    def run(self, command: Sequence[str], scratch: Path, *, strace: Sequence[str] = ()) -> Ended:
        """Run a command of `Basekeeper.command`, under strace with these options if any are given.

        `scratch` is a directory for its output; the trace is in `trace` there.
        """
        order = {"arguments": command[3:], "scratch": str(scratch), "strace": list(strace)}
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps(order) + "\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline())
        assert "attached" in answer["strace"] or not strace, f"strace did not attach: {answer['strace']}"
        stdout = (scratch / "stdout").read_text()
        complete = stdout.rstrip().endswith("}")
        return Ended(answer["status"], json.loads(stdout) if complete else {}, (scratch / "stderr").read_text())


def _drive() -> None:
    from basekeeper.cli.app import main  # noqa: PLC0415 (the client has no need of it)

    for line in sys.stdin:
        order = json.loads(line)
        gate, opener = os.pipe()
        ready, telling = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(opener)
            os.close(ready)
            _become(order, telling, gate, main)
        os.close(gate)
        os.close(telling)
        os.read(ready, 1)
        os.close(ready)
        attached = ""
        if order["strace"]:
            trace = os.path.join(order["scratch"], "trace")
            command = ["strace", "-f", "-o", trace, *order["strace"], "-p", str(child)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
                assert strace.stderr is not None
                attached = strace.stderr.readline()
                os.close(opener)
        else:
            os.close(opener)
        _, ended = os.waitpid(child, 0)
        answer = {"status": os.waitstatus_to_exitcode(ended), "strace": attached}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(order: dict[str, str], telling: int, gate: int, main: object) -> None:
    """Be the command: its arguments, its output, its end.

    Its output is opened before the driver goes on: strace would count these calls, or not, as it comes in time.
    """
    assert callable(main)
    for number, name in ((1, "stdout"), (2, "stderr")):
        output = os.open(os.path.join(order["scratch"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, number)
        os.close(output)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["basekeeper", *order["arguments"]]
    signal.alarm(TIMEOUT)
    os.close(telling)
    os.read(gate, 1)  # ends when the driver closes the other side: strace is there
    status = 70
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _drive()
