"""What lay in the cache and is gone, though nothing of ours removed it: nova's own manager, or a person, is at work.

Only finished files count: a download that ends takes its leftovers with it. A pass remembers the names that lie there
when it ends, the next one misses those that neither lie there nor wait in the quarantine. Values only.
"""

from collections.abc import Sequence

from .amounts import some
from .evidence import FileType, Inventory, Note
from .memory import Directories, Memory, Present
from .names import display
from .settings import HOUR

_COMPARABLE = (Directories.KNOWN, Directories.NEW)
_NAMED = 5
LONG_AGO = 7 * 24 * HOUR
"""Seconds; longer than anybody waits between two passes."""


def of(inventory: Inventory, now: float) -> Present | None:
    """The finished files of a cache at `now`, Unix seconds; None where there is no cache."""
    if inventory.directory is None:
        return None
    finished = (file.name for file in inventory.files if file.type is FileType.REGULAR and file.name.is_final)
    return Present(inventory.directory, frozenset(name.raw for name in finished), now)


def missed(memory: Memory, first: Inventory, last: Inventory, now: float) -> tuple[bytes, ...]:
    """What was there when the last pass ended, or at the `first` look of this one, and is gone at its `last` look.

    Neither look knows of an act of this pass. Another `_base`, be it new or none because a file system is not mounted,
    says nothing about what lay in the old one; nor does a memory that is about other directories, or was lost, or one
    of long ago: where basekeeper was not at work meanwhile, the files were somebody else's to remove.
    """
    before = memory.present if memory.directories in _COMPARABLE else None
    if before is not None and not 0 <= now - before.at <= LONG_AGO:
        before = None
    known = [there for there in (before, of(first, now)) if there is not None and there.directory == last.directory]
    here = {file.name.raw for file in last.files} | {entry.name.raw for entry in last.entries}
    return tuple(sorted({name for there in known for name in there.names} - here))


def note(names: Sequence[bytes]) -> Note:
    """What to tell of these."""
    named = some([display(name) for name in names], _NAMED)
    gone = "1 finished file is" if len(names) == 1 else f"{len(names)} finished files are"
    message = f"{gone} gone, and basekeeper did not remove what was there: {named}; does nova's manager run beside it?"
    return Note("FilesVanished", message)
