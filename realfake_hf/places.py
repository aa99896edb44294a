"""Where the files are that come with the package: the model that judges, and the demo page."""

from pathlib import Path
from typing import Final

NAME: Final = "wild"  # the default model
_PACKAGE: Final = Path(__file__).resolve().parent
MODELS: Final = (_PACKAGE / NAME, _PACKAGE.parent / "space/models" / NAME)  # in a wheel, and in a checkout
SPACES: Final = (_PACKAGE / "space", _PACKAGE.parent / "space")


def default_model() -> Path:
    """Return the folder of the model that comes with the package.

    Raises:
        OSError: there is none.
    """
    return _first(MODELS, f"the model {NAME}")


def space_folder() -> Path:
    """Return the folder of the demo page that comes with the package.

    Raises:
        OSError: there is none.
    """
    return _first(SPACES, "the demo page")


def _first(places: tuple[Path, ...], what: str) -> Path:
    for place in places:
        if place.is_dir():
            return place
    raise OSError(f"expected {what} in {places[0]}; found none. Install the wheel of realfake-hf, or use a checkout.")
