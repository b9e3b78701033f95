"""A file of the cache and what was decided about it: what the parts of the judgement hand to one another."""

from dataclasses import dataclass

from .evidence import CachedFile
from .verdicts import Reason, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One file of `_base` and what was decided about it."""

    file: CachedFile
    verdict: Verdict
    reason: Reason
    message: str
    users: tuple[str, ...] = ()
    unused_since: float | None = None
    """Unix seconds; the later of its mtime and when it was last seen in use. None: its stamp says nothing."""
    age: float | None = None
    removable_at: float | None = None
