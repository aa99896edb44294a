"""Attention maps equal those of slow references, for every image of a batch, and leave no trace in the model."""

import math
import weakref

import pytest
import torch
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from realfake_hf.attribution import attention
from realfake_hf.attribution.attention import (
    attention_rollout,
    fuse_heads,
    fuse_layer,
    gradient_rollout,
    patch_map,
    pool,
    relevance,
)
from realfake_hf.attribution.explain import FUNCTIONS, default_method
from realfake_hf.attribution.methods import ATTENTION_METHODS
from realfake_hf.labels import id2label, label2id

KINDS = {
    "vit": (ViTForImageClassification, ViTConfig),
    "deit": (DeiTForImageClassification, DeiTConfig),
    "distilled": (DeiTForImageClassificationWithTeacher, DeiTConfig),
}
EAGER = sorted(ATTENTION_METHODS - {"libragrad"})  # which replaces the attention function
FUSE = {"mean": lambda weights: sum(weights) / len(weights), "max": max, "min": min}


def build(kind="vit", *, seed=0, attention="eager", **settings):
    """A tiny transformer of 16 patches whose large random weights make its attention uneven."""
    torch.manual_seed(seed)
    model, config = KINDS[kind]
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    words = {"id2label": id2label(), "label2id": label2id(), "attn_implementation": attention}
    return model(config(image_size=32, patch_size=8, initializer_range=0.4, **shape, **words, **settings)).eval()


def pixels(n, *, seed=1):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def attentions_of(model, values):
    with torch.no_grad():
        return model(pixel_values=values, output_attentions=True).attentions


def weights_and_gradients(model, values):
    output = model(pixel_values=values, output_attentions=True)
    score = (output.logits[:, 1] - output.logits[:, 0]).sum()
    gradients = torch.autograd.grad(score, output.attentions)
    return [layer.detach() for layer in output.attentions], gradients


def random_attention(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(dim=-1)


def maps(method, model, values, target="predicted", **options):
    return FUNCTIONS[method](model, values, target, **options).values


def matrix_of(fold, *layers):
    """The rows of all output tokens: (batch, tokens, tokens)."""
    tokens = layers[0][0].shape[-1]
    return torch.cat([fold(*layers, pooling=row) for row in torch.eye(tokens)], dim=1)


def rollout_of(attentions, **options):
    return matrix_of(attention_rollout, [fuse_layer(layer, **options) for layer in attentions])


def plain_product(first, second):
    columns = list(zip(*second, strict=True))
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in first]


def plain_rollout(layers, *, head_fusion, discard_ratio):
    """The rollout of one image in lists: layers[layer][head][row][column]."""
    product = None
    for heads in layers:
        tokens = range(len(heads[0]))
        fused = [[FUSE[head_fusion]([head[i][j] for head in heads]) for j in tokens] for i in tokens]
        least = sorted(weight for row in fused for weight in row)[int(discard_ratio * len(tokens) ** 2)]
        layer = []
        for i, row in enumerate(fused):
            kept = [weight if weight >= least else 0.0 for weight in row]
            shares = [weight / sum(kept) if sum(kept) else float(i == j) for j, weight in enumerate(kept)]
            layer.append([0.5 * share + 0.5 * (i == j) for j, share in enumerate(shares)])
        product = layer if product is None else plain_product(layer, product)
    return product


@pytest.mark.parametrize("kind", ["vit", "deit"])
@pytest.mark.parametrize("head_fusion", FUSE)
@pytest.mark.parametrize("discard_ratio", [0.0, 0.4, 0.95])
def test_rollout_is_that_of_plain_python_for_every_image_of_a_batch(kind, head_fusion, discard_ratio):
    attentions = attentions_of(build(kind), pixels(3))
    found = rollout_of(attentions, head_fusion=head_fusion, discard_ratio=discard_ratio)
    assert found.dtype == torch.float32
    for image in range(3):
        layers = [layer[image].tolist() for layer in attentions]
        expected = plain_rollout(layers, head_fusion=head_fusion, discard_ratio=discard_ratio)
        torch.testing.assert_close(found[image], torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_the_map_of_a_model_is_the_class_tokens_row_of_its_rollout(kind):
    model, values = build(kind), pixels(2)
    matrix = rollout_of(attentions_of(model, values), head_fusion="max", discard_ratio=0.3)
    special = {"vit": 1, "deit": 2}[kind]
    expected = matrix[:, 0, special:].reshape(2, 4, 4)
    found = maps("rollout", model, values, head_fusion="max", discard_ratio=0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_last_attention_is_the_class_tokens_row_of_the_last_layer():
    model, values = build(), pixels(2)
    last = attentions_of(model, values)[-1]
    for fusion, fused in {"mean": last.mean(1), "max": last.amax(1), "min": last.amin(1)}.items():
        expected = fused[:, 0, 1:].reshape(2, 4, 4)
        torch.testing.assert_close(maps("last_attention", model, values, head_fusion=fusion), expected)


def slow_evidence(model, image, index):
    """Mean over heads of (dA * A)+ for each layer of one image, a head and a cell at a time."""
    output = model(pixel_values=image[None], output_attentions=True)
    score = output.logits[0, index] - output.logits[0, 1 - index]
    for layer in output.attentions:
        (gradient,) = torch.autograd.grad(score, layer, retain_graph=True)
        heads, tokens, _ = layer.shape[1:]
        evidence = torch.zeros(tokens, tokens)
        for head in range(heads):
            for i in range(tokens):
                for j in range(tokens):
                    evidence[i, j] += max(0.0, (gradient[0, head, i, j] * layer[0, head, i, j]).item()) / heads
        yield evidence


def slow_relevance(model, image, index):
    total = torch.eye(len(next(slow_evidence(model, image, index))))
    for evidence in slow_evidence(model, image, index):
        total = total + evidence @ total
    return total


def slow_gradient_rollout(model, image, index):
    total = torch.eye(len(next(slow_evidence(model, image, index))))
    for evidence in slow_evidence(model, image, index):
        mixed = evidence + torch.eye(len(evidence))
        total = torch.stack([row / row.sum() for row in mixed]) @ total
    return total


@pytest.mark.parametrize(("kind", "rows"), [("vit", 1), ("deit", 1), ("distilled", 2)])
@pytest.mark.parametrize("method", ["relevance", "gradient_rollout"])
def test_relevance_and_gradient_rollout_are_those_of_a_slow_reference(kind, rows, method):
    model, values = build(kind), pixels(2)
    slow = {"relevance": slow_relevance, "gradient_rollout": slow_gradient_rollout}[method]
    for index, target in enumerate(("REAL", "FAKE")):
        found = maps(method, model, values, target)
        for image, heat in zip(values, found, strict=True):
            expected = slow(model, image, index)[:rows, -16:].mean(dim=0).reshape(4, 4)
            torch.testing.assert_close(heat, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", sorted(ATTENTION_METHODS))
def test_a_batch_is_its_images(kind, method):
    model, values = build(kind), pixels(5)
    options = {"discard_ratio": 0.5} if method == "rollout" else {}
    one_by_one = torch.cat([maps(method, model, image[None], **options) for image in values])
    torch.testing.assert_close(maps(method, model, values, **options), one_by_one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head_fusion", FUSE)
@pytest.mark.parametrize("discard_ratio", [0.0, 0.5, 0.99])
def test_rows_of_rollouts_are_distributions(head_fusion, discard_ratio):
    layers = [random_attention(3, 4, 18, 18, seed=seed) for seed in range(5)]
    found = rollout_of(layers, head_fusion=head_fusion, discard_ratio=discard_ratio)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(3, 18))
    gradients = [torch.randn(layer.shape, generator=torch.Generator().manual_seed(0)) for layer in layers]
    torch.testing.assert_close(matrix_of(gradient_rollout, layers, gradients).sum(dim=-1), torch.ones(3, 18))


def test_weights_are_discarded_from_each_image_by_its_own_order():
    even, uneven = torch.full((1, 1, 4, 4), 0.25), random_attention(1, 1, 4, 4)
    together = rollout_of([torch.cat([uneven, even])], discard_ratio=0.5)
    assert torch.equal(together[1], rollout_of([even])[0])  # all tie with the lowest one kept
    kept = uneven.flatten().sort().values[8:]
    expected = torch.where(uneven >= kept[0], uneven, 0.0)[0, 0]
    sums = expected.sum(dim=1, keepdim=True)
    expected = torch.where(sums > 0, expected / sums, torch.eye(4))
    torch.testing.assert_close(together[0], (expected + torch.eye(4)) / 2)


def test_the_heads_of_one_layer_at_a_time_are_in_memory(monkeypatch):
    seen = []

    def watched(weights, **options):
        assert all(before() is None for before in seen)
        seen.append(weakref.ref(weights))
        return fuse_layer(weights, **options)

    monkeypatch.setattr(attention, "fuse_layer", watched)
    maps("rollout", build(), pixels(1))
    assert len(seen) == 3


@pytest.mark.parametrize("method", sorted(ATTENTION_METHODS))
def test_patches_that_swap_places_swap_their_heat(method):
    model, values = build(), pixels(2)
    model.vit.embeddings.position_embeddings.data.zero_()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    patches = values.unfold(2, 8, 8).unfold(3, 8, 8).reshape(2, 3, 16, 8, 8)[:, :, order]
    moved = patches.reshape(2, 3, 4, 4, 8, 8).transpose(3, 4).reshape(2, 3, 32, 32)
    options = {"discard_ratio": 0.5} if method == "rollout" else {}
    before, after = (maps(method, model, given, "FAKE", **options).flatten(1) for given in (values, moved))
    torch.testing.assert_close(after, before[:, order], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(before, after)


def test_relevance_tells_the_classes_apart_and_rollout_does_not_even_see_the_head():
    model, values = build(), pixels(4)
    fake, real = (maps("relevance", model, values, target) for target in ("FAKE", "REAL"))
    assert not torch.allclose(fake, real, rtol=0.1)
    rolled = [maps("rollout", model, values, target) for target in ("FAKE", "REAL", "predicted")]
    torch.nn.init.normal_(model.classifier.weight)
    rolled.append(maps("rollout", model, values))
    assert all(torch.equal(other, rolled[0]) for other in rolled[1:])
    assert not torch.allclose(maps("relevance", model, values, "FAKE"), fake, rtol=0.1)


@pytest.mark.parametrize("method", ["relevance", "gradient_rollout"])
def test_the_predicted_target_is_that_of_each_image(method):
    model, values = build(), pixels(12)
    with torch.no_grad():
        is_fake = model(pixel_values=values).logits.argmax(dim=1) == 1
    assert 0 < is_fake.sum() < 12
    fake, real = (maps(method, model, values, target) for target in ("FAKE", "REAL"))
    expected = torch.where(is_fake[:, None, None], fake, real)
    torch.testing.assert_close(maps(method, model, values), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["relevance", "gradient_rollout"])
def test_labels_in_the_other_order_are_understood_by_name(method):
    values = pixels(3)
    model = build()
    expected = maps(method, model, values, "REAL")
    model.config.id2label = {0: "synthetic", 1: "photo"}
    torch.testing.assert_close(maps(method, model, values, "FAKE"), expected)


def test_special_tokens_are_counted_and_not_assumed():
    matrix = torch.arange(2 * 8 * 8, dtype=torch.float32).reshape(2, 8, 8)
    row = pool(matrix, torch.eye(8)[0])
    assert torch.equal(patch_map(row, grid=(2, 3))[1], torch.tensor([[66.0, 67, 68], [69, 70, 71]]))
    assert torch.equal(patch_map(row, grid=(7, 1))[0].flatten(), torch.arange(1.0, 8))
    assert torch.equal(patch_map(row, grid=(2, 4))[0], torch.arange(8.0).reshape(2, 4))
    both = patch_map(pool(matrix, torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0])), grid=(3, 2))[0]
    assert torch.equal(both, torch.tensor([[6.0, 7], [8, 9], [10, 11]]))  # the mean of rows 2... and 10...


def test_the_map_of_a_distilled_deit_is_the_mean_of_what_its_two_heads_read():
    model, values = build("distilled"), pixels(2)
    matrix = rollout_of(attentions_of(model, values))
    expected = (matrix[:, 0, 2:] + matrix[:, 1, 2:]) / 2
    torch.testing.assert_close(maps("rollout", model, values).flatten(1), expected, rtol=0, atol=1e-6)


def test_a_grid_need_not_be_square():
    torch.manual_seed(0)
    model = build()
    config = model.config
    config.image_size, config.patch_size = (32, 16), (8, 4)
    wide = ViTForImageClassification(config).eval()
    assert maps("rollout", wide, torch.randn(2, 3, 32, 16)).shape == (2, 4, 4)
    config.patch_size = (4, 8)
    tall = ViTForImageClassification(config).eval()
    assert maps("relevance", tall, torch.randn(2, 3, 32, 16)).shape == (2, 8, 2)


def state_of(model):
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    hooks += [len(module._backward_hooks) + len(module._backward_pre_hooks) for module in model.modules()]
    weights = [(weight.grad, weight.requires_grad, weight.clone()) for weight in model.parameters()]
    return hooks, weights, model.training, model.config._attn_implementation


@pytest.mark.parametrize("method", sorted(ATTENTION_METHODS))
@pytest.mark.parametrize("frozen", [False, True])
def test_no_hooks_and_no_gradients_are_left_behind(method, frozen):
    model, values = build(), pixels(2)
    model.requires_grad_(not frozen)
    before = state_of(model)
    found = FUNCTIONS[method](model, values, "FAKE")
    assert not found.values.requires_grad
    assert not found.log_odds.requires_grad
    assert values.grad is None
    assert not values.requires_grad
    after = state_of(model)
    assert after[0] == before[0]
    assert after[2:] == before[2:]
    for (grad, requires_grad, weight), (_, required, was) in zip(after[1], before[1], strict=True):
        assert grad is None
        assert requires_grad == required == (not frozen)
        assert torch.equal(weight, was)


@pytest.mark.parametrize("method", sorted(ATTENTION_METHODS))
def test_hooks_are_removed_after_an_error_too(method):
    model = build()
    before = state_of(model)[0]
    with pytest.raises(ValueError, match="Input image size"):
        maps(method, model, torch.randn(1, 3, 40, 40))
    assert state_of(model)[0] == before


NO_WEIGHTS = "attention weights of at least one layer.*attn_implementation='eager'"


@pytest.mark.parametrize(
    "fold",
    [
        lambda none: attention_rollout(none, pooling=torch.ones(1)),
        lambda none: relevance(none, (), pooling=torch.ones(1)),
        lambda none: gradient_rollout(none, (), pooling=torch.ones(1)),
    ],
)
def test_an_empty_tuple_of_attentions_is_refused_with_the_reason(fold):
    with pytest.raises(ValueError, match=NO_WEIGHTS):
        fold(attentions_of(build(attention="sdpa"), pixels(1)))


@pytest.mark.parametrize("method", EAGER)
def test_a_model_with_scaled_dot_product_attention_is_refused_with_the_reason(method):
    with pytest.raises(ValueError, match=NO_WEIGHTS):
        maps(method, build(attention="sdpa"), pixels(1))


def test_an_unknown_fusion_and_a_ratio_out_of_range_are_refused():
    layer = random_attention(1, 2, 5, 5)
    with pytest.raises(ValueError, match="head_fusion of mean, max, min; found 'median'"):
        fuse_layer(layer, head_fusion="median")
    for ratio in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=rf"discard_ratio in \[0, 1\); found {ratio}"):
            fuse_layer(layer, discard_ratio=ratio)
    with pytest.raises(ValueError, match="expected a head_fusion"):
        fuse_heads(layer, head_fusion="")


def test_windowed_attention_is_refused():
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
    model = SwinForImageClassification(SwinConfig(**shape, window_size=4, id2label=id2label())).eval()
    with pytest.raises(ValueError, match="SwinForImageClassification: its attention stays inside windows"):
        maps("rollout", model, pixels(1))


def build_beit(**settings):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    words = {"id2label": id2label(), "label2id": label2id(), "attn_implementation": "eager"}
    return BeitForImageClassification(BeitConfig(image_size=32, patch_size=8, **shape, **words, **settings)).eval()


@pytest.mark.parametrize("method", ["rollout", "last_attention", "relevance", "gradient_rollout"])
def test_a_classifier_that_pools_its_patches_has_the_mean_of_their_maps(method):
    model, values = build_beit(), pixels(2)
    found = maps(method, model, values, "FAKE")
    weights, gradients = weights_and_gradients(model, values)
    matrix = {
        "rollout": lambda: rollout_of(weights),
        "last_attention": lambda: weights[-1].mean(dim=1),
        "relevance": lambda: matrix_of(relevance, weights, gradients),
        "gradient_rollout": lambda: matrix_of(gradient_rollout, weights, gradients),
    }[method]()
    torch.testing.assert_close(found, matrix[:, 1:, 1:].mean(dim=1).reshape(2, 4, 4), rtol=1e-4, atol=1e-7)
    assert not torch.allclose(found, maps(method, build_beit(use_mean_pooling=False), values, "FAKE"), rtol=0.01)


def test_the_default_method_is_relevance_whether_a_class_token_or_patches_are_read():
    assert default_method(build()) == "relevance"
    assert default_method(build_beit(use_mean_pooling=False)) == "relevance"
    assert default_method(build_beit()) == "relevance"


@pytest.mark.parametrize("read", [[0], [0, 1], [2], [0, 1, 2, 3, 4]])
def test_a_pooled_row_is_the_weighted_sum_of_those_of_the_whole_matrix(read):
    layers = [random_attention(3, 2, 5, 5, seed=seed) for seed in range(4)]
    gradients = [torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(4, 8)]
    weights = torch.zeros(5)
    weights[read] = torch.rand(len(read), generator=torch.Generator().manual_seed(0)) + 0.1
    fused = [fuse_layer(layer, head_fusion="max", discard_ratio=0.3) for layer in layers]
    for fold, *given in (
        (attention_rollout, fused),
        (relevance, layers, gradients),
        (gradient_rollout, layers, gradients),
    ):
        matrices = matrix_of(fold, *given)
        expected = torch.stack([sum(w * row for w, row in zip(weights, rows, strict=True)) for rows in matrices])
        torch.testing.assert_close(fold(*given, pooling=weights), expected[:, None])


def test_the_row_of_a_class_token_is_that_of_a_product_of_leading_rows_to_the_last_bit():
    layers = [random_attention(3, 17, 17, seed=seed) for seed in range(12)]
    expected = 0.5 * (torch.eye(17)[:1] + layers[-1][:, :1])
    for weights in layers[-2::-1]:
        expected = torch.baddbmm(expected, expected, weights, beta=0.5, alpha=0.5)
    assert torch.equal(attention_rollout(layers, pooling=torch.eye(17)[0]), expected)
