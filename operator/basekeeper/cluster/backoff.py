"""Waiting between attempts: longer each time, and never for the same time as everybody else."""

import random
from dataclasses import dataclass


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds`, give or take up to `share` of it: so that nodes that started together do not stay together."""
    return seconds * (1 + random.uniform(-share, share))  # noqa: S311 (spreads load, guards nothing)


@dataclass
class Backoff:
    """How long to wait after each failure in a row; `reset` after a success."""

    first: float
    most: float
    _next: float = 0.0

    def failed(self) -> float:
        """Seconds to wait now: twice as long as last time, up to `most`, jittered."""
        wait = self._next or self.first
        self._next = min(wait * 2, self.most)
        return jittered(wait, 0.3)

    def reset(self) -> None:
        """Begin anew."""
        self._next = 0.0
