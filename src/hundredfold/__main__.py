"""python -m hundredfold."""

from hundredfold.cli.main import entry

if __name__ == "__main__":  # not in the processes that decode pictures
    entry()
