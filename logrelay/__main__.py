"""`python -m logrelay` is the command `logrelay`. Read `cli` next."""

from logrelay.cli import main

if __name__ == "__main__":
    main(prog_name="logrelay")
