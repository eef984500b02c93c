"""Run the command line by `python -m hundredfold`."""

from hundredfold.cli.main import entry

if __name__ == "__main__":  # the processes that decode pictures import this module, too
    entry()
