"""``python -m zsad`` is the ``zsad`` command."""

from zsad.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
