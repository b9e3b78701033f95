"""Writes many objects at once, in threads that end with the program: a server that hangs must not keep it for long."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from basekeeper.cluster.api import ApiError

_WRITERS = 8
T = TypeVar("T")


def write_all(
    write: Callable[[T], None], items: Iterable[T], stopping: threading.Event, wrote: Callable[[], None]
) -> list[ApiError]:
    """Write each item, the first ones first, and tell what could not be; `wrote` is told of each.

    Once `stopping` is set nothing further is begun. Raises whatever else a write raised, after all the others.
    """
    todo = deque(items)
    failures: list[ApiError] = []
    unforeseen: list[Exception] = []

    def work() -> None:
        while todo and not stopping.is_set():
            try:
                item = todo.popleft()
            except IndexError:  # another writer took the last one
                return
            try:
                write(item)
            except ApiError as error:
                failures.append(error)
            except Exception as error:  # noqa: BLE001 (told below: the others are written all the same)
                unforeseen.append(error)
            wrote()

    crew = [threading.Thread(target=work, name="writer", daemon=True) for _ in range(min(_WRITERS, len(todo)))]
    for writer in crew:
        writer.start()
    for writer in crew:
        writer.join()
    if unforeseen:
        raise unforeseen[0]
    return failures
