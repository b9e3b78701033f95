"""How much one pass may remove, and whose turn it is. Pure.

The caps of a policy are shared among the kinds of files that have something to go, so that a hundred leftovers do not
keep the one large base waiting: each kind gets an equal part, what one does not need goes to the others. Within a kind,
and of what is left over, the longest unused go first. A corrupt base, on which nova may build the next machine, and
then what goes for the disk's sake go before all that, and count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .judged import Judged
from .names import Kind
from .settings import Limits
from .verdicts import EVICTION_REASONS, Reason, Verdict

_URGENT = EVICTION_REASONS | {Reason.CORRUPT}
_ENDLESS = 1 << 64
"""Bytes: more than any file system has."""


def oldest_first(item: Judged) -> tuple[float, bytes]:
    """A file's place in a queue: the longest unused first, then by name."""
    return (item.unused_since if item.unused_since is not None else 0.0, item.file.name.raw)


def throttled(files: Sequence[Judged], limits: Limits) -> list[Judged]:
    """The judged files of a cache, of which what is more than one pass may remove waits for a later one."""
    going = sorted((item for item in files if item.verdict is Verdict.REMOVE), key=oldest_first)
    cached = sum(1 for item in files if item.verdict is not Verdict.FOREIGN)
    allowed = _allowed(going, limits, cached)
    waiting = len(going) - len(allowed)
    message = f"{len(allowed)} go in this pass, the longest unused of each kind first; {waiting} wait for the next"
    return [
        item
        if item.verdict is not Verdict.REMOVE or item.file.name.raw in allowed
        else replace(item, verdict=Verdict.HOLD, reason=Reason.LIMIT_REACHED, message=message)
        for item in files
    ]


@dataclass
class _Room:
    """What a pass may still remove, and the names of what it removes."""

    files: int
    size: int
    """Bytes."""
    taken: set[bytes] = field(default_factory=set)

    def take(self, item: Judged) -> bool:
        """Take a file if it fits; the first one always does, or one larger than the cap would never go."""
        size = item.file.reclaimable
        if self.taken and (self.files < 1 or size > self.size):
            return False
        self.files -= 1
        self.size -= size
        self.taken.add(item.file.name.raw)
        return True


def _allowed(going: Sequence[Judged], limits: Limits, cached: int) -> set[bytes]:
    """The names of what may go of `going`, which comes oldest first."""
    most = min(limits.max_files, cached * limits.max_percent // 100)
    room = _Room(max(1, most), _ENDLESS if limits.max_bytes is None else limits.max_bytes)
    urgent = [item for item in going if item.reason in _URGENT]
    by_age = [item for item in going if item.reason not in _URGENT]
    for item in sorted(urgent, key=lambda item: item.reason is not Reason.CORRUPT):
        if not room.take(item):
            return room.taken
    queues = _by_kind(by_age).values()
    files = _share([len(queue) for queue in queues], room.files)
    size = _share([sum(item.file.reclaimable for item in queue) for queue in queues], max(0, room.size))
    if by_age and not room.taken:
        room.take(by_age[0])
    for queue in queues:
        _take_share(room, queue, files, size)
    _take_rest(room, by_age)
    return room.taken


def _by_kind(items: Iterable[Judged]) -> dict[Kind, list[Judged]]:
    queues: dict[Kind, list[Judged]] = {}
    for item in items:
        queues.setdefault(item.file.name.kind, []).append(item)
    return queues


def _share(needs: Iterable[int], cap: int) -> int:
    """What each may take of `cap` so that all who need more get the same, and nobody keeps what it does not need."""
    left, unmet = cap, sorted(needs)
    while unmet and unmet[0] <= left // len(unmet):
        left -= unmet.pop(0)
    return left // len(unmet) if unmet else cap


def _take_share(room: _Room, queue: Sequence[Judged], files: int, size: int) -> None:
    """Take what is a kind's own share, of files and of bytes."""
    for item in queue[:files]:
        size -= item.file.reclaimable
        if item.file.name.raw not in room.taken and (size < 0 or not room.take(item)):
            return


def _take_rest(room: _Room, going: Sequence[Judged]) -> None:
    """Take what fits into what is left over; after one that does not fit no younger one of its kind goes."""
    full: set[Kind] = set()
    for item in going:
        kind = item.file.name.kind
        if item.file.name.raw not in room.taken and (kind in full or not room.take(item)):
            full.add(kind)
