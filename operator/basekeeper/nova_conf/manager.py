"""What a nova.conf says of nova's own manager of the cache: whether it runs, whether it removes, and at what age."""

from pathlib import Path

from basekeeper.cache.settings import NovaSays

from . import options
from .reader import NovaConf, NovaConfError, Setting, read


def says(path: Path | None) -> NovaSays | None:
    """Read the nova.conf at `path`, as nova of today does; None where none is given. Raises nothing."""
    if path is None:
        return None
    try:
        conf = read(path)
        off = _why_it_never_runs(conf)
        removes = conf.get(options.REMOVE)
        return NovaSays(
            runs=off is None,
            runs_origin=(off or conf.get(options.MANAGER_INTERVAL)).origin,
            removes=bool(removes.value),
            removes_origin=removes.origin,
            original_age=conf.get(options.ORIGINAL_AGE).number,
            resized_age=conf.get(options.RESIZED_AGE).number,
        )
    except NovaConfError as error:
        return NovaSays(problem=f"nova.conf does not say what nova's manager does: {error}")


def _why_it_never_runs(conf: NovaConf) -> Setting | None:
    """The setting that keeps the manager from running, if one does."""
    for option in (options.PERIODIC, options.EXTERNAL_PERIODIC):
        if not conf.get(option).value:
            return conf.get(option)
    interval = conf.get(options.MANAGER_INTERVAL)
    return interval if interval.number < 0 else None
