"""Run a script with FSDP 2 on CPUs, which accelerate supports on accelerators only.

`accelerate launch --config_file recipes/accelerate/fsdp.yaml --num_processes 2 tests/fsdp_on_cpus.py train.py ...`
"""

import os
import runpy
import sys

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType


def _as_if_gpus(
    _self: PartialState, _cpu: bool = False, _sagemaker: bool = False, _backend: str | None = None
) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = _as_if_gpus  # type: ignore[method-assign]
    torch.distributed.init_process_group("gloo")
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
