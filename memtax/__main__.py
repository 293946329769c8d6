"""`python -m memtax` is the `memtax` command."""

from memtax.cli import main

if __name__ == "__main__":
    main()
