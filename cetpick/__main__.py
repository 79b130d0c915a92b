"""`python -m cetpick` is the command line."""

from cetpick.cli import main

if __name__ == "__main__":
    main()
