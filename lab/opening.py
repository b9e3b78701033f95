"""What is ready when its context is entered, and gone when it is left or when it could not be made ready."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Opening(ABC):
    """A context of the laboratory's: processes, directories, networks."""

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _open(self) -> None:
        """Make it ready; whatever is raised here, `close` follows."""

    @abstractmethod
    def close(self) -> None:
        """End it and remove what is left of it; once more does no harm."""
