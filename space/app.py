"""Open the page: `python space/app.py`; with models of your own, `python space/app.py --model runs/mine user/name`."""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
if find_spec("realfake_hf") is None:  # not installed: use the archive of a staged Space, or the checkout
    archive = HERE / "realfake_hf.zip"
    sys.path.append(str(archive if archive.exists() else HERE.parent))

if __name__ == "__main__":  # the models' processes read this file too
    from realfake_space.serve import main

    sys.exit(main())
