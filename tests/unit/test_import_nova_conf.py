"""What a nova.conf did, as a policy: which line counts, what it means by release, what is said of the rest."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg, types
from typer.testing import CliRunner

from basekeeper.cli.errors import UsageError
from basekeeper.cli.import_nova_conf import import_nova_conf
from basekeeper.nova_conf.options import CURRENT, OPTIONS, RELEASES, Kind, Option, Spelling
from basekeeper.nova_conf.policy import Conversion, convert
from basekeeper.nova_conf.reader import NovaConfError, read
from basekeeper.resources.manifest import PolicyError, load, parse


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "nova.conf"


def converted(conf: Path, text: str, release: str = CURRENT) -> Conversion:
    conf.write_text(text)
    return convert(read(conf, release), "from-nova-conf")


def spec(conversion: Conversion) -> dict[str, Any]:
    """The manifest's spec, which must load."""
    document = yaml.safe_load(conversion.manifest)
    parse(document, "printed")
    found: dict[str, Any] = document["spec"]
    return found


DEFAULTS = {
    "mode": "Enforce",
    "interval": "40m",
    "minimumAge": {"original": "24h", "resized": "1h", "swap": "24h", "ephemeral": "24h", "partial": "24h"},
    "cachedOnly": "Keep",
}


def ages(original: str, resized: str = "1h") -> dict[str, Any]:
    age = {"original": original, "resized": resized, "swap": original, "ephemeral": original, "partial": "24h"}
    return {"minimumAge": age}


def test_an_empty_file_gives_nova_s_defaults(conf: Path) -> None:
    assert spec(converted(conf, "")) == DEFAULTS


IC = "[image_cache]\n"
VALUES: dict[str, tuple[str, dict[str, Any]]] = {
    "removal off": (IC + "remove_unused_base_images = False", {"mode": "Audit"}),
    "removal off, by the old group": ("[DEFAULT]\nremove_unused_base_images = 0", {"mode": "Audit"}),
    "the interval": (IC + "manager_interval = 600", {"interval": "10m"}),
    "the interval, by its old name": ("[DEFAULT]\nimage_cache_manager_interval = 600", {"interval": "10m"}),
    "interval 0 is every minute": (IC + "manager_interval = 0", {"interval": "1m"}),
    "a short interval is raised": (IC + "manager_interval = 5", {"interval": "1m"}),
    "interval -1 is off": (IC + "manager_interval = -1", {"interval": None, "suspend": True}),
    "an interval beyond all durations": (IC + f"manager_interval = {10**30}", {"interval": "2562047h"}),
    "the age of originals is that of swap and ephemeral": (
        IC + "remove_unused_original_minimum_age_seconds = 5400",
        ages("1h30m"),
    ),
    "the age of resized ones": (IC + "remove_unused_resized_minimum_age_seconds = 7200", ages("24h", "2h")),
    "the age of resized ones, by its old group": (
        "[libvirt]\nremove_unused_resized_minimum_age_seconds = 7200",
        ages("24h", "2h"),
    ),
    "an age below the floor is raised": (IC + "remove_unused_original_minimum_age_seconds = 599", ages("10m")),
    "a negative age was at once": (IC + "remove_unused_original_minimum_age_seconds = -5", ages("10m")),
    "no periodic tasks": ("[DEFAULT]\nperiodic_enable = no", {"interval": None, "suspend": True}),
    "no external periodic tasks": ("[DEFAULT]\nrun_external_periodic_tasks = off", {"interval": None, "suspend": True}),
    "no locks between processes": ("[oslo_concurrency]\ndisable_process_locking = true", {"mode": "Audit"}),
    "raw disks keep their bases, as in nova": ("[libvirt]\nimages_type = raw", {"cachedOnly": "Keep"}),
    "group names in any case": ("[Image_Cache]\nmanager_interval = 600", {"interval": "10m"}),
    "but the default group in capitals only": ("[default]\nimage_cache_manager_interval = 600", {}),
    "the last of several": (IC + "manager_interval = 1\n[x]\n" + IC + "manager_interval = 600", {"interval": "10m"}),
    "the new name before the old, wherever it stands": (
        IC + "manager_interval = 600\n[DEFAULT]\nimage_cache_manager_interval = 60",
        {"interval": "10m"},
    ),
    "quotes": (IC + 'manager_interval = "600"', {"interval": "10m"}),
    "a colon": (IC + "manager_interval: 600", {"interval": "10m"}),
    "a variable": ("[DEFAULT]\nmine = 600\n" + IC + "manager_interval = $mine", {"interval": "10m"}),
    "a variable in braces, of another group": (
        IC + "manager_interval = ${libvirt.mine}\n[libvirt]\nmine = 600",
        {"interval": "10m"},
    ),
    "dashes are ignored": (IC + "manager-interval = 600", {}),
    "the retired group is ignored": ("[libvirt]\nremove_unused_base_images = false", {}),
    "Havana's place for the age of resized ones is ignored": (
        "[DEFAULT]\nremove_unused_resized_minimum_age_seconds = 7200",
        {},
    ),
}


@pytest.mark.parametrize(("text", "expected"), VALUES.values(), ids=VALUES)
def test_the_policy_does_what_nova_did(conf: Path, text: str, expected: dict[str, Any]) -> None:
    wanted = {key: value for key, value in (DEFAULTS | expected).items() if value is not None}
    assert spec(converted(conf, text)) == wanted


OLD = "[DEFAULT]\nimage_cache_manager_interval = {}\n"
BY_RELEASE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Essex did not remove by default": ("essex", "", {"mode": "Audit"}),
    "Essex counted in ticks": ("essex", OLD.format(10), {"mode": "Audit", "interval": "10m"}),
    "Folsom counted in ticks": ("folsom", OLD.format(10), {"interval": "10m"}),
    "ticks of another length": ("folsom", OLD.format(10) + "periodic_interval = 30", {"interval": "5m"}),
    "no ticks at all": ("folsom", OLD.format(10) + "periodic_interval = 0", {"interval": None, "suspend": True}),
    "Folsom's 0 was off": ("folsom", OLD.format(0), {"interval": None, "suspend": True}),
    "Grizzly counted in seconds": ("grizzly", OLD.format(600), {"interval": "10m"}),
    "Juno's 0 was off": ("juno", OLD.format(0), {"interval": None, "suspend": True}),
    "Kilo's 0 was every minute": ("kilo", OLD.format(0), {"interval": "1m"}),
    "Icehouse read the group libvirt": (
        "icehouse",
        "[libvirt]\nremove_unused_base_images = false",
        {"mode": "Audit"},
    ),
    "Havana read the age of resized ones in DEFAULT": (
        "havana",
        "[DEFAULT]\nremove_unused_resized_minimum_age_seconds = 7200",
        ages("24h", "2h"),
    ),
    "Grizzly checked the content of bases": (
        "grizzly",
        "[DEFAULT]\nchecksum_base_images = true\nchecksum_interval_seconds = 86400",
        {"integrity": {"interval": "24h"}},
    ),
    "Icehouse checked it every hour unless told otherwise": (
        "icehouse",
        "[libvirt]\nchecksum_base_images = true",
        {"integrity": {"interval": "1h"}},
    ),
    "checks more often than basekeeper makes them": (
        "icehouse",
        "[libvirt]\nchecksum_base_images = true\nchecksum_interval_seconds = 60",
        {"integrity": {"interval": "1h"}},
    ),
    "an interval of checks that were off": ("icehouse", "[libvirt]\nchecksum_interval_seconds = 60", {}),
    "Train did not read the group image_cache": ("train", IC + "manager_interval = 600", {}),
}


@pytest.mark.parametrize(("release", "text", "expected"), BY_RELEASE.values(), ids=BY_RELEASE)
def test_a_release_is_read_as_it_read(conf: Path, release: str, text: str, expected: dict[str, Any]) -> None:
    wanted = {key: value for key, value in (DEFAULTS | expected).items() if value is not None}
    assert spec(converted(conf, text, release)) == wanted


SAID = {
    "a line that the new name beats": (
        "[DEFAULT]\nimage_cache_manager_interval = 60\n[image_cache]\nmanager_interval = 600\n",
        "nova.conf:2, [DEFAULT] image_cache_manager_interval = 60: nova ignores it: line 4 says",
    ),
    "dashes": (IC + "manager-interval = 1", "nova ignores it: it reads [image_cache] manager_interval"),
    "capitals": (IC + "Manager_Interval = 1", "nova ignores it: it reads [image_cache] manager_interval"),
    "a misspelt option": (IC + "manager_intervall = 1", "no such option; did you mean manager_interval?"),
    "the default group in small letters": (
        "[default]\nhost = a",
        "nova ignores it: only [DEFAULT] in capitals is the default group",
    ),
    "an option of old": (
        "[DEFAULT]\nbase_dir_name = b",
        "nova ignores it: Essex to Icehouse read it; Hibiscus reads [image_cache] subdirectory_name",
    ),
    "an option of early 2012": (
        "[DEFAULT]\nremove_unused_minimum_age_seconds = 5",
        "only development versions of early 2012 read it",
    ),
    "checksums": ("[libvirt]\nchecksum_base_images = true", "Icehouse to Stein read it; spec.integrity is"),
    "what the hand-over needs": ("", "hand-over: before Enforce, set [image_cache] remove_unused_base_images = false"),
    "a manager that never ran": (IC + "manager_interval = -1", "neither touches the bases that it uses nor registers"),
    "no locks": ("[oslo_concurrency]\ndisable_process_locking = 1", "do not use Enforce before locking is on again"),
}


@pytest.mark.parametrize(("text", "warning"), SAID.values(), ids=SAID)
def test_a_warning_is_given_and_stands_at_the_top(conf: Path, text: str, warning: str) -> None:
    conversion = converted(conf, text)
    matching = [given for given in conversion.warnings if warning in given]
    assert len(matching) == 1
    assert f"# WARNING: {matching[0]}\n" in conversion.manifest.partition("apiVersion")[0]


COMMENTS = {
    "where a value stands": (
        IC + "\nmanager_interval = 600",
        "  interval: 10m  # {conf}:3, [image_cache] manager_interval = 600\n",
    ),
    "the first line of a value of several": (
        "[DEFAULT]\nhost = a\n  b\n",
        "# Not part of a policy: give the agent --nova-host a b ({conf}:2, [DEFAULT] host = a b)\n",
    ),
    "nova's default": ("", "  interval: 40m  # nova's default, [image_cache] manager_interval = 2400\n"),
    "a raised age": (
        IC + "remove_unused_resized_minimum_age_seconds = 1",
        "minimum_age_seconds = 1; raised from 1 s, 10m is the least\n",
    ),
    "the instances path": ("[DEFAULT]\nstate_path = /srv", "--instances-path /srv/instances ("),
    "the base directory": (
        IC + "subdirectory_name = _base_$my_ip\n[DEFAULT]\nmy_ip = 10.0.0.1",
        "--base-dir /var/lib/nova/instances/_base_10.0.0.1 (",
    ),
    "an address that the file does not say": (
        IC + "subdirectory_name = _base_$my_ip",
        "_base_$my_ip); fill in what $ stands for on each node\n",
    ),
    "the snapshots directory": ("[libvirt]\nsnapshots_directory = /snap", "--snapshots-dir /snap ("),
    "nova's name of the host": ("[DEFAULT]\nhost = c1", "--nova-host c1 ("),
    "disks without bases": ("[libvirt]\nimages_type = rbd", "no disk needs a base ("),
    "flat disks by the older option": ("[DEFAULT]\nuse_cow_images = false", "no disk needs a base ("),
    "how to begin": ("", "# Start with mode: Audit to see what it would do; Enforce is what that nova.conf did.\n"),
    "an option without a field": (
        "[DEFAULT]\nforce_raw_images = false",
        "force_raw_images = false: bases may be qcow2",
    ),
}


@pytest.mark.parametrize(("text", "comment"), COMMENTS.values(), ids=COMMENTS)
def test_a_comment_says_where_it_comes_from(conf: Path, text: str, comment: str) -> None:
    assert comment.format(conf=conf) in converted(conf, text).manifest


NUMBER = "nova expects a whole number without unit or comment"
BAD = {
    "a unit": (IC + "manager_interval = 1h", f":2: [image_cache] manager_interval = 1h: {NUMBER} of at least -1"),
    "a comment after a number": (
        IC + "remove_unused_original_minimum_age_seconds = 5 # x",
        f":2: [image_cache] remove_unused_original_minimum_age_seconds = 5 # x: {NUMBER}",
    ),
    "less than the least": (
        IC + "manager_interval = -2",
        f":2: [image_cache] manager_interval = -2: {NUMBER} of at least -1",
    ),
    "no number at all": (
        IC + "remove_unused_original_minimum_age_seconds =",
        f":2: [image_cache] remove_unused_original_minimum_age_seconds = : {NUMBER}, and there is nothing",
    ),
    "no truth value": (
        IC + "remove_unused_base_images = maybe",
        ":2: [image_cache] remove_unused_base_images = maybe: nova expects true or false, with nothing after it",
    ),
    "an unknown type of disk": (
        "[libvirt]\nimages_type = zfs",
        ":2: [libvirt] images_type = zfs: nova expects one of raw, flat, qcow2, lvm, rbd, ploop, default",
    ),
    "an option before any group": ("a = b", ":1: nova expects a [group] before the first option"),
    "half a group": ("[DEFAULT", ":1: nova cannot read this line: Invalid section (must end with ])"),
    "a line that is nothing": (
        "[DEFAULT]\nhello",
        ":2: nova cannot read this line: No ':' or '=' found in assignment",
    ),
    "an option of its own value": (
        "[DEFAULT]\nhost = $host",
        ": $host refers to itself, or to too many others",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_nova_refuses_is_refused_with_its_place(conf: Path, text: str, message: str) -> None:
    conf.write_text(text)
    with pytest.raises(NovaConfError) as caught:
        convert(read(conf), "a")
    assert str(caught.value) == f"{conf}{message}"


def test_a_few_lines_cannot_ask_for_gigabytes(conf: Path) -> None:
    lines = [f"a{i} = $a{i + 1}$a{i + 1}" for i in range(25)]
    conf.write_text("\n".join(["[DEFAULT]", "host = $a0", *lines, "a25 = x"]))
    with pytest.raises(NovaConfError, match="more than 4096 characters"):
        read(conf)


def test_no_text_is_refused_with_its_line(conf: Path) -> None:
    conf.write_bytes(b"[DEFAULT]\nhost = \xff\n")
    with pytest.raises(NovaConfError, match=r"nova\.conf:2: not text in UTF-8, which nova expects$"):
        read(conf)


def test_defaults_and_advice_are_spelt_as_the_release_reads_them(conf: Path) -> None:
    conversion = converted(conf, "", "queens")
    assert "nova's default, [DEFAULT] image_cache_manager_interval = 2400" in conversion.manifest
    assert "set [DEFAULT] remove_unused_base_images = false" in conversion.warnings[0]


def test_a_missing_file_is_named(conf: Path) -> None:
    with pytest.raises(NovaConfError, match=r"nova\.conf: cannot be read: No such file or directory$"):
        read(conf)


def test_without_oslo_config_the_extra_is_named(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oslo_config", None)
    with pytest.raises(NovaConfError, match=r"needs oslo\.config: pip install 'basekeeper\[nova-conf\]'$"):
        read(conf)


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(import_nova_conf)
    return app


def test_the_manifest_goes_to_standard_output_and_warnings_to_standard_error(conf: Path) -> None:
    conf.write_text(IC + "manager-interval = 5\n")
    result = CliRunner().invoke(command(), [str(conf), "--name", "compute"])
    printed = conf.with_name("policy.yaml")
    printed.write_text(result.stdout)
    assert load(printed).metadata.name == "compute"
    assert "warning: hand-over" in result.stderr
    assert "manager-interval = 5: nova ignores it" in result.stderr


WRONG_USE = {
    "an unknown release": (
        ["--release", "zulu"],
        "--release: no nova release with an image cache is called 'zulu'; known: ",
    ),
    "a name that Kubernetes refuses": (["--name", "a: b"], "--name: metadata.name: expected lower-case letters"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_is_one_line(conf: Path, arguments: list[str], message: str) -> None:
    conf.write_text("")
    result = CliRunner().invoke(command(), [str(conf), *arguments])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith(message)


def test_a_release_is_known_in_any_case(conf: Path) -> None:
    conf.write_text(OLD.format(10))
    assert "interval: 10m" in CliRunner().invoke(command(), [str(conf), "--release", "FOLSOM"]).stdout


# Values and lines that a nova.conf may hold, right ones and wrong ones.
_NAMES = [*sorted({s.name for option in OPTIONS for s in option.spellings}), "other", "manager-interval"]
_GROUPS = [*sorted({s.group for option in OPTIONS for s in option.spellings}), "Image_Cache", "default"]
_VALUES = ["1", "0", "-1", "600", "true", "no", "", "1h", "5 # five", "'7'", '"8', "$my_ip", "${other}", "$$x", r"\$y",
           "$image_cache.manager_interval", "raw", "/srv", f"{10**40}", "a\n  b", "\u2028"]  # fmt: skip
_LINES = st.one_of(
    st.sampled_from(_GROUPS).map("[{}]".format),
    st.builds("{}{}{}".format, st.sampled_from(_NAMES), st.sampled_from([" = ", "=", ": "]), st.sampled_from(_VALUES)),
    st.sampled_from(["", "# comment", "; comment", "  continued"]),
)


@given(st.one_of(st.text(), st.lists(_LINES, max_size=12).map("\n".join)), st.sampled_from(RELEASES))
def test_any_file_gives_a_policy_that_loads_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, release: str
) -> None:
    conf = tmp_path_factory.getbasetemp() / "any.conf"
    conf.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = ""
    try:
        spec(convert(read(conf, release), "any"))
    except NovaConfError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@pytest.mark.parametrize("name", ["a", "a.b-c", "A", "", "a b", "-"])
def test_a_name_is_accepted_as_kubernetes_accepts_it(conf: Path, name: str) -> None:
    conf.write_text("")
    if name in {"a", "a.b-c"}:
        assert convert(read(conf), name).manifest
    else:
        with pytest.raises(PolicyError, match=r"^--name: metadata\.name: expected lower-case letters"):
            convert(read(conf), name)


KNOWN = [option for option in OPTIONS if any(spelling.read_by(CURRENT) for spelling in option.spellings)]
# oslo.config makes nothing of a blank number (nova then fails at run time) and "" of a variable without a default.
_COMPARABLE_VALUES = [*(set(_VALUES) - {"", "\u2028", "$my_ip", "${other}"}), "$state_path/x"]
_COMPARABLE = st.one_of(
    st.sampled_from(_GROUPS).map("[{}]".format),
    st.builds(
        "{} = {}".format,
        st.sampled_from(_NAMES),
        st.sampled_from(sorted(_COMPARABLE_VALUES)),
    ),
    st.sampled_from(["", "# comment", "  continued"]),
)


def nova_reads(conf: Path) -> dict[str, object] | None:
    """What oslo.config itself makes of the file with nova's options of today; None if it refuses it."""
    opts = cfg.ConfigOpts()
    for option in KNOWN:
        current, *older = (spelling for spelling in option.spellings if spelling.read_by(CURRENT))
        kind: dict[Kind, Any] = {
            Kind.BOOL: types.Boolean(),
            Kind.INT: types.Integer(min=option.minimum),
            Kind.TEXT: types.String(choices=option.choices or None),
        }
        deprecated = [cfg.DeprecatedOpt(spelling.name, group=spelling.group) for spelling in older]
        opt = cfg.Opt(current.name, type=kind[option.kind], default=option.default, deprecated_opts=deprecated)
        opts.register_opt(opt, group=None if current.group == "DEFAULT" else current.group)
    try:
        opts([], default_config_files=[str(conf)], default_config_dirs=[], use_env=False)
        groups: dict[str, Any] = {s.group: opts if s.group == "DEFAULT" else opts[s.group] for s in map(first, KNOWN)}
        return {str(option): groups[first(option).group][first(option).name] for option in KNOWN}
    except (cfg.Error, ValueError, RecursionError):
        return None


def first(option: Option) -> Spelling:
    return option.spellings[0]


@given(st.lists(_COMPARABLE, max_size=12).map(lambda lines: "\n".join(["[DEFAULT]", *lines])))
def test_every_value_is_what_oslo_config_itself_reads(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    conf = tmp_path_factory.getbasetemp() / "compared.conf"
    conf.write_text(text)
    ours: dict[str, object] | None = None
    with contextlib.suppress(NovaConfError):
        found = read(conf)
        ours = {str(option): found.get(option).value for option in KNOWN}
    assert ours == nova_reads(conf)
