"""Show where detectors look: `explain.py --model space/models/cifake-cnn --images photos/ --output_dir runs/why`.

`explain.py --study` measures whether explanations agree and are faithful; `--study --help` lists its settings.
"""

import sys

from realfake_hf.commands.explain import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
