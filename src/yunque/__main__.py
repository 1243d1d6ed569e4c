"""`python -m yunque`: the same as the command."""

from yunque.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
