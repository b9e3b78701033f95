"""What is said of a judgement beside its verdicts: what held something, and what is worth telling that held nothing."""

from collections.abc import Iterable, Sequence

from .amounts import some
from .anomalies import Stop
from .evidence import Inventory, Note, Unknown, Usage
from .judged import Judged
from .memory import Directories, Memory
from .names import FINAL_KINDS, Name
from .pressure import PressureState, Relief
from .quarantine_plan import Decision, Hold, JudgedEntry
from .verdicts import Reason, Verdict


def unknown_about(name: Name, unknown: Iterable[Unknown]) -> tuple[Unknown, ...]:
    """The unknowns that could have prevented the removal of the file of this name."""
    return tuple(
        item
        for item in unknown
        if (item.only is None and name.kind in FINAL_KINDS) or (item.only is not None and name.raw in item.only)
    )


def holds_of(
    files: Sequence[Judged], entries: Sequence[JudgedEntry], stops: Sequence[Stop], usage: Usage
) -> tuple[Hold, ...]:
    """What held something, each once, with the path where it has one."""
    reasons = {item.reason for item in files if item.verdict is Verdict.HOLD}
    reasons |= {entry.reason for entry in entries if entry.decision is Decision.HOLD}
    holds = [Hold(stop.reason, stop.message, stop.path) for stop in stops if stop.anomaly or stop.reason in reasons]
    if Reason.UNKNOWN_USAGE in reasons:
        held = [item for item in files if item.reason is Reason.UNKNOWN_USAGE]
        purge = any(entry.reason is Reason.UNKNOWN_USAGE for entry in entries)
        relevant = [
            item
            for item in usage.unknown
            if purge or any(unknown_about(file.file.name, (item,)) or file.message == item.message for file in held)
        ]
        holds += [Hold(Reason.UNKNOWN_USAGE, item.message, item.path) for item in relevant]
    if Reason.SPAWN_IN_PROGRESS in reasons:
        message = "a directory without a domain changed a moment ago: an instance may be starting in it"
        holds += [Hold(Reason.SPAWN_IN_PROGRESS, message, spawn.path) for spawn in usage.spawns]
    if Reason.IMAGE_UNKNOWN in reasons:
        holds.append(Hold(Reason.IMAGE_UNKNOWN, image_unknown(usage), usage.unidentified_raw[0]))
    by_item = (Reason.LIMIT_REACHED, Reason.CONFLICT, Reason.CORRUPT, Reason.DRAINING, Reason.OUTSIDE_WINDOW)
    for reason in (*by_item, Reason.SHARED_STORAGE):
        said = [item.message for item in files if item.verdict is Verdict.HOLD and item.reason is reason]
        said += [e.message for e in entries if e.decision is Decision.HOLD and e.reason is reason]
        holds += [Hold(reason, message) for message in dict.fromkeys(said)]
    return tuple(dict.fromkeys(sorted(holds, key=lambda hold: (hold.reason, hold.path or "", hold.message))))


def notes_of(
    inventory: Inventory, usage: Usage, memory: Memory, holds: Sequence[Hold], relief: Relief | None
) -> tuple[Note, ...]:
    """Everything worth telling that held nothing, also what could not be asked but would have changed nothing."""
    told = {(hold.message, hold.path) for hold in holds}
    quiet = [
        Note("NotAsked", item.message, item.path) for item in usage.unknown if (item.message, item.path) not in told
    ]
    present = {file.name.raw for file in inventory.files} | {entry.name.raw for entry in inventory.entries}
    missing = [
        Note(
            "BaseMissing",
            f"{_text(name)} is not in the cache, although {_some(sorted({user.who for user in users}))} needs it",
        )
        for name, users in sorted(usage.by_name.items())
        if users and name not in present
    ]
    lost = memory.directories is Directories.MEMORY_LOST
    memory_notes = [Note("MemoryLost", memory.directories_message)] if lost else []
    hopeless = relief is not None and relief.state is PressureState.NOT_OURS
    room = [Note(PressureState.NOT_OURS.value, relief.message)] if relief is not None and hopeless else []
    return (*memory_notes, *room, *inventory.notes, *usage.notes, *missing, *quiet)


def image_unknown(usage: Usage) -> str:
    """Why an original is held from which a raw disk may have been made, and what to do about it."""
    return (
        f"{_some(usage.unidentified_raw)} is a raw disk and nothing says from which image; set cachedOnly: Remove, "
        "or let nova's manager run with remove_unused_base_images = false so that it touches what it knows"
    )


def _some(names: Sequence[str]) -> str:
    return some(names, 2)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")
