"""The command `realfake space`: open the demo page."""

import subprocess
import sys
from collections.abc import Sequence

from realfake_hf.places import default_model, space_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run `app.py` of the Space with these words, by default with the models that are here; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    folder = space_folder()
    has_models = any((folder / "models").glob("*")) or "--model" in words or "--help" in words
    models = [] if has_models else ["--model", str(default_model())]
    try:
        return subprocess.run([sys.executable, str(folder / "app.py"), *words, *models], check=False).returncode
    except KeyboardInterrupt:  # the page has received it as well
        return 130
