"""Two processes of which one is long busy with something else, while the other waits to add a lot to its numbers.

`accelerate launch --multi_gpu --num_processes 2 tests/busy_process.py SILENCE BUSY`, in seconds.
"""

import sys
import time

import torch

from realfake_hf import distributed as processes

if __name__ == "__main__":
    silence, busy = map(int, sys.argv[1:])
    state = processes.join_processes(silence=silence)
    if state.process_index:
        time.sleep(busy)
    numbers = torch.ones(50_000_000)
    torch.distributed.all_reduce(numbers)
    sys.stdout.write(f"{processes.this_process()}: {int(numbers.min())}\n")
    torch.distributed.destroy_process_group()
