"""Inputs of a training run: the model with its image processor, the splits, and their pixels in batches."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Final, cast

import numpy as np
from accelerate import PartialState
from datasets import DatasetDict
from numpy.typing import NDArray
from transformers import BaseImageProcessor, PreTrainedModel, ViTImageProcessorPil

from realfake_hf.data.duplicates import absent_from, leak_free_mask, near_duplicate_free_mask
from realfake_hf.data.loading import find_source, load_images
from realfake_hf.data.pixels import PixelDataset, cached_pixels
from realfake_hf.data.splits import known_groups, stratified_split
from realfake_hf.data.streaming import ShardedSplit, StreamedPixels, find_shards
from realfake_hf.environment import data_fingerprint
from realfake_hf.labels import FAKE, id2label, label2id
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.models.multiview import MultiViewForImageClassification
from realfake_hf.models.pretrained import build_multiview, load_pretrained, weight_files
from realfake_hf.models.views import MultiViewImageProcessor
from realfake_hf.sampling import balanced_weights
from realfake_hf.training.arguments import (
    CIFAKE_CNN,
    MULTIVIEW,
    MULTIVIEW_SHAPE,
    CnnSettings,
    DataArguments,
    ModelArguments,
)
from realfake_hf.training.features import FeatureDataset, feature_sets
from realfake_hf.training.run_arguments import RunArguments

LEAST_VALIDATION: Final = 100  # images, at which accuracies of 0.8 and 0.9 differ by two standard errors


def build_model(arguments: ModelArguments) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Build a CIFAKE CNN or heads on a tower, or load a pretrained classifier with a head for REAL and FAKE.

    Return the model, and the image processor to save with it.
    """
    if arguments.model == MULTIVIEW:
        shape = {name: getattr(arguments, name) for name in MULTIVIEW_SHAPE}
        return build_multiview(**shape)
    if arguments.model != CIFAKE_CNN:
        names = ("image_size", "patch_size", "attn_implementation")
        return load_pretrained(arguments.model, **{name: getattr(arguments, name) for name in names})
    shape = {each.name: getattr(arguments, each.name) for each in fields(CnnSettings)}
    config = CifakeCnnConfig(**shape, id2label=id2label(), label2id=label2id())
    size = {"height": config.image_size, "width": config.image_size}
    return CifakeCnnForImageClassification(config), ViTImageProcessorPil(size=size)


def base_weights(arguments: ModelArguments) -> dict[str, Any] | None:
    """Return which pretrained weights a model starts from, see `weight_files`; None if it is trained from scratch."""
    if arguments.model == CIFAKE_CNN:
        return None
    return weight_files(arguments.tower if arguments.model == MULTIVIEW else arguments.model)


def source_name(arguments: DataArguments) -> str:
    """Return the name of the source that is read; `cifake` is the archive, and its mirror has another name."""
    return arguments.data if arguments.streaming else find_source(arguments.data, labels=arguments.labels).name


def load_splits(arguments: DataArguments) -> DatasetDict:
    """Load a source as train, validation and test."""
    if "group" in arguments.balanced:
        source = find_source(arguments.data, labels=arguments.labels)
        if not any(record.group for record in source.records()):
            raise ValueError(
                f"expected the groups of the images of {source.name} to balance them; found none. State them in a "
                "column group, or remove group from --balance."
            )
    with PartialState().main_process_first():  # one process reads the source, the others use its cache
        images = load_images(arguments.data, labels=arguments.labels, fold=arguments.fold)
    splits = arguments.complete(images)
    if arguments.train_size is not None and arguments.train_size < len(splits["train"]):
        share = arguments.train_size / len(splits["train"])
        splits["train"] = stratified_split(
            splits["train"], share=share, seed=arguments.split_seed, whole_groups=False
        )[1]
    return splits


def say_found(fingerprint: Mapping[str, Mapping[str, Any]], *, source: str) -> str:
    """Say in a line how many images were found, and whether validation is too small, see `LEAST_VALIDATION`.

    >>> say_found({split: {"n": n} for split, n in (("train", 60), ("validation", 4), ("test", 16))}, source="photos")
    '80 images of photos: train 60, validation 4, test 16; validation is too small to choose an epoch (100 would do)'
    """
    n = {split: fingerprint[split]["n"] for split in ("train", "validation", "test")}
    small = f"; validation is too small to choose an epoch ({LEAST_VALIDATION} would do)"
    splits = ", ".join(f"{split} {number:,}" for split, number in n.items())
    found = f"{sum(n.values()):,} images of {source}: {splits}"
    return found + (small if n["validation"] < LEAST_VALIDATION else "")


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The images of a training run."""

    images: DatasetDict  # the splits as data sets; without train if it is streamed
    # the shards of a streamed train split, with `buffer_size` images in its shuffle buffer
    stream: ShardedSplit | None = None
    buffer_size: int = 1
    # (n_train,) probabilities of a balanced draw; None to train on each image once in an epoch
    weights: NDArray[np.float64] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return size, class balance and digest of each split."""
        fingerprints = data_fingerprint(self.images)
        return {"train": self.stream.fingerprint(), **fingerprints} if self.stream is not None else fingerprints

    def leak_free(self) -> NDArray[np.bool_]:
        """Return a mask of the test images that occur in no other split, (n_test,)."""
        if self.stream is None:
            return leak_free_mask(self.images)
        test, validation = (self.images[split]["sha256"][:] for split in ("test", "validation"))
        return absent_from(test, chain(self.stream.column("sha256"), [validation]))

    def near_duplicate_free(self) -> NDArray[np.bool_] | None:
        """Return a mask of the test images without a near-duplicate in another split, (n_test,).

        It is None if train is streamed, or if all test images have one, such as images of a single colour.
        """
        if self.stream is not None:
            return None
        mask = near_duplicate_free_mask(self.images)
        return mask if mask.any() else None


def load_training_data(arguments: DataArguments) -> TrainingData:
    """Load all splits of a source; with `--streaming`, find the shards of the train split instead."""
    if not arguments.streaming:
        images = load_splits(arguments)
        if not arguments.balanced:
            return TrainingData(images)
        is_fake, groups = np.asarray(images["train"]["label"][:]) == FAKE, known_groups(images["train"])
        return TrainingData(images, weights=balanced_weights(arguments.balanced, is_fake, groups))
    shards = find_shards(arguments.data)
    missing = [split for split in ("train", "validation", "test") if split not in shards]
    if missing:
        raise ValueError(
            f"expected shards of train, validation and test; found none of {', '.join(missing)} in {arguments.data}. "
            "`python -m realfake_hf.data.shards --all_splits true` creates missing splits."
        )
    with PartialState().main_process_first():
        images = DatasetDict({split: shards[split].load() for split in ("validation", "test")})
    return TrainingData(images, shards["train"], arguments.buffer_size)


def input_sets(
    data: TrainingData, network: PreTrainedModel, processor: BaseImageProcessor, model: ModelArguments,
    run: RunArguments,
) -> dict[str, PixelDataset | StreamedPixels | FeatureDataset]:  # fmt: skip
    """Return the inputs of each split in batches: the features of a frozen tower, or else pixels."""
    if not isinstance(network, MultiViewForImageClassification):
        return {**pixel_sets(data, processor, run)}
    changes = run.robust_share or run.crop_padding or run.hidden_share or run.cutmix
    if data.stream is not None or model.teacher or changes:
        raise ValueError(
            "expected --model multiview without --streaming, --teacher, --robust_share, --crop_padding, "
            "--hidden_share and --cutmix; found one of them. Remove it; --delivered_copies and --compressed_copies "
            "change the training images."
        )
    cut = cast("MultiViewImageProcessor", processor)
    return {**feature_sets(data.images, network, cut, copies=model.copies, seed=run.seed)}


def pixel_sets(
    data: TrainingData, processor: BaseImageProcessor, run: RunArguments
) -> dict[str, PixelDataset | StreamedPixels]:
    """Return the pixels of each split in batches, with augmentation of the training split."""
    augment = run.augmentation()
    sets: dict[str, PixelDataset | StreamedPixels] = {
        split: PixelDataset(
            cached_pixels(rows, processor), rows["label"][:], augment=augment if split == "train" else None
        )
        for split, rows in data.images.items()
    }
    if data.stream is not None:
        sets["train"] = StreamedPixels(
            data.stream, processor, batch_size=run.train_batch_size, buffer_size=data.buffer_size,
            processes=run.world_size, process=run.process_index, workers=run.dataloader_num_workers,
            multiple=run.gradient_accumulation_steps, augment=augment, seed=run.seed,
        )  # fmt: skip
    return sets
