"""A distilled DeiT made of a ViT's weights, where no DeiT checkpoint is at hand.

`python -m realfake_hf.models.deit --vit WinKawaks/vit-tiny-patch16-224 --output_dir weights/deit-tiny-from-vit`
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTForImageClassification,
)

from realfake_hf.cli import parse
from realfake_hf.models.pretrained import find_checkpoint


def deit_from_vit(vit: ViTForImageClassification) -> DeiTForImageClassificationWithTeacher:
    """Put a ViT's weights into a DeiT with two heads (Touvron et al., 2021).

    The distillation token and its position start as copies of the class token's, both heads as copies of the ViT's.
    The two networks have the same layers; only the second token is new, so the answers differ a little.
    """
    config = DeiTConfig.from_dict({**vit.config.to_dict(), "model_type": "deit", "architectures": None})
    deit = DeiTForImageClassificationWithTeacher(config)
    weights = {f"deit.{name.removeprefix('vit.')}": value for name, value in vit.vit.state_dict(prefix="vit.").items()}
    token, positions = "deit.embeddings.cls_token", "deit.embeddings.position_embeddings"
    weights["deit.embeddings.distillation_token"] = weights[token]
    weights[positions] = _with_second_token(weights[positions])
    for head in ("cls_classifier", "distillation_classifier"):
        weights |= {f"{head}.{name}": value for name, value in vit.classifier.state_dict().items()}
    deit.load_state_dict(weights)
    return deit


def _with_second_token(positions: Tensor) -> Tensor:
    """(1, 1 + patches, hidden) -> (1, 2 + patches, hidden)."""
    return torch.cat([positions[:, :1], positions], dim=1)


@dataclass
class DeitArguments:
    """Which ViT, and where the DeiT goes."""

    vit: str = field(metadata={"help": "A ViT classifier: a folder or a Hub id."})
    output_dir: Path = field(metadata={"help": "The folder of the DeiT and its image processor."})


def main(argv: Sequence[str] | None = None) -> None:
    """Make the DeiT and save it with the ViT's image processor."""
    (arguments,) = parse(DeitArguments, argv=argv, description=__doc__)
    place = find_checkpoint(arguments.vit)
    vit = AutoModelForImageClassification.from_pretrained(place, dtype=torch.float32)
    if not isinstance(vit, ViTForImageClassification):
        raise SystemExit(f"wanted a ViT classifier; found a {vit.config.model_type} at {arguments.vit}.")
    deit_from_vit(vit).save_pretrained(arguments.output_dir)
    AutoImageProcessor.from_pretrained(place, backend="pil").save_pretrained(arguments.output_dir)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
