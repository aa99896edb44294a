"""Build a distilled DeiT from the weights of a ViT, if no DeiT checkpoint is available.

`python -m realfake_hf.models.deit --vit WinKawaks/vit-tiny-patch16-224 --output_dir weights/deit-tiny-from-vit`
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, ViTForImageClassification

from realfake_hf.cli import command
from realfake_hf.models.checkpoint import load_classifier, load_processor
from realfake_hf.models.pretrained import find_checkpoint


@dataclass
class DeitArguments:
    """The ViT to convert, and the output folder."""

    vit: str = field(metadata={"help": "A ViT classifier: a folder or a Hub id."})
    output_dir: Path = field(metadata={"help": "Folder of the DeiT and its image processor."})


def deit_from_vit(vit: ViTForImageClassification) -> DeiTForImageClassificationWithTeacher:
    """Copy the weights of a ViT into a DeiT with two heads (Touvron et al., 2021).

    The distillation token and its position are copies of those of the class token, and both heads are copies of the
    head of the ViT. Outputs differ slightly from those of the ViT because of the second token.
    """
    config = DeiTConfig.from_dict({**vit.config.to_dict(), "model_type": "deit", "architectures": None})
    deit = DeiTForImageClassificationWithTeacher(config)
    weights = {f"deit.{name.removeprefix('vit.')}": value for name, value in vit.vit.state_dict(prefix="vit.").items()}
    token, positions = "deit.embeddings.cls_token", "deit.embeddings.position_embeddings"
    weights["deit.embeddings.distillation_token"] = weights[token]
    weights[positions] = torch.cat([weights[positions][:, :1], weights[positions]], dim=1)
    for head in ("cls_classifier", "distillation_classifier"):
        weights |= {f"{head}.{name}": value for name, value in vit.classifier.state_dict().items()}
    deit.load_state_dict(weights)
    return deit


@command(DeitArguments, name="deit", description=__doc__)
def main(arguments: DeitArguments) -> None:
    """Build the DeiT and save it with the image processor of the ViT."""
    place = find_checkpoint(arguments.vit)
    vit = load_classifier(place, dtype=torch.float32)
    if not isinstance(vit, ViTForImageClassification):
        raise ValueError(f"expected a ViT classifier; found a {vit.config.model_type} at {arguments.vit!r}.")
    deit_from_vit(vit).save_pretrained(arguments.output_dir)
    load_processor(place, vit.config).save_pretrained(arguments.output_dir)


if __name__ == "__main__":
    sys.exit(main())
