"""basekeeper keeps nova's cache of base images small, whole and explained."""

__version__ = "0.1.0"
