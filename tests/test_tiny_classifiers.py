"""The tiny classifiers cover every class of transformers."""

from itertools import chain

import numpy as np
import pytest
import torch
from tiny_classifiers import EXCLUDED, FAMILIES, pictures
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES


def test_every_class_of_transformers_is_tiny_or_excluded_for_a_reason():
    every = set(chain.from_iterable([value] if isinstance(value, str) else value for value in NAMES.values()))
    tiny = {family.model for family in FAMILIES.values()}
    assert not tiny & set(EXCLUDED)
    assert tiny | set(EXCLUDED) == every


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"pp_lcnet"}))
def test_a_tiny_classifier_tells_pictures_apart(name):
    family = FAMILIES[name]
    processor, model = family.image_processor(), family.build()
    with torch.inference_mode():
        logits = [model(**processor(image, return_tensors="pt")).logits.numpy() for image in pictures(2)]
    assert logits[0].shape == (1, 2)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
