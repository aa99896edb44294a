# /// script
# requires-python = ">=3.11"
# dependencies = ["realfake-hf[train]"]
#
# [tool.uv.sources]
# realfake-hf = { path = ".", editable = true }
#
# [tool.hf-jobs]  # `hf jobs uv run` sends this file without the folder
# env = { UV_NO_SOURCES = "1" }
# ///
"""Train a detector: `accelerate launch train.py --config recipes/cifake_cnn.yaml`.

With `--push_to_hub --hub_model_id user/name` the finished run is published: model, card, figures, measurements.
"""

import sys

from realfake_hf.commands.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
