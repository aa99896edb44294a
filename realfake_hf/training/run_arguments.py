"""The `TrainingArguments` of transformers with the settings and defaults of this project."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from realfake_hf.training.arguments import MachineSettings, PublicationSettings, RunSettings


@dataclass
class RunArguments(RunSettings, MachineSettings, PublicationSettings, TrainingArguments):
    """All settings of the training loop.

    Without an accelerator, no memory is pinned and `use_cpu` is set, so processes communicate with gloo.
    """

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        if self.dataloader_drop_last:
            raise ValueError(
                "expected every validation and test image measured; found --dataloader_drop_last, which drops the "
                "last batch of an evaluation. Remove it."
            )
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu
        TrainingArguments.__post_init__(self)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the token out of `training_args.bin`, which the Trainer pickles into the run and each checkpoint."""
        return {**self.__dict__, "hub_token": None}
