"""Passes that follow one another, as an agent's would, while a test does something to the node."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.node.cli import ENFORCE, TIMEOUT, Answer, Basekeeper, Spec

AT_ONCE: Spec = {
    **ENFORCE,
    "minimumAge": {"original": "0s", "resized": "0s", "swap": "0s", "ephemeral": "0s", "partial": "0s"},
}
"""Removes whatever nothing needs at this moment: no age protects."""
BUSY = "another basekeeper"


class Passes:
    """`with Passes(keeper):` makes one pass after the other until the block ends, and remembers what they said."""

    def __init__(self, keeper: Basekeeper, spec: Spec = AT_ONCE) -> None:
        self._keeper = keeper
        self._spec = spec
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="passes", daemon=True)
        self._failure: BaseException | None = None
        self.answers: list[Answer] = []
        self.busy = 0
        """How often another program was at work on the same cache."""

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_more(1)
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.wait_for_more(2)  # one may have begun before the block's last line, the next has not
        self._over.set()
        self._thread.join(TIMEOUT)
        if error is None and self._failure is not None:
            raise self._failure

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more passes have come to their end."""
        wanted = len(self.answers) + count
        deadline = time.monotonic() + TIMEOUT
        while len(self.answers) < wanted and self._thread.is_alive():
            assert time.monotonic() < deadline, "the passes do not get on"
            time.sleep(0.005)
        if self._failure is not None:
            raise self._failure

    def verdicts(self, name: str | Path) -> set[str]:
        """All that the passes said about a file of the cache, acts included."""
        return {answer.verdict(name) for answer in self.answers}

    def _repeat(self) -> None:
        try:
            while not self._over.is_set():
                answer = self._keeper.run(self._spec)
                if answer.status == 1 and BUSY in answer.document.get("error", ""):
                    self.busy += 1
                    continue
                assert answer.status in (0, 3), answer
                self.answers.append(answer)
        except BaseException as error:
            self._failure = error
            raise
