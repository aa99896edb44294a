"""Collect the tables of `results/` in one page.

`python -m tools.results_page` writes `docs/results.md` from the files `results/NAME.md`, which the
measuring commands write beside `results/NAME.json`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realfake_hf.cli import command, setting
from realfake_hf.store import write_text

SECTIONS: Final[Mapping[str, tuple[str, str, str]]] = {  # name -> heading, description, command
    "cifake_cnn": ("CNN on CIFAKE", "The paper's network, trained with three seeds.", "make cnn"),
    "vit_tiny_cifake_32": ("ViT-Tiny on CIFAKE", "A pretrained ViT, fine-tuned at 32 pixels.", "make vit"),
    "cifake_comparison": (
        "Recipes for CIFAKE on the same images",
        "Accuracy, cost and paired tests.",
        "make recipes compare",
    ),
    "cifake_audit": ("Duplicates in CIFAKE", "Images that are equal pixel by pixel.", "make audit"),
    "ablation_vit_tiny": ("Ablation of the ViT's recipe", "One setting changed at a time.", "make ablation"),
    "paper_search": ("Topologies of the CNN", "The paper's search, repeated.", "make search"),
    "crosseval": ("Other data sets", "Both models and a trivial baseline on new data sets.", "make crosseval"),
    "wild": ("Images from the web", "Each judged by heads that saw no image of its owner.", "make wild"),
    "wild_heads": ("Heads", "Compared within the training images, on stored features.", "make heads"),
    "wild_peers": ("Peers", "The kept model and two other detectors on the same images.", "make peers"),
    "transfer": ("Transfer between data sets", "Trained on each and on both, tested on each.", "make transfer"),
    "robustness_cifake": ("Robustness", "CIFAKE's test images, corrupted.", "make robust"),
    "familiarity": ("Distance from the training data", "Far images of each data set.", "make familiarity"),
    "shortcuts_cifake": ("File facts of CIFAKE", "What files alone reveal about the label.", "make shortcuts"),
    "shortcuts_diffusiondb_coco_imagenet": ("File facts of DiffusionDB and COCO", "The same.", "make shortcuts"),
    "shortcuts_progan_lsun": ("File facts of ProGAN and LSUN", "The same.", "make shortcuts"),
    "shortcuts_wild_art_kaggle_layout": ("File facts of wild art", "The same.", "make shortcuts"),
    "explanation_study": ("Explanations", "Agreement, faithfulness and sanity checks of maps.", "make study"),
    "entity_masks": ("Masks of entities", "Images on which two segmenters agree.", "make masks"),
    "benchmark_training": ("Training speed", "Against a bare loop and the Hugging Face example.", "make benchmarks"),
    "benchmark_time_to_accuracy": (
        "Time to the paper's accuracy",
        "The paper's CNN, from the archive to a measured model.",
        "make benchmarks",
    ),
    "benchmark_data": ("Loading speed", "From CIFAKE's archive to rows and pixels.", "make benchmarks"),
    "benchmark_vit": ("Speed of a ViT", "Training and prediction at several sizes.", "make benchmarks"),
    "benchmark_detector": ("Prediction speed", "Files through `Detector`, `pipeline` and ONNX.", "make benchmarks"),
    "benchmark_scoring": ("Batch scoring", "Images to parquet.", "make benchmarks"),
    "benchmark_scoring_wild": ("Batch scoring of large images", "The model `wild`.", "make benchmarks"),
    "benchmark_verdict": ("Time of one verdict", "The model `wild`, from the bytes of a file.", "make benchmarks"),
    "benchmark_first_verdict": (
        "Time of the first verdict",
        "`realfake photo.jpg`, from the shell.",
        "make benchmarks",
    ),
    "benchmark_install": ("Size of the installation", "To judge images, and to train.", "make benchmarks"),
    "benchmark_grid": ("Speed of the cross-evaluation", "Images per second through both models.", "make benchmarks"),
    "benchmark_explanations": ("Cost of explanations on a CPU", "Time and memory.", "make benchmarks"),
    "benchmark_explanations_gpu": (
        "Cost of explanations on a GPU",
        "Time.",
        "python -m benchmarks.explanation_throughput --output_file results/benchmark_explanations_gpu.json",
    ),
    "benchmark_space": ("Demo page under load", "Answers per second, latency, memory.", "make benchmarks"),
    "bfloat16": ("Predictions in bfloat16", "Speed, and what changes.", "make benchmarks"),
    "benchmark_streaming": ("Memory of a stream", "Two million images.", "make benchmarks"),
    "scaling": ("Scaling", "Time and memory by number of images.", "make scaling"),
    "two_processes": ("Two processes", "One training, alone and distributed.", "make processes"),
    "two_nodes": ("Two machines", "A training and a grid, alone and distributed.", "make nodes"),
    "faults": ("Fault injection", "Long work, interrupted and resumed.", "make faults"),
}


@dataclass
class PageArguments:
    """The tables and the page."""

    results: Path = setting(Path("results"), "Folder of the tables.")
    output_file: Path = setting(Path("docs/results.md"), "Markdown file of the page.")


def render(results: Path) -> str:
    """Render the existing tables of a folder, in the order of `SECTIONS`."""
    sections = [
        f"## {heading}\n\n{description} `{command}`\n\n{(results / f'{name}.md').read_text(encoding='utf-8')}"
        for name, (heading, description, command) in SECTIONS.items()
        if (results / f"{name}.md").exists()
    ]
    introduction = (
        "All tables of [results/](../results), written by `make results`. Each table has a JSON file of the same "
        "name, with code version, machine and settings. [findings.md](findings.md) interprets them.\n"
    )
    return "\n".join(["# Results\n", introduction, *sections])


@command(PageArguments, name="results_page", description=__doc__)
def main(arguments: PageArguments) -> None:
    """Write the page."""
    write_text(arguments.output_file, render(arguments.results))


if __name__ == "__main__":
    sys.exit(main())
