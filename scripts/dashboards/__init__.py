"""Makes deploy/dashboards; `make generate` writes it, and a test compares."""

from .panels import files

__all__ = ["files"]
