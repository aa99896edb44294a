"""How the weights move: learning rates by depth, a head that learns first, and the running mean of the weights."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from realfake_hf.models.heads import head_modules

AVERAGE_FILE: Final = "averaged.safetensors"

_BLOCK = re.compile(r"(?:layers?|blocks?|stages)\.(\d+)")


def parameter_groups(
    model: PreTrainedModel | PeftModel,
    *,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    decayed: Collection[str],
) -> list[dict[str, Any]]:
    """Group the parameters that learn by depth, each layer slower than the one above it (Clark et al., 2020, ELECTRA).

    Args:
        model: a classifier with a backbone and heads.
        learning_rate: of the heads.
        weight_decay: of the parameters named in `decayed`; the others (biases, norms) have none.
        layer_decay: a layer's learning rate as a share of the next one's; 1 for the same everywhere.
        decayed: names of parameters, as the `Trainer` lists them.

    Returns:
        Groups for an optimizer, the heads first.
    """
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    depths = layer_depths(model)
    top = max(depths.values())
    groups: dict[tuple[int, bool], list[Tensor]] = defaultdict(list)
    for name, value in parameters.items():
        groups[top - depths[name], name not in decayed].append(value)
    return [
        {
            "params": values,
            "lr": learning_rate * layer_decay**below,
            "weight_decay": 0.0 if plain else weight_decay,
        }
        for (below, plain), values in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_depths(model: PreTrainedModel | PeftModel) -> dict[str, int]:
    """Say how deep each parameter lies: 0 for the embeddings, 1, 2, ... for the blocks, the highest for the heads."""
    names = [name for name, _ in model.named_parameters()]
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    backbone = f"{base.base_model_prefix}."
    blocks = {name: tuple(map(int, _BLOCK.findall(name))) for name in names}
    rank = {block: depth for depth, block in enumerate(sorted(set(blocks.values()) - {()}), start=1)}
    last = len(rank)

    def depth(name: str) -> int:
        if backbone not in name:
            return last + 1
        if blocks[name]:
            return rank[blocks[name]]
        return 0 if "embed" in name else last  # a norm after the blocks belongs to the last one

    return {name: depth(name) for name in names}


def with_lora(model: PreTrainedModel, *, rank: int) -> PeftModel:
    """Let low-rank updates of the backbone's linear layers learn, and the heads whole (Hu et al., 2022, LoRA).

    The updates are scaled by 2, whatever the rank. `merge_and_unload` folds them into the weights.
    """
    heads = head_modules(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in heads]
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear, modules_to_save=list(heads))
    return cast("PeftModel", get_peft_model(model, settings))


class HeadFirst(TrainerCallback):
    """Keep the backbone still in the first epochs, so that a new head does not tear it (Kumar et al., 2022, LP-FT).

    Args:
        backbone: the parameters that wait.
        epochs: how many epochs they wait.
    """

    def __init__(self, backbone: Iterable[nn.Parameter], *, epochs: int) -> None:
        self.backbone, self.epochs = list(backbone), epochs

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze or free the backbone for the epoch that begins."""
        waits = int(state.epoch or 0) < self.epochs
        for parameter in self.backbone:
            parameter.requires_grad_(not waits)
            if waits:
                parameter.grad = None


class WeightAverage(TrainerCallback):
    """Measure, and keep in the end, an exponential running mean of the weights (Polyak & Juditsky, 1992).

    Training goes on with the weights as they are; the mean stands in for them in each evaluation, and takes their
    place when the training is over. A checkpoint holds both.

    Args:
        decay: the mean's memory: it forgets a share of 1 - decay at each step. Early steps forget more, so that the
            first weights do not linger: 9 / (10 + t) at step t, while that is larger.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._mean: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the weights as they are, or from the checkpoint that training goes on from."""
        self._mean = _copy(kwargs["model"])
        if state.global_step:
            self._read(_checkpoint(args, state))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the mean towards the new weights."""
        weights = _weights(kwargs["model"])
        kept = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        move = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]
        move(
            [_own_piece(one) for one in self._mean.values()], [_own_piece(weights[name]) for name in self._mean], None
        )
        self._before_pause(args, state, control, kwargs["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the mean stand in for the weights while they are evaluated."""
        self._before_pause(args, state, control, kwargs["model"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the weights as they were."""
        if self._own:
            _set(kwargs["model"], self._own)
            self._own = {}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the mean: that of the best checkpoint, where one was chosen."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self._read(Path(state.best_model_checkpoint))
        _set(kwargs["model"], self._mean)

    def _before_pause(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module
    ) -> None:
        """The checkpoint's own state file is written last, so that a checkpoint with it has this file, too."""
        if control.should_save:
            whole = {name: _whole(value) for name, value in self._mean.items()}  # by all processes together
            folder = _checkpoint(args, state)
            if state.is_world_process_zero:
                folder.mkdir(parents=True, exist_ok=True)
                save_file(whole, folder / AVERAGE_FILE)
        if control.should_evaluate and not self._own:
            self._own = _copy(model)
            _set(model, self._mean)

    def _read(self, checkpoint: Path) -> None:
        for name, value in load_file(checkpoint / AVERAGE_FILE).items():
            mean = self._mean[name]
            mean.copy_(_in_pieces(value, mean) if isinstance(mean, DTensor) else value)


def _own_piece(weights: Tensor) -> Tensor:
    """The part of the weights that this process holds: all of them, but where they lie in pieces (FSDP 2)."""
    return weights.to_local() if isinstance(weights, DTensor) else weights


def _whole(weights: Tensor) -> Tensor:
    return weights.full_tensor() if isinstance(weights, DTensor) else weights


def _in_pieces(weights: Tensor, like: DTensor) -> DTensor:
    return distribute_tensor(weights.to(like.device), like.device_mesh, like.placements)


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name; where they lie in pieces, as pieces, though an evaluation has put some of them together."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in _weights(model).items()}


@torch.no_grad()
def _set(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in _weights(model).items():
        value.copy_(values[name])


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
