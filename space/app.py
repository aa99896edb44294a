"""Open the page: `python space/app.py`; with models of your own, `python space/app.py --model runs/mine user/name`."""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
if find_spec("realfake_hf") is None:  # the folder runs by itself
    sys.path.append(str(HERE / "realfake_hf.zip"))

if __name__ == "__main__":  # the models' processes read this file too
    from realfake_space.serve import main

    sys.exit(main())
