"""LeGrad and LibraGrad equal plain references on a model with random weights, and keep their laws on others."""

import pytest
import torch
from test_attention import build, pixels
from tiny_classifiers import FAMILIES

from realfake_hf.attribution.explain import FUNCTIONS, explain
from realfake_hf.attribution.layout import block_of, layout_of
from realfake_hf.attribution.libragrad import contributions

BACKBONES = ["vit", "deit", "dinov2", "clip"]


def split_heads(model, states):
    """(batch, tokens, width) to (batch, heads, tokens, width of a head)."""
    return states.unflatten(-1, (model.config.num_attention_heads, -1)).transpose(1, 2)


def attend(model, layer, states):
    """Attention weights and values of a layer of a ViT."""
    normed, attention = layer.layernorm_before(states), layer.attention
    query, key, value = (
        split_heads(model, project(normed)) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return (query @ key.transpose(2, 3) / key.shape[-1] ** 0.5).softmax(dim=-1), value


def slow_legrad(model, image, sign):
    """The map of one image, a layer at a time."""
    states, heat = model.vit.embeddings(image[None]), 0
    for layer in model.vit.layers:
        states = states.detach()
        weights, value = (each.detach() for each in attend(model, layer, states))
        mixed = (weights.requires_grad_() @ value).transpose(1, 2).flatten(2)
        states = states + layer.attention.o_proj(mixed)
        states = states + layer.mlp(layer.layernorm_after(states))
        logits = model.classifier(model.vit.layernorm(states)[:, 0])[0]
        (gradient,) = torch.autograd.grad(sign * (logits[1] - logits[0]), weights)
        heat = heat + gradient[0].clamp_min(0).mean(dim=(0, 1)) / len(model.vit.layers)
    return heat[1:].reshape(4, 4)


@pytest.mark.parametrize(("target", "sign"), [("FAKE", 1), ("REAL", -1)])
def test_legrad_is_that_of_a_plain_reference(target, sign):
    model, values = build(), pixels(3)
    found = FUNCTIONS["legrad"](model, values, target)
    expected = torch.stack([slow_legrad(model, image, sign) for image in values])
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-7)


def affine_score(model, layers, states, *, biases):
    """The log-odds of a ViT whose steps are affine with the given constants, (batch,); without biases it is linear.

    `layers` holds for each layer the attention weights and the scales of norms and ratios of the activation.
    """

    def linear(module, values, bias=True):
        return values @ module.weight.T + (module.bias if biases and bias else 0)

    def norm(module, values, scale):
        return (values - values.mean(dim=-1, keepdim=True)) * scale * module.weight + (module.bias if biases else 0)

    for layer, (weights, first, second, ratios) in zip(model.vit.layers, layers["blocks"], strict=True):
        value = split_heads(model, linear(layer.attention.v_proj, norm(layer.layernorm_before, states, first)))
        states = states + linear(layer.attention.o_proj, (weights @ value).transpose(1, 2).flatten(2))
        hidden = linear(layer.mlp.fc1, norm(layer.layernorm_after, states, second)) * ratios
        states = states + linear(layer.mlp.fc2, hidden)
    logits = linear(model.classifier, norm(model.vit.layernorm, states, layers["last"])[:, 0])
    return logits[:, 1] - logits[:, 0]


def scale_of(norm, values):
    return (values.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()


def constants_of(model, states):
    """The constants of `affine_score` at these states."""
    blocks = []
    for layer in model.vit.layers:
        weights, value = attend(model, layer, states)
        first = scale_of(layer.layernorm_before, states)
        states = states + layer.attention.o_proj((weights @ value).transpose(1, 2).flatten(2))
        hidden = layer.mlp.fc1(layer.layernorm_after(states))
        blocks.append(
            (weights, first, scale_of(layer.layernorm_after, states), layer.mlp.activation_fn(hidden) / hidden)
        )
        states = states + layer.mlp.fc2(layer.mlp.activation_fn(hidden))
    return {"blocks": blocks, "last": scale_of(model.vit.layernorm, states)}


def test_contributions_of_states_are_those_of_a_model_with_affine_steps():
    model, values = build(), pixels(3)
    for name, weight in model.named_parameters():
        weight.data = torch.zeros_like(weight) if "bias" in name and "embeddings" not in name else weight.data
    with torch.no_grad():
        states = model.vit.embeddings(values)
        layers = constants_of(model, states)
        alone = torch.eye(17)[:, None, :, None] * states  # (17, batch, tokens, width), one token each
        expected = torch.stack([affine_score(model, layers, only, biases=True) for only in alone], dim=1)
    at_tokens, elsewhere, odds = contributions(model, values, first="vit.layers.0.attention")
    torch.testing.assert_close(at_tokens, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(expected.sum(dim=1), odds, rtol=1e-3, atol=1e-5)
    assert not elsewhere.any()


def test_contributions_of_biases_are_what_they_add_to_a_model_with_affine_steps():
    model, values = build(), pixels(3)
    for name, weight in model.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(weight)
    with torch.no_grad():
        states = model.vit.embeddings(values)
        layers = constants_of(model, states)
        without = affine_score(model, layers, torch.zeros_like(states), biases=False)
        added = affine_score(model, layers, torch.zeros_like(states), biases=True) - without
        alone = torch.eye(17)[:, None, :, None] * states
        of_states = torch.stack([affine_score(model, layers, only, biases=False) for only in alone], dim=1)
    at_tokens, elsewhere, _ = contributions(model, values, first="vit.layers.0.attention")
    torch.testing.assert_close((at_tokens - of_states).sum(dim=1) + elsewhere, added, rtol=1e-3, atol=1e-4)
    assert elsewhere[0] != 0
    torch.testing.assert_close(elsewhere, elsewhere[:1].expand(3), rtol=0, atol=1e-6)  # the classifier's, in any image


@pytest.mark.parametrize("name", BACKBONES)
def test_contributions_sum_to_the_log_odds(name):
    model, values = FAMILIES[name].build(), pixels(4)
    at_tokens, elsewhere, odds = contributions(model, values, first=layout_of(model, values).attention[0])
    with torch.no_grad():
        logits = model(pixel_values=values).logits
    torch.testing.assert_close(odds, logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(at_tokens.sum(dim=1) + elsewhere, odds, rtol=1e-3, atol=1e-4)
    assert odds.abs().min() > 1e-3


@pytest.mark.parametrize("target", ["FAKE", "REAL"])
def test_evidence_for_one_label_is_evidence_against_the_other(target):
    model, values = build(), pixels(3)
    at_tokens, _, _ = contributions(model, values, first="vit.layers.0.attention")
    sign = 1 if target == "FAKE" else -1
    expected = (sign * at_tokens[:, 1:]).clamp_min(0).reshape(3, 4, 4)
    torch.testing.assert_close(FUNCTIONS["libragrad"](model, values, target).values, expected)


def test_a_model_with_a_step_that_is_not_affine_is_refused_by_libragrad():
    model = build()
    model.vit.layernorm.register_forward_hook(lambda _module, _inputs, output: output * output.sigmoid())
    with pytest.raises(ValueError, match=r"affine.*found ViTForImageClassification.*legrad"):
        explain(model, pixels(2), method="libragrad")
    assert model.config._attn_implementation == "eager"


def test_the_block_of_a_layer_is_the_outermost_member_of_a_list():
    model = build()
    assert block_of(model, "vit.layers.1.attention") is model.vit.layers[1]


def test_blocks_compute_again_after_legrad():
    model, values = build(), pixels(2)
    model.vit.layers[1].forward = model.vit.layers[1].forward  # as by a patched block
    with torch.no_grad():
        before = model(pixel_values=values).logits
        FUNCTIONS["legrad"](model, values, "FAKE")
        assert torch.equal(model(pixel_values=values).logits, before)
    assert ["forward" in vars(layer) for layer in model.vit.layers] == [False, True, False]
