"""The page with stand-ins for its models, which answer at once: for tests of the layout, of routes and of tools."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from realfake_hf.data.framing import Framing
from realfake_hf.labels import Verdict
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_space.page import build, launch_settings
from realfake_space.uploads import RejectedError, open_upload, upload_metadata
from realfake_space.worker import ModelFacts, Prediction

SPACE = Path(__file__).resolve().parents[1] / "space"
NAMES = json.loads((SPACE / "examples/expected.json").read_text())["models"]  # by digest
SCORES = {"wild": (0.0005, 0.45), "cifake-cnn": (0.217, 0.97), "cifake-vit": (0.749, 0.99)}  # of a large, small image
BAND = Band(0.2, 0.89, promised=0.1)


class StandInReaders:
    """Reads files here."""

    def metadata(self, path):
        return upload_metadata(path)

    def read(self, path, geometry=None, *, view=False, whole=False):  # noqa: ARG002
        return open_upload(path, view=view, whole=whole)


class StandIn:
    """A model with the weights' digest of one of the Space, and a score for large and one for small images."""

    def __init__(self, name):
        self.name, self.readers = name, StandInReaders()
        framing = None if name == "wild" else Framing((32, 32), (1.0, 1.0), crops=False, growth=None)
        point = OperatingPoint(0.5, "by hand", band=BAND)
        [digest] = [digest for digest, known in NAMES.items() if known == name]
        self.facts = ModelFacts(point, ("relevance", "rollout"), framing, None, digest, "float32")

    def predict(self, paths, *, slow=None):  # noqa: ARG002
        return [self._predict(path) for path in paths]

    def _predict(self, path):
        if path is None:
            return None
        try:
            upload = open_upload(path)
        except RejectedError as error:
            return str(error)
        p_fake = SCORES[self.name][max(upload.size) <= 64]
        is_sure = not BAND.low < p_fake < BAND.high
        verdict = Verdict("FAKE" if p_fake > 0.5 else "REAL", p_fake, is_sure, is_far=False)
        return Prediction(verdict, upload.size, upload.metadata)

    def explain(self, path, method, strength):  # noqa: ARG002
        stream = BytesIO()
        Image.fromarray(np.asarray(open_upload(path, view=True).view) // 2).resize((640, 427)).save(stream, "PNG")
        label = None if method == "rollout" else "REAL" if self.name == "wild" else "FAKE"
        return stream.getvalue(), {"model": self.name, "method": method, "explains": label, "is_empty": False}


@contextmanager
def served(folder):
    """Serve the page in another process, with its uploads in a folder; yield its address."""
    paths = os.pathsep.join([str(SPACE), str(SPACE.parent), str(Path(__file__).parent)])
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder), "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield next(line for line in process.stdout if line.startswith("http")).strip().rstrip("/")
        finally:
            process.terminate()


def serve():
    page = build({name: StandIn(name) for name in ("wild", "cifake-cnn", "cifake-vit")})
    page.launch(prevent_thread_lock=True, quiet=True, **launch_settings(page))
    sys.stdout.write(f"{page.local_url}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    serve()
