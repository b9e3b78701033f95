"""The ledger: what basekeeper remembers of this node between passes.

What is in it, and how that is asked and told; `ledger_file` opens it, makes it and brings it up to date. There is no
SQL beside these two.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from math import isfinite
from typing import Any

from .baselines import Baselines
from .evidence import CachedFile, Identity, Inode
from .identity import Ids, KnownIds
from .memory import (
    Acknowledged,
    Breaker,
    Clock,
    Directories,
    LastPass,
    LastSigns,
    Memory,
    NovaSeen,
    Present,
    Removing,
)
from .names import display, from_display
from .verdicts import Reason

_MOST_USERS = 64


class LedgerError(Exception):
    """The ledger cannot be used, and not because it is damaged; says where, why and what to do."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the agent was told, and when that was last confirmed: it acts by it while the API server is away."""

    spec: Any
    """A `NodeImageCache`'s spec as JSON has it; what it means is not the ledger's business."""
    generation: int
    confirmed_at: float
    """Unix seconds."""


class Ledger:
    """An open ledger. Use `ledger_file.reading` or `ledger_file.writing` to get one."""

    def __init__(self, connection: sqlite3.Connection, *, lost: bool) -> None:
        self._db = connection
        self._lost = lost
        self.contents = Baselines(connection)

    @property
    def lost(self) -> bool:
        """There was a ledger and it could not be read, and no age has started anew since.

        Written down, because whoever opens the new one first need not be the pass that must know.
        """
        return self._lost or bool(self._get("lost"))

    def ids(self) -> KnownIds | None:
        """The ids of the directories that it knows."""
        known = self._get("ids")
        if known is None:
            return None
        return KnownIds(Ids(known["instances"], known["base"]), bool(known["made"]))

    def set_ids(self, ids: Ids, *, made: bool) -> None:
        """Know these directories from now on."""
        self._set("ids", {"instances": ids.instances, "base": ids.base, "made": made})

    def memory(self, directories: Directories, message: str) -> Memory:
        """Everything that judgement may know, with what the id files say about the directories."""
        clock, last, breaker = self._get("clock"), self._get("last_pass"), self._get("breaker")
        removing = self._get("removing")
        ages_since, present = self._get("ages_since"), self._get("present")
        return Memory(
            last_used=dict(self._db.execute("SELECT name, at FROM used")),
            used_files={
                name: int(inode)
                for name, inode in self._db.execute("SELECT name, inode FROM used WHERE inode IS NOT NULL")
            },
            last_users={
                name: tuple(map(str, json.loads(users)))
                for name, users in self._db.execute("SELECT name, users FROM used WHERE users != '[]'")
            },
            ages_since=None if ages_since is None else float(ages_since),
            pins=dict(self._db.execute("SELECT name, until FROM pin")),
            acknowledged=tuple(_acknowledged(row) for row in self._db.execute("SELECT * FROM acknowledged")),
            compared={
                (row[0], int(row[1]), row[2]): bool(row[3]) for row in self._db.execute("SELECT * FROM compared")
            },
            clock=None if clock is None else Clock(float(clock["wall"]), float(clock["uptime"]), str(clock["boot"])),
            last_pass=None if last is None else LastPass(_names(last["used"]), int(last["places"])),
            present=None
            if present is None
            else Present(int(present["directory"]), _names(present["names"]), float(present["at"])),
            breaker=None
            if breaker is None
            else Breaker(Reason(breaker["cause"]), float(breaker["since"]), _names(breaker["names"])),
            trips={Reason(cause): float(since) for cause, since in (self._get("trips") or {}).items()},
            accepted_homeless=frozenset(map(str, self._get("accepted_homeless") or ())),
            evicting=self._get("evicting") is True,
            removing=None if removing is None else Removing(_names(removing["names"]), float(removing["since"])),
            nova=_nova_seen(self._get("nova")),
            directories=directories,
            directories_message=message,
        )

    def understand(self) -> None:
        """Read everything once; raises what damage makes of it. SQLite knows whole pages, not what they say."""
        self.ids()
        self.reclaimed()
        self.accepted()
        self.resets()
        self.retired()
        self.memory(Directories.KNOWN, "")
        self.contents.known()
        self.contents.readings()

    def seen_in_use(self, users: Mapping[bytes, Sequence[str]], files: Mapping[bytes, Inode], at: float) -> None:
        """Remember that these bases were in use at this time, by whom, and which file each is; moves no memory back.

        A use without users to name (a lock, a pin by hand) leaves the users that are known. `files` may have more.
        """
        rows = [
            (name, at, json.dumps(list(who[:_MOST_USERS])), str(files[name][1]) if name in files else None)
            for name, who in users.items()
        ]
        self._db.executemany(
            "INSERT INTO used VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at), "
            "users = CASE excluded.users WHEN '[]' THEN users ELSE excluded.users END, inode = excluded.inode",
            rows,
        )

    def forget_users(self, names: Iterable[bytes]) -> None:
        """Forget who used these: the side-cars of the removed files know it, and the next file of a name is another."""
        self._db.executemany("UPDATE used SET users = '[]' WHERE name = ?", [(name,) for name in names])

    def forget_used(self, but: Iterable[bytes]) -> None:
        """Forget names that are neither in the cache nor in the quarantine any more."""
        keep = set(but)
        gone = [row for row in self._db.execute("SELECT name FROM used") if row[0] not in keep]
        self._db.executemany("DELETE FROM used WHERE name = ?", gone)

    def restart_ages(self, at: float) -> None:
        """No age counts from before this moment, and none from after it."""
        self._set("ages_since", at)
        self._db.execute("UPDATE used SET at = min(at, ?)", (at,))
        self._db.execute("DELETE FROM meta WHERE key = 'lost'")

    def pin(self, name: bytes, until: float) -> None:
        """Keep this name, used or not, until then."""
        self._db.execute("INSERT OR REPLACE INTO pin VALUES (?, ?)", (name, until))

    def acknowledge(self, row: Acknowledged) -> None:
        """Remember an acknowledged path and what it is now."""
        identity = None if row.identity is None else json.dumps(astuple(row.identity))
        self._db.execute(
            "INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?, ?)",
            (row.path, int(row.by_hand), identity, row.reason, row.until),
        )

    def forget_acknowledged(self, paths: Iterable[str], *, by_hand: bool) -> None:
        """Forget these acknowledged paths."""
        self._db.executemany(
            "DELETE FROM acknowledged WHERE path = ? AND by_hand = ?", [(path, int(by_hand)) for path in paths]
        )

    def compared(self, entry_id: str, newer: CachedFile, *, same: bool) -> None:
        """Remember whether this quarantined file has the content of the newer one of its name, as that is now."""
        row = (entry_id, str(newer.inode[1]), newer.size, int(same))
        self._db.execute("INSERT OR REPLACE INTO compared VALUES (?, ?, ?, ?)", row)

    def forget_compared(self, but: Iterable[str]) -> None:
        """Forget what was compared of entries that are not in the quarantine any more: no later one has their ids."""
        keep = set(but)
        gone = [row for row in self._db.execute("SELECT entry FROM compared") if row[0] not in keep]
        self._db.executemany("DELETE FROM compared WHERE entry = ?", gone)

    def end_pass(self, clock: Clock, last: LastPass | None, breaker: Breaker | None) -> None:
        """Remember how a pass ended; `last` is None when its evidence was not complete."""
        self._set("clock", {"wall": clock.wall, "uptime": clock.uptime, "boot": clock.boot})
        if last is not None:
            self._set("last_pass", {"used": _texts(last.used), "places": last.places})
        self._set(
            "breaker",
            None
            if breaker is None
            else {"cause": breaker.cause.value, "since": breaker.since, "names": _texts(breaker.names)},
        )
        self._db.execute("DELETE FROM pin WHERE until < ?", (clock.wall,))

    def set_removing(self, removing: Removing | None) -> None:
        """Remember which corrupt files a pass is about to remove; None: it has had its last look at them."""
        self._set("removing", None if removing is None else {"names": _texts(removing.names), "since": removing.since})

    def set_present(self, present: Present) -> None:
        """Remember what lies in the cache now."""
        self._set("present", {"directory": present.directory, "names": _texts(present.names), "at": present.at})

    def set_trips(self, trips: Mapping[Reason, float], accepted_homeless: Iterable[str]) -> None:
        """Remember since when each anomaly stands, and the domains whose directories may be gone."""
        self._set("trips", {cause.value: since for cause, since in trips.items()})
        self._set("accepted_homeless", sorted(accepted_homeless))

    def resets(self) -> frozenset[str]:
        """The names of trips that an operator ended by hand since the last pass."""
        return frozenset(map(str, self._get("resets") or ()))

    def add_reset(self, trip: str) -> None:
        """Have the next pass end the trip of this name."""
        self._set("resets", sorted(self.resets() | {trip}))

    def forget_resets(self, trips: Iterable[str]) -> None:
        """Forget these: a pass has looked at them."""
        self._set("resets", sorted(self.resets().difference(trips)))

    def set_evicting(self, *, evicting: bool) -> None:
        """Remember whether eviction has begun and not ended."""
        self._set("evicting", evicting)

    def set_nova(self, seen: NovaSeen) -> None:
        """Remember what was seen of nova's own manager."""
        times = {"touched_at": seen.touched_at, "vanished_at": seen.vanished_at}
        kept = {"used_since": _shown(seen.used_since), "stamped": _shown(seen.stamped), **times}
        self._set("nova", kept)

    def reclaimed(self) -> int:
        """Bytes that purges have freed since this ledger began."""
        freed = self._get("reclaimed") or 0
        if not isinstance(freed, int) or freed < 0:
            raise ValueError(f"{freed!r} is no number of bytes")
        return freed

    def add_reclaimed(self, freed: int) -> None:
        """Count the bytes of a purge."""
        if freed:
            self._set("reclaimed", self.reclaimed() + freed)

    def accepted(self) -> Accepted | None:
        """The settings that the agent was last told."""
        kept = self._get("accepted")
        if kept is None:
            return None
        generation, confirmed_at = kept["generation"], kept["confirmed_at"]
        if not isinstance(generation, int) or not isinstance(confirmed_at, int | float) or not isfinite(confirmed_at):
            raise ValueError("the settings that were accepted have no generation or no time")
        return Accepted(kept["spec"], generation, float(confirmed_at))

    def accept(self, told: Accepted | None) -> None:
        """Remember what the agent was told; None: forget it."""
        kept = (
            None
            if told is None
            else {"spec": told.spec, "generation": told.generation, "confirmed_at": told.confirmed_at}
        )
        self._set("accepted", kept)

    def publisher(self) -> str | None:
        """By which others know what this ledger's host publishes; None: it never has."""
        known = self._get("publisher")
        return None if known is None else str(known)

    def set_publisher(self, instance: str) -> None:
        """Publish under this id from now on."""
        self._set("publisher", instance)

    def retired(self) -> dict[str, LastSigns]:
        """The hosts that passes have met as retired, by their names in lower case."""
        known = self._get("retired") or {}
        return {
            str(host): LastSigns(float(row["noted_at"]), _time(row["registered"]), _time(row["published"]))
            for host, row in known.items()
        }

    def set_retired(self, hosts: Mapping[str, LastSigns]) -> None:
        """Know these as retired from now on, and no others."""
        self._set("retired", {host: asdict(signs) for host, signs in sorted(hosts.items())})

    def forget_last_pass(self) -> None:
        """Forget what concerned other directories: what lay and was in use in them, and a breaker of theirs."""
        self._db.execute("DELETE FROM meta WHERE key IN ('last_pass', 'present', 'breaker', 'evicting', 'nova')")

    def commit(self) -> None:
        """Make everything so far durable. Raises LedgerError, e.g. on a full disk."""
        try:
            self._db.commit()
        except sqlite3.Error as error:
            message = f"the ledger could not be written: {error}; is the disk of the state directory full?"
            raise LedgerError(message) from error

    def _get(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set(self, key: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))


def _time(value: Any) -> float | None:
    return None if value is None else float(value)


def _names(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(from_display(text) for text in texts)


def _texts(names: Iterable[bytes]) -> list[str]:
    return sorted(display(name) for name in names)


def _shown(times: Mapping[bytes, float]) -> dict[str, float]:
    return {display(name): at for name, at in sorted(times.items())}


def _nova_seen(kept: Any) -> NovaSeen:
    if kept is None:
        return NovaSeen()
    used_since, stamped = (
        {from_display(name): float(at) for name, at in kept[key].items()} for key in ("used_since", "stamped")
    )
    return NovaSeen(used_since, stamped, _time(kept["touched_at"]), _time(kept["vanished_at"]))


def _acknowledged(row: tuple[Any, ...]) -> Acknowledged:
    path, by_hand, identity, reason, until = row
    known = None if identity is None else Identity(*map(int, json.loads(identity)))
    return Acknowledged(path, known, bool(by_hand), reason, until)
