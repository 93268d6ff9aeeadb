"""``python -m sbc`` is the ``sbc`` command."""

from sbc.cli import main

if __name__ == "__main__":
    main()
