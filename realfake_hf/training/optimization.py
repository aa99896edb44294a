"""Fine-tuning: learning rates by depth, LoRA, a temporarily frozen backbone, and a moving average of the weights."""

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
from realfake_hf.training.callbacks import checkpoint_folder

AVERAGE_FILE: Final = "averaged.safetensors"

Block = tuple[int, ...]  # position of a block, or of a stage and a block in it


def parameter_groups(
    model: PreTrainedModel | PeftModel,
    *,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    decayed: Collection[str],
) -> list[dict[str, Any]]:
    """Group the trainable parameters by depth, for layer-wise learning rate decay (Clark et al., 2020, ELECTRA).

    The heads, in the first groups, have the learning rate, and each layer that of the layer above it times
    `layer_decay`. The parameters named in `decayed`, by the `Trainer`, have the weight decay; the others (biases,
    norms) have none.
    """
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    depths = layer_depths(model)
    top = max(depths.values())
    groups: dict[tuple[int, bool], list[Tensor]] = defaultdict(list)
    for name, value in parameters.items():
        groups[top - depths[name], name not in decayed].append(value)
    return [
        {"params": values, "lr": learning_rate * layer_decay**below, "weight_decay": 0.0 if exempt else weight_decay}
        for (below, exempt), values in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_depths(model: PreTrainedModel | PeftModel) -> dict[str, int]:
    """Return the depth of each parameter: 0 in embeddings, 1, 2, ... in the blocks, the highest in the heads.

    Blocks are the members of lists of modules; if such a list is a member of another, a stage, blocks are counted
    through all stages. Parameters between blocks, as of norms, have the depth of a block beside them.
    """
    names = [name for name, _ in model.named_parameters()]
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    prefix = "base_model.model." if isinstance(model, PeftModel) else ""
    heads = tuple(f"{prefix}{name}." for name in head_modules(base))
    lists = {name for name, module in model.named_modules() if _is_list(module)}
    blocks = {name: () if name.startswith(heads) else _block(name, lists) for name in names}
    ranks = {block: depth for depth, block in enumerate(_deepest(blocks.values()), start=1)}
    last, depths, reached = len(ranks), {}, 0
    for name in names:
        stage = [rank for block, rank in ranks.items() if block[: len(blocks[name])] == blocks[name]]
        is_after = reached >= stage[0] if stage else False
        depths[name] = stage[-1 if is_after else 0] if blocks[name] else last if reached else 0
        reached = max(reached, ranks.get(blocks[name], 0))
    return depths | {name: last + 1 for name in names if name.startswith(heads)}


def _is_list(module: nn.Module) -> bool:
    """Return whether a module lists blocks: a `ModuleList`, or a sequence of one class, but not of single layers."""
    if not isinstance(module, nn.ModuleList | nn.Sequential) or all(not list(child.children()) for child in module):
        return False
    return isinstance(module, nn.ModuleList) or len({type(child) for child in module}) == 1


def _block(name: str, lists: Collection[str]) -> Block:
    """Return the positions of a parameter in the lists around it, of which the first two are stage and block."""
    parts = name.split(".")
    return tuple(int(part) for depth, part in enumerate(parts) if ".".join(parts[:depth]) in lists)[:2]


def _deepest(blocks: Iterable[Block]) -> list[Block]:
    """Return the blocks in order, without stages that contain others."""
    every = sorted(set(blocks) - {()})
    stages = {block[:1] for block in every if len(block) > 1}
    return [block for block in every if block not in stages]


def with_lora(model: PreTrainedModel, *, rank: int) -> PeftModel:
    """Add low-rank updates to the linear layers of the backbone, and keep the heads trainable (Hu et al., 2022, LoRA).

    The updates are scaled by 2, whatever the rank. `merge_and_unload` merges them into the weights.
    """
    heads = head_modules(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in heads]
    if not linear:
        raise ValueError(
            f"expected linear layers in the backbone for --lora_rank; found none in {type(model).__name__}. Omit "
            "--lora_rank, or use --freeze_backbone."
        )
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear, modules_to_save=list(heads))
    return cast("PeftModel", get_peft_model(model, settings))


class HeadFirst(TrainerCallback):
    """Freeze the backbone in the first epochs, to protect it from a new head (Kumar et al., 2022, LP-FT)."""

    def __init__(self, backbone: Iterable[nn.Parameter], *, epochs: int) -> None:
        self.backbone, self.epochs = list(backbone), epochs

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Freeze or unfreeze the backbone for the coming epoch."""
        is_frozen = int(state.epoch or 0) < self.epochs
        for parameter in self.backbone:
            parameter.requires_grad_(not is_frozen)
            if is_frozen:
                parameter.grad = None


class WeightAverage(TrainerCallback):
    """Evaluate and save an exponential moving average of the weights (Polyak & Juditsky, 1992).

    Training continues with the trained weights; the average replaces them during each evaluation and at the end of
    training. Checkpoints contain both. The decay is limited at step t to (1 + t) / (10 + t), to forget the initial
    weights.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._mean: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}  # the trained weights, while the average replaces them

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the weights, or from the average in the resumed checkpoint."""
        self._mean = _copy(kwargs["model"])
        if state.global_step:
            self._read(checkpoint_folder(args, state))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the average."""
        weights = _weights(kwargs["model"])
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update([_local(mean) for mean in self._mean.values()], [_local(weights[name]) for name in self._mean], None)
        self._save_or_swap(args, state, control, kwargs["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replace the weights by the average for the evaluation."""
        self._save_or_swap(args, state, control, kwargs["model"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the weights."""
        if self._trained:
            _set(kwargs["model"], self._trained)
            self._trained = {}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the average, from the best checkpoint if one was selected."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self._read(Path(state.best_model_checkpoint))
        _set(kwargs["model"], self._mean)

    def _save_or_swap(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module
    ) -> None:
        """Save the average before a checkpoint is written, whose last file marks it as complete; swap to evaluate."""
        if control.should_save:
            average = {  # collective: in all processes
                name: value.full_tensor() if isinstance(value, DTensor) else value
                for name, value in self._mean.items()
            }
            folder = checkpoint_folder(args, state)
            if state.is_world_process_zero:
                folder.mkdir(parents=True, exist_ok=True)
                save_file(average, folder / AVERAGE_FILE)
        if control.should_evaluate and not self._trained:
            self._trained = _copy(model)
            _set(model, self._mean)

    def _read(self, checkpoint: Path) -> None:
        for name, value in load_file(checkpoint / AVERAGE_FILE).items():
            mean = self._mean[name]
            if isinstance(mean, DTensor):
                value = distribute_tensor(value.to(mean.device), mean.device_mesh, mean.placements)
            mean.copy_(value)


def _local(weights: Tensor) -> Tensor:
    """Return the shard of this process if the weights are sharded (FSDP 2), else the weights."""
    return weights.to_local() if isinstance(weights, DTensor) else weights


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; under FSDP 2, first reshard parameters gathered by an evaluation."""
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
