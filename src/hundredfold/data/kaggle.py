"""Download datasets from Kaggle with Kaggle's own client, kagglehub, which is an extra."""

import re
from pathlib import Path

from hundredfold.support.errors import UnavailableError, UserError, extra

PREFIX = "kaggle:"


def download_dataset(source: str) -> Path:
    """Download the Kaggle dataset `kaggle:OWNER/NAME` and return its folder.

    Raises:
        UserError: the name has another form, there is no such dataset, or kagglehub is missing.
        UnavailableError: there is no network, or Kaggle requires credentials.
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
        raise UnavailableError(f"Kaggle cannot provide {handle} now: {error}.") from error
    except (exceptions.DataCorruptionError, exceptions.BackendError, OSError, ValueError) as error:
        # requests' errors are OSErrors with a page of text, so only their type is shown
        raise UnavailableError(
            f"Cannot download {handle} from Kaggle ({type(error).__name__}). Check the network and "
            "the free disk space."
        ) from error


def _credentials(handle: str) -> str:
    return (
        f"Kaggle requires credentials for {handle}. Create an API token in the settings of your "
        "Kaggle account, save it as ~/.kaggle/kaggle.json or set KAGGLE_USERNAME and KAGGLE_KEY, "
        "then try again."
    )
