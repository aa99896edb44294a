"""Two processes: one is busy with something else, while the other waits for it to sum a large tensor.

`accelerate launch --multi_gpu --num_processes 2 tests/busy_process.py TIMEOUT BUSY`, in seconds.
"""

import sys
import time

import torch

from realfake_hf.distributed import join_processes, this_process

if __name__ == "__main__":
    timeout, busy = map(int, sys.argv[1:])
    state = join_processes(timeout=timeout)
    if state.process_index:
        time.sleep(busy)
    numbers = torch.ones(50_000_000)
    torch.distributed.all_reduce(numbers)
    sys.stdout.write(f"{this_process()}: {int(numbers.min())}\n")
    torch.distributed.destroy_process_group()
