"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """Wrong use or bad input.

    Its text says what is wrong, which file or value, and what to do. The command line prints it
    without a traceback and exits with code 2.
    """


class UnavailableError(UserError):
    """Data that would have to be fetched, and cannot be: no network, no server, no credentials."""


class FoundWrong(Exception):  # noqa: N818  # no error of the program, nor of its use
    """What an audit was asked to be strict about: exit code 1."""


class DivergedError(UserError):
    """Training whose loss is no longer finite."""
