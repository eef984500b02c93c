"""What commands that train have in common: how they show it, and who else is told."""

from dataclasses import dataclass

from hundredfold.display import Display, JsonDisplay
from hundredfold.errors import UserError


@dataclass(frozen=True)
class Logs:
    """How a training is shown, and where else it is logged."""

    quiet: bool = False
    """Print nothing but errors."""
    verbose: bool = False
    """Say more: each checkpoint, say."""
    log_json: bool = False
    """One JSON object a line, for other programs: start, epoch, note, end."""

    def display(self) -> Display:
        """Return what shows the training.

        Raises:
            UserError: more than one way is asked for.
        """
        if self.quiet + self.verbose + self.log_json > 1:
            raise UserError("--quiet, --verbose and --log-json exclude each other.")
        return JsonDisplay() if self.log_json else Display(self.quiet, verbose=self.verbose)
