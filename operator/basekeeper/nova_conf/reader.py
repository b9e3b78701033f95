"""Reads a nova.conf as nova of a given release does, and remembers where each value came from.

The syntax is oslo.config's parser, the types and the interpolation are its too. What is added is the line of
every value and what nova does not say: which lines it ignores. `ConfigOpts` itself is not used, because it
knows no lines, does not tell what it ignored, and follows `[DEFAULT] config_source` to other hosts; a test
holds the two together.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from .options import CURRENT, OPTIONS, Kind, Option, Spelling

MAX_BYTES = 4 << 20
"""The complete sample of nova.conf has 200 KiB."""


_MAX_NESTED = 30
"""Options that one value may reach, each through the one before."""
_MAX_FILLED = 4096
"""Characters of a value after interpolation; no path or number is longer, and a few lines can ask for gigabytes."""
_GROUPS_TODAY = {spelling.name: option.spellings[0].group for option in OPTIONS for spelling in option.spellings}
"""The group in which nova reads an option today, by any name that it had."""


class NovaConfError(Exception):
    """A nova.conf that cannot be used; one line that names the file, the line and what nova expects."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Show text from the file in one line of a message or a comment."""
    return "".join(c if c.isprintable() else " " if c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `name = value` in the file."""

    group: str
    """As nova compares it: in lower case, except for DEFAULT."""
    name: str
    raw: str
    line: int

    def __str__(self) -> str:
        value = self.raw if len(self.raw) <= 80 else self.raw[:80] + "..."
        return printable(f"[{self.group}] {self.name} = {value}")


@dataclass(frozen=True, slots=True)
class Setting:
    """An option's value and where it came from: an assignment, or nova's default."""

    option: Option
    value: str | int | bool | None
    assignment: Assignment | None
    origin: str
    """For people: `nova.conf:12, [image_cache] manager_interval = 600`."""

    @property
    def number(self) -> int:
        """The value of an INT option."""
        return int(self.value or 0)

    @property
    def text(self) -> str:
        """The value of a TEXT option."""
        return str(self.value or "")


@dataclass(frozen=True)
class NovaConf:
    """A nova.conf as a release of nova reads it."""

    path: Path
    release: str
    assignments: tuple[Assignment, ...]
    oslo: Mapping[str, ModuleType] = field(repr=False)
    _variables: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def get(self, option: Option) -> Setting:
        """Return the option's value; raises NovaConfError if nova would refuse it."""
        assignment = self._winner(option)
        raw = assignment.raw if assignment else option.default_in(self.release)
        if raw is None:
            return Setting(option, None, None, "found out by nova at run time")
        origin = (
            f"{self.path}:{assignment.line}, {assignment}"
            if assignment
            else f"nova's default, {option.spelling_in(self.release)} = {raw}"
        )
        group = option.spellings[0].group
        return Setting(
            option, self._convert(option, self._fill_in(raw, group), assignment), assignment, printable(origin)
        )

    def ignored(self) -> Iterator[str]:
        """Say of each line about the image cache that nova ignores why it does."""
        for assignment in self.assignments:
            if reason := self._why_ignored(assignment):
                yield printable(f"{self.path}:{assignment.line}, {assignment}: {reason}")

    def _winner(self, option: Option) -> Assignment | None:
        for spelling in option.spellings:
            if spelling.read_by(self.release):
                for assignment in reversed(self.assignments):
                    if (assignment.group, assignment.name) == (spelling.group, spelling.name):
                        return assignment
        return None

    def _convert(self, option: Option, value: str, assignment: Assignment | None) -> str | int | bool | None:
        types = self.oslo["types"]
        kinds = {
            Kind.BOOL: (types.Boolean(), "true or false, with nothing after it"),
            Kind.INT: (types.Integer(min=option.minimum), "a whole number without unit or comment"),
            Kind.TEXT: (types.String(choices=option.choices or None), f"one of {', '.join(option.choices)}"),
        }
        convert, expected = kinds[option.kind]
        try:
            converted: str | int | bool | None = convert(value)
        except ValueError as error:
            bound = f" of at least {option.minimum}" if option.minimum is not None else ""
            raise self._error(assignment, f"nova expects {expected}{bound}") from error
        if converted is None:
            raise self._error(assignment, f"nova expects {expected}, and there is nothing")
        return converted

    def _error(self, assignment: Assignment | None, what: str) -> NovaConfError:
        where = f":{assignment.line}: {assignment}" if assignment else ""
        return NovaConfError(f"{self.path}{where}: {what}")

    def _fill_in(self, raw: str, group: str, inside: tuple[str, ...] = ()) -> str:
        """Interpolate `$name` and `${group.name}` as nova does; what this file does not say stays as written."""
        template = self.oslo["cfg"].ConfigOpts.Template(raw.replace(r"\$", "$$"))
        filled: str = template.safe_substitute(_Variables(self, group, inside))
        if len(filled) > _MAX_FILLED:
            raise NovaConfError(
                f"{self.path}: a value of an option in [{group}] has more than {_MAX_FILLED} characters"
            )
        return filled

    def variable(self, key: str, group: str, inside: tuple[str, ...]) -> str:
        """Return what `$key` stands for in a value of `group`; KeyError if this file does not say."""
        if key in inside or len(inside) > _MAX_NESTED:
            raise NovaConfError(f"{self.path}: ${key} refers to itself, or to too many others")
        if (group, key) in self._variables:
            return self._variables[group, key]
        scope, dot, name = key.partition(".")
        name, places = (name, (scope,)) if dot else (key, (group, "DEFAULT"))
        # nova fills in options, not lines: a known option in DEFAULT comes before a line that no option reads.
        for source in (self._known, self._last):
            for place in places:
                if (raw := source(place, name)) is not None:
                    self._variables[group, key] = self._fill_in(raw, place, (*inside, key))
                    return self._variables[group, key]
        raise KeyError(key)

    def _known(self, group: str, name: str) -> str | None:
        """Return the text of a known option, or its default."""
        option = next((o for o in OPTIONS if any((s.group, s.name) == (group, name) for s in o.spellings)), None)
        if option is None:
            return None
        assignment = self._winner(option)
        return assignment.raw if assignment else option.default_in(self.release)

    def _last(self, group: str, name: str) -> str | None:
        """Return the text of an option that is not in the table, but may be one of nova's."""
        matches = [a.raw for a in self.assignments if (a.group, a.name) == (group, name)]
        return matches[-1] if matches else None

    def _why_ignored(self, assignment: Assignment) -> str | None:
        spelled = (assignment.group, assignment.name)
        for option in OPTIONS:
            for spelling in option.spellings:
                if spelled == (spelling.group, spelling.name):
                    return self._why_lost(assignment, option, spelling)
        return _misspelt(assignment, self.release)

    def _why_lost(self, assignment: Assignment, option: Option, spelling: Spelling) -> str | None:
        winner = self._winner(option)
        if not spelling.read_by(self.release):
            note = f"; {option.note}" if option.note else ""
            return f"nova ignores it: {_read_when(spelling)}{_instead(option, self.release)}{note}"
        if winner is not None and winner is not assignment:
            return f"nova ignores it: line {winner.line} says {winner}"
        return None


@dataclass(frozen=True)
class _Variables(Mapping[str, str]):
    """What a template's variables stand for, looked up when they are met."""

    conf: NovaConf
    group: str
    inside: tuple[str, ...]

    def __getitem__(self, key: str) -> str:
        return self.conf.variable(key, self.group, self.inside)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _read_when(spelling: Spelling) -> str:
    if spelling.since is None:
        return "only development versions of early 2012 read it"
    if spelling.until == CURRENT:
        return f"it is read since {spelling.since.title()}"
    if spelling.since == spelling.until:
        return f"only {spelling.since.title()} read it"
    return f"{spelling.since.title()} to {spelling.until.title()} read it"


def _instead(option: Option, release: str) -> str:
    readable = next((spelling for spelling in option.spellings if spelling.read_by(release)), None)
    return f"; {release.title()} reads {readable}" if readable else ""


def _misspelt(assignment: Assignment, release: str) -> str | None:
    """Say why nova ignores a line whose spelling no release read, if it was meant for the image cache."""
    meant = assignment.name.replace("-", "_").lower()
    readable = [s for option in OPTIONS for s in option.spellings if s.read_by(release)]
    cache = [s for s in readable if "image_cache" in (s.group, _GROUPS_TODAY.get(s.name))]
    if assignment.group == "default" and any((s.group, s.name) == ("DEFAULT", meant) for s in readable):
        return "nova ignores it: only [DEFAULT] in capitals is the default group"
    for spelling in cache:
        if spelling.name == meant:
            return f"nova ignores it: it reads {spelling}"
    if assignment.group != "image_cache":
        return None
    close = difflib.get_close_matches(meant, [s.name for s in cache if s.group == "image_cache"], n=1)
    return "nova ignores it: no such option" + (f"; did you mean {close[0]}?" if close else "")


def read(path: Path, release: str = CURRENT) -> NovaConf:
    """Read the nova.conf at `path` as nova of `release` does.

    Raises NovaConfError, also for a value of any known option that nova would refuse, and without oslo.config.
    """
    oslo = _import_oslo(path)
    conf = NovaConf(path, release, _parse(path, _text(path), oslo["iniparser"]), oslo)
    for option in OPTIONS:
        conf.get(option)
    return conf


def _import_oslo(path: Path) -> dict[str, ModuleType]:
    try:
        from oslo_config import cfg, iniparser, types  # noqa: PLC0415 (an extra, needed for this command only)
    except ImportError as error:
        message = f"reading {path} needs oslo.config: pip install 'basekeeper[nova-conf]'"
        raise NovaConfError(message) from error
    return {"cfg": cfg, "iniparser": iniparser, "types": types}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NovaConfError(f"{path}: cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise NovaConfError(f"{path}: larger than 4 MiB, which no nova.conf is")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise NovaConfError(f"{path}:{line}: not text in UTF-8, which nova expects") from error


def _parse(path: Path, text: str, iniparser: ModuleType) -> tuple[Assignment, ...]:
    """Parse with oslo.config's parser, noting the line of each assignment."""
    assignments: list[Assignment] = []

    class Parser(iniparser.BaseParser):  # type: ignore[name-defined, misc]
        group = ""

        def new_section(self, section: str) -> None:
            self.group = section if section == "DEFAULT" else section.lower()

        def assignment(self, key: str, value: list[str]) -> None:
            # The parser reports an assignment when it has seen the line after its last one.
            line = self.lineno - len(value)
            if not self.group:
                raise NovaConfError(f"{path}:{line}: nova expects a [group] before the first option")
            assignments.append(Assignment(self.group, key, "\n".join(value), line))

    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    try:
        Parser().parse([*lines, ""])
    except iniparser.ParseError as error:
        raise NovaConfError(f"{path}:{error.lineno}: nova cannot read this line: {error.msg}") from error
    return tuple(assignments)
