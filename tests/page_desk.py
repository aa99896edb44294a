"""The page's desk with its models in the process of the tests, which has imported what they need."""

from io import BytesIO
from unittest.mock import patch

import numpy as np
from PIL import Image

from realfake_space import lineup
from realfake_space.desk import Desk
from realfake_space.lineup import ModelProcess, line_up


class Here(ModelProcess):
    """Works in the process that calls it."""

    def work(self, call, *arguments):
        return call(*arguments)


def desk_here(*places, **settings):
    """The desk of models that are loaded here: those of the Space, or those of places."""
    with patch.object(lineup, "ModelProcess", Here):
        return Desk(line_up(places, **settings))


def pixels(shown):
    """What a PNG shows."""
    return np.asarray(Image.open(BytesIO(shown)))
