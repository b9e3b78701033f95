"""`python -m basekeeper` is `basekeeper`."""

from .cli.app import main

main()
