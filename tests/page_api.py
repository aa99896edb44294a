"""The functions of the page, with its models in the process of the tests."""

from io import BytesIO
from unittest.mock import patch

import numpy as np
from PIL import Image

from realfake_space import models
from realfake_space.api import Api
from realfake_space.models import ModelProcess, find_models
from realfake_space.reader import Readers


class SameProcess(ModelProcess):
    """Calls functions in the process of the caller."""

    def call(self, function, *arguments):
        return function(*arguments)


class SameReaders(Readers):
    """Reads files in the process of the caller."""

    def call(self, function, *arguments, **_):
        return function(*arguments)


def api_here(*places, **settings):
    """Load models in this process, which also reads files: those of the Space by default."""
    with patch.object(models, "ModelProcess", SameProcess), patch.object(models, "Readers", SameReaders):
        return Api(find_models(places, **settings))


def pixels(png):
    """Decode a PNG."""
    return np.asarray(Image.open(BytesIO(png)))
