"""`basekeeper`, and `python -m basekeeper`: ready for an interrupt before the imports, which take a moment."""

import sys

_INTERRUPTED = "interrupted before anything was done"


def main() -> None:
    """Run the command line."""
    try:
        from .cli import interrupts  # noqa: PLC0415 (the first moment too is covered)

        interrupts.end_at_once(_INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(f"basekeeper: {_INTERRUPTED}")
    from .cli.app import main as run  # noqa: PLC0415 (from here on a signal is one line)

    run()


if __name__ == "__main__":
    main()
