"""CIFAR-100 from Kaggle, through its own client: an extra."""

import re
from pathlib import Path

from hundredfold.support.errors import UnavailableError, UserError, extra

PREFIX = "kaggle:"


def fetch(source: str) -> Path:
    """Download the Kaggle dataset `kaggle:OWNER/NAME` and return its folder.

    Raises:
        UserError: the name is not of that form, there is no such dataset, or kagglehub is missing.
        UnavailableError: no network, or Kaggle wants credentials.
    """
    handle = source.removeprefix(PREFIX)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", handle):
        raise UserError(f"--data {source} is not of the form kaggle:OWNER/NAME.")
    with extra("kaggle", "Data from Kaggle needs"):
        import kagglehub  # noqa: PLC0415  # an extra
        from kagglehub import exceptions  # noqa: PLC0415
    try:
        return Path(kagglehub.dataset_download(handle))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise UnavailableError(_credentials(handle)) from error
    except exceptions.KaggleApiHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise UnavailableError(_credentials(handle)) from error
        if status == 404:
            raise UserError(f"Kaggle has no dataset {handle}.") from error
        raise UnavailableError(f"Kaggle does not give {handle} now: {error}.") from error
    except (exceptions.DataCorruptionError, exceptions.BackendError, OSError, ValueError) as error:
        # requests' errors are OSErrors whose text is a page long: their kind says as much
        raise UnavailableError(
            f"Cannot fetch {handle} from Kaggle ({type(error).__name__}): is there a network, and "
            "room on the disk?"
        ) from error


def _credentials(handle: str) -> str:
    return (
        f"Kaggle wants credentials for {handle}: make an API token in your Kaggle account's "
        "settings, save it as ~/.kaggle/kaggle.json or set KAGGLE_USERNAME and KAGGLE_KEY, "
        "then try again."
    )
