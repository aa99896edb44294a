"""The page's desk with its models in the process of the tests, which has imported what they need."""

from unittest.mock import patch

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
