"""python -m hundredfold."""

from hundredfold.cli import entry

entry()
