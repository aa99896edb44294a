"""Norms and attention of tokens are those of the model, and a planted outlier is found and taken out of maps."""

import numpy as np
import pytest
import torch
from study_models import is_plain_json, noise, stripe_finder, tiny_vit
from test_attention import attentions_of, build, pixels
from tiny_classifiers import FAMILIES

from realfake_hf.attribution.tokens import Tokens, trace_tokens
from realfake_hf.explain_study.sinks import measure_sinks, without_outliers
from realfake_hf.metrics.significance import holm

PLANTED = 6  # token: the patch in row 1, column 1


def plant(model, *, block=1, factor=50):
    """Let a block of a ViT return a patch of large norm."""

    def enlarge(_module, _inputs, output):
        scale = torch.ones(output.shape[1], 1)
        scale[PLANTED] = factor
        return output * scale

    model.vit.layers[block].register_forward_hook(enlarge)
    return model


def test_norms_and_attention_are_those_that_the_model_returns():
    model, values = build(attention="sdpa"), pixels(3)
    found = trace_tokens(model, values)
    with torch.no_grad():
        states = model(pixel_values=values, output_hidden_states=True).hidden_states[1:]
    torch.testing.assert_close(found.norms, torch.stack([each.norm(dim=-1) for each in states]))
    expected = torch.stack([each.mean(dim=1).mean(dim=1) for each in attentions_of(build(), values)])
    torch.testing.assert_close(found.received, expected)
    torch.testing.assert_close(found.received.sum(dim=-1), torch.ones(3, 3))
    assert (found.special, found.grid, model.config._attn_implementation) == (1, (4, 4), "sdpa")


def test_a_planted_large_token_is_an_outlier_from_its_block_on():
    found = trace_tokens(plant(build()), pixels(3)).is_outlier
    assert found.shape == (3, 3, 17)
    assert not found[0].any()
    assert found[1:].nonzero()[:, 2].tolist() == [PLANTED] * 6


def test_an_outlier_is_relative_to_the_patches_of_its_image_and_no_special_token_is_one():
    norms = torch.ones(1, 2, 9)
    norms[0, 0, 0], norms[0, 0, 3], norms[0, 0, 4] = 100.0, 4.0, 4.1
    norms[0, 1] = 5.0
    assert Tokens(norms, norms, (2, 4)).is_outlier.nonzero().tolist() == [[0, 0, 4]]


def test_a_model_without_attention_between_all_tokens_is_refused():
    with pytest.raises(ValueError, match="Swin"):
        trace_tokens(FAMILIES["swin"].build(), pixels(1))


def test_outliers_get_the_median_of_the_other_cells():
    maps = np.arange(8.0).reshape(2, 2, 2)
    outlier = np.zeros((2, 2, 2), dtype=bool)
    outlier[0, 1, 1] = True
    np.testing.assert_array_equal(without_outliers(maps, outlier), [[[0, 1], [2, 1]], [[4, 5], [6, 7]]])


@pytest.fixture(scope="module")
def measured():
    vit = tiny_vit("rollout", "relevance", "grad_cam")
    plant(vit.detector.model)
    return measure_sinks([stripe_finder(), vit], noise(), samples=50)


def test_a_model_without_attention_is_skipped_with_a_reason(measured):
    assert measured["models"]["cnn"] == {"skipped": "none of its layers returns attention weights"}
    assert is_plain_json(measured)


def test_outliers_are_counted_by_block(measured):
    first, *later = measured["models"]["vit"]["blocks"]
    assert (first["outliers"]["value"], first["attention"]["outliers"]["value"]) == (0, None)
    for block in later:
        assert block["outliers"]["value"] == 1 / 16
        assert block["largest_ratio"] > 4
        assert block["median"]["value"] <= block["p99"]["value"] <= block["largest"]["value"]
        attention = {kind: each["value"] for kind, each in block["attention"].items()}
        total = attention["special"] + attention["outliers"] + 15 * attention["rest"]
        assert total == pytest.approx(17, rel=1e-4)  # one per token, if uniform


def test_maps_of_attention_are_compared_with_those_without_outliers(measured):
    vit = measured["models"]["vit"]
    assert vit["late"] == 6
    assert list(vit["maps"]) == ["rollout", "relevance"]
    for row in vit["maps"].values():
        assert row["spearman"]["n"] + row["spearman"]["undefined"] == 6
        assert row["iou_top_20"]["value"] <= 1
    excess = [row["excess"] for row in vit["maps"].values()]
    assert [each["p_holm"] for each in excess] == holm([each["p_value"] for each in excess])
    assert all(each["value"] != 0 for each in excess)


def test_without_outliers_there_is_nothing_to_compare():
    [vit] = measure_sinks([tiny_vit("rollout")], noise(), samples=5)["models"].values()
    assert (vit["late"], vit["maps"]) == (0, {})
    assert all(block["largest_ratio"] <= 4 for block in vit["blocks"])
