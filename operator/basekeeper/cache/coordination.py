"""One host's part in a cache that several hosts share: publish, answer, lead. The order of things is the safety.

Only the host that leads a pass removes. It opens a round, which is a number on the share; every other host looks after
it has seen that number, and publishes what it saw with it, so that the leader's own look, made after all answers,
follows on every one of theirs whatever any clock says. What two rounds in a row let go is removed, and what two rounds
in a row let go after that is purged. Before each rename and each deletion the leader reads the round again: where the
number is not its own any more, it has been taken for dead, and stops. docs/shared-storage.md has the argument.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from . import clock, locks, publication, quarantine
from .acts import Doubt
from .evidence import Agreed, Inventory, Usage
from .host_evidence import HostEvidence, Trouble
from .hosts import Heard, Hearing, Round, last_signs, merged
from .ledger import Ledger
from .memory import Clock, LastSigns, Memory
from .plan import Plan
from .settings import MINUTE, Host, Policy, SharedStorageMode
from .share import Share, ShareError
from .verdicts import Reason

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of how many."""

Stop = Callable[[], bool]
"""Asked between files: whether to begin no further one."""

PATIENCE = 120.0
"""Seconds that a leader waits for answers at the least: hosts look for a new round every 15 seconds."""
_MOST_PATIENCE = 900.0
_FOR_VISITORS = 5.0
GOOD_FOR = 600.0
"""Seconds after the last answer in which the leader may act upon a round."""
_FIRST_POLL, _SLOWEST_POLL = 0.05, 2.0
_MOST_PURGED = 256


@dataclass(frozen=True, slots=True)
class Lead:
    """A round of this host's own, and the lock that it was opened under."""

    round: Round
    first: int
    """The number of the first round of this pass."""
    lock: locks.Held
    answered_at: float = 0.0
    """Seconds since boot, suspend included, when the waiting for answers ended."""


@dataclass
class Member:
    """This host as one of those that share the storage, for one pass or one look."""

    host: Host
    policy: Policy
    instance: str
    published: bool = False
    """Something was published under this instance before."""
    acts: bool = False
    """It is to remove or purge, where it leads."""
    resident: bool = False
    """It goes on living after its pass: it answers between passes, and leaves the lead to whoever has it."""
    share: Share = field(init=False)
    lead: Lead | None = None
    agreed: Agreed | None = None
    retired: Mapping[str, LastSigns] = field(default_factory=dict)
    """Hosts that an earlier pass met as retired already."""
    answers: int = 0
    """The round that a look that begins now answers."""
    skew: float = 0.0
    problem: str | None = None
    """Why this host cannot take part, in one sentence."""

    def __post_init__(self) -> None:
        self.share = Share(self.host)

    # --- looking -----------------------------------------------------------------------------------------------

    def hear(self) -> Hearing:
        """What lies on the share now. Raises nothing: what cannot be read holds."""
        heard: tuple[Heard, ...] = ()
        latest: Round | None = None
        problem = self.problem
        try:
            latest = self.share.round()
            heard = self.share.heard()
        except OSError as error:
            problem = problem or _unreadable(self.share, error)
        if self.lead is not None and problem is None and (doubt := self.fence()) is not None:
            problem = doubt.message
        return Hearing(
            self.share.own,
            heard,
            latest,
            self.skew,
            problem,
            leads=self.lead is not None,
            acts=self.acts,
            agreed=self.agreed,
            retired=self.retired,
        )

    def merge(self, own: Usage, inventory: Inventory, hearing: Hearing, now: Clock) -> Usage:
        """What this host saw itself, with what the others said."""
        return merged(own, inventory, hearing, self.policy, now.wall + self.skew)

    def note_retired(self, book: Ledger, usage: Usage, now: Clock) -> None:
        """Remember which hosts are listed as gone, so that signs of life after that are known as such."""
        heard: tuple[Heard, ...] = ()
        with suppress(OSError):
            heard = self.share.heard()
        book.set_retired(last_signs(self.retired, heard, usage, self.policy, now.wall + self.skew))

    def recall(self) -> None:
        """Take the clock's difference from what was published last, for a look that writes nothing. Raises nothing."""
        with suppress(OSError):
            before = self.share.own_evidence()
            self.skew = before.skew if before is not None else 0.0

    # --- publishing --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Measure the clock, and note the round that a look after this answers. Raises nothing."""
        try:
            self.share.prepare()
            self.share.sweep()
            self.skew = self.share.measure_skew()
            latest = self.share.round()
        except (OSError, ShareError) as error:
            self.problem = str(error) if isinstance(error, ShareError) else _unwritable(self.share, error)
            return
        self.answers = latest.number if latest is not None else 0

    def publish(self, inventory: Inventory, own: Usage, memory: Memory, now: Clock, seconds: float) -> None:
        """Tell the others what a look saw that began after the round that it answers was seen. Raises nothing."""
        if self.problem is not None:
            return
        try:
            before = self.share.own_evidence()
            who = HostEvidence(
                self.share.own,
                self.host.node,
                self.instance,
                now.boot,
                self.answers,
                now.wall,
                self.skew,
                seconds,
                resident=self.resident or (before is not None and before.resident and before.instance == self.instance),
                leader_lock_seen=self.lead is None and self.share.sees_leader(),
                troubles=self._doubles(before),
            )
            purged = before.purged if before is not None else ()
            self.share.publish(publication.of_look(who, inventory, own, self.policy, memory, now, purged))
        except OSError as error:
            self.problem = _unwritable(self.share, error)

    def announce(self, names: Iterable[bytes]) -> None:
        """Tell the others of what is about to be purged, so that they do not miss it. Raises nothing."""
        wanted = tuple(names)
        try:
            if wanted and (before := self.share.own_evidence()) is not None:
                purged = tuple(dict.fromkeys((*wanted, *before.purged)))[:_MOST_PURGED]
                self.share.publish(replace(before, purged=purged))
        except OSError as error:
            self.problem = self.problem or _unwritable(self.share, error)

    def _doubles(self, before: HostEvidence | None) -> tuple[Trouble, ...]:
        """Whether another host publishes in this one's name: then what one of them needs is overwritten."""
        if before is None or before.instance == self.instance or not self.published:
            return ()
        self.problem = (
            f"another basekeeper publishes as host {self.share.own} too (node {before.node}), so what one of them "
            "needs is lost; give each host its own --nova-host"
        )
        return (Trouble(self.problem),)

    # --- leading -----------------------------------------------------------------------------------------------

    def wants_to_lead(self) -> bool:
        """Whether this host is to lead now: it did last time, or nobody has for long, or a person orders a pass."""
        if self.problem is not None:
            return False
        try:
            latest, opened_at = self.share.round(), self.share.round_opened_at()
        except OSError as error:
            self.problem = _unreadable(self.share, error)
            return False
        if not self.resident or latest is None or opened_at is None or latest.host == self.share.own:
            return True
        silent = clock.read().wall + self.skew - opened_at
        return silent > 2.5 * self.policy.interval + PATIENCE

    def open_round(self, lock: locks.Held, progress: Progress, stop: Stop) -> None:
        """Ask all hosts, and wait for their answers while there is hope. Raises OSError."""
        number = self._last_number() + 1
        opened = Round(number, self.share.own, self.instance)
        self.share.open_round(opened)
        first = self.lead.first if self.lead is not None else number
        self.lead, self.answers = Lead(opened, first, lock), number
        self._wait(number, progress, stop)
        self.lead = Lead(opened, first, lock, clock.read().uptime)

    def _last_number(self) -> int:
        """The highest round that anything knows of: no number may come twice, even if the round's file was lost."""
        latest, own = self.share.round(), self.share.own_evidence()
        entries, _ = quarantine.read(self.host.base)
        known = [one.evidence.round for one in self.share.heard() if one.evidence is not None]
        known += [entry.round for entry in entries if entry.round is not None]
        known += [one for one in (latest and latest.number, own and own.round) if one]
        return max(known, default=0)

    def _wait(self, number: int, progress: Progress, stop: Stop) -> None:
        """Wait until all have answered; not where one has not answered the round before either."""
        began, poll = time.monotonic(), _FIRST_POLL
        patience = self._patience()
        while not stop():
            answers = self._answers()
            missing = [answer for answer in answers if answer < number]
            progress("waiting for the answers of other hosts", len(answers) - len(missing), len(answers))
            hopeless = patience > _FOR_VISITORS and any(answer < number - 1 for answer in missing)
            if not missing or hopeless or time.monotonic() - began > patience:
                return
            time.sleep(poll)
            poll = min(2 * poll, _SLOWEST_POLL)

    def _answers(self) -> list[int]:
        """The round that each other host has answered last; 0: none that can be understood. Raises OSError."""
        retired = self.policy.retired_hosts
        heard = [one for one in self.share.heard() if one.host.lower() not in retired]
        return [one.evidence.round if one.evidence is not None else 0 for one in heard]

    def _patience(self) -> float:
        """Seconds to wait for answers: as long as the slowest host takes to look, and more. Raises OSError."""
        heard = [one.evidence for one in self.share.heard() if one.evidence is not None]
        if not all(one.resident for one in heard):
            return _FOR_VISITORS  # whoever makes a pass now and then answers in time by chance alone
        slowest = max((one.seconds for one in heard), default=0.0)
        return min(max(PATIENCE, MINUTE + 3 * slowest), _MOST_PATIENCE)

    def fence(self) -> Doubt | None:
        """Why this host may not act at this moment, asked before each rename and each deletion; None: it may."""
        if self.lead is None:
            return Doubt(Reason.SHARED_STORAGE, "this host does not lead, so it removes nothing from the shared cache")
        mine = self.lead.round
        try:
            latest = self.share.round()
            held = self.lead.lock.is_at_its_path
        except OSError as error:
            return Doubt(Reason.SHARED_STORAGE, _unreadable(self.share, error))
        if latest != mine:
            who = f"round {latest.number} of host {latest.host}" if latest is not None else "no round"
            return Doubt(
                Reason.SHARED_STORAGE,
                f"this host led by round {mine.number}, and now there is {who}: another took it for dead, so it stops",
            )
        if not held:
            return Doubt(Reason.SHARED_STORAGE, "the lock by which this host leads was taken away, so it stops")
        answered = self.lead.answered_at
        if answered and not 0 <= clock.read().uptime - answered <= GOOD_FOR:
            return Doubt(
                Reason.SHARED_STORAGE,
                f"the answers to round {mine.number} are older than {GOOD_FOR:.0f} s, so the next pass asks again",
            )
        return None

    def agree_on(self, judged: Plan) -> Agreed:
        """What a look after the first round of this pass lets go, for the next round to confirm."""
        first = self.lead.first if self.lead is not None else 0
        return Agreed(
            frozenset((item.file.name.raw, item.file.inode) for item in judged.removals),
            frozenset(item.entry.id for item in judged.purges if (item.entry.round or 0) < first),
        )


def member_of(
    host: Host, policy: Policy, book: Ledger, *, acts: bool, make: bool = True, resident: bool = False
) -> Member | None:
    """This host's part in the shared cache; None: it acts alone.

    `acts`: it is to remove or purge. `make`: it is to publish, and gets an id for that; otherwise it only reads.
    """
    if policy.shared_storage is not SharedStorageMode.COORDINATE or not host.base.is_dir():
        return None
    known = book.publisher()
    if known is None and make:
        instance = secrets.token_hex(8)
        book.set_publisher(instance)
        book.commit()
        return Member(host, policy, instance, acts=acts, resident=resident, retired=book.retired())
    member = Member(
        host, policy, known or "", published=known is not None, acts=acts, resident=resident, retired=book.retired()
    )
    if not make:
        member.recall()
    return member


@contextmanager
def in_turn(member: Member | None, look: Callable[[], Plan], progress: Progress, stop: Stop) -> Iterator[bool]:
    """For this block be the host that may act, if it is its turn: ask all, look, and ask once more about what may go.

    `look` judges anew. Yields whether this host may act; always, where it acts alone.
    """
    if member is None:
        yield True
        return
    member.begin()
    with ExitStack() as held:
        leads = False
        if member.wants_to_lead() and (lock := _elected(member, held)) is not None:
            leads = _ask(member, lock, look, progress, stop)
        yield leads
        member.lead = None


def _elected(member: Member, held: ExitStack) -> locks.Held | None:
    """The leader's lock; None: another host leads, or it cannot be taken."""
    try:
        return held.enter_context(member.share.leader_lock())
    except locks.HeldByAnother:
        return None
    except locks.LockError as error:
        member.problem = str(error)
        return None


def _ask(member: Member, lock: locks.Held, look: Callable[[], Plan], progress: Progress, stop: Stop) -> bool:
    """Two rounds, the second about what the first one let go; one, where that is nothing. Whether that was possible."""
    try:
        member.open_round(lock, progress, stop)
        if member.acts and not stop():
            judged = look()
            member.agreed = member.agree_on(judged)
            if member.agreed != Agreed():
                member.open_round(lock, progress, stop)
    except OSError as error:
        member.problem = _unwritable(member.share, error)
    return member.problem is None


def _unreadable(share: Share, error: OSError) -> str:
    return f"{share.directory} cannot be read ({error.strerror or error}), so what other hosts need is not known"


def _unwritable(share: Share, error: OSError) -> str:
    return (
        f"this host cannot publish what it needs in {share.directory} ({error.strerror or error}), so nothing may go; "
        "let it write there"
    )
