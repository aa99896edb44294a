import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import (
    AutoModelForImageClassification,
    CLIPConfig,
    CLIPForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    pipeline,
)

from realfake_hf.models.deit import deit_from_vit
from realfake_hf.models.deit import main as deit_main
from realfake_hf.models.pretrained import (
    is_resizable,
    resize_model,
    resize_patch_kernel,
    resize_positions,
)

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}


def vit(image_size=32, patch_size=8, **settings):
    torch.manual_seed(0)
    config = ViTConfig(image_size=image_size, patch_size=patch_size, **SMALL, **settings)
    return ViTForImageClassification(config).eval()


def pixels(size, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def enlarged(patches, size):
    return functional.interpolate(patches, (size, size), mode="bilinear", antialias=True)


@pytest.mark.parametrize(("old", "new"), [(4, 8), (4, 7), (8, 16), (3, 4)])
def test_the_resized_kernel_on_an_enlarged_patch_gives_what_the_kernel_gave_on_the_patch(old, new):
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(5, 3, old, old, generator=generator, dtype=torch.float64)
    patches = torch.randn(7, 3, old, old, generator=generator, dtype=torch.float64)
    before = torch.einsum("kchw,nchw->nk", kernel, patches)
    after = torch.einsum("kchw,nchw->nk", resize_patch_kernel(kernel, new), enlarged(patches, new))
    torch.testing.assert_close(after, before)


def test_a_kernel_for_smaller_patches_is_the_least_squares_answer():
    kernel = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    shrunk = enlarged(basis, 4).flatten(1)  # (64, 16): every pixel's patch, made smaller
    expected = torch.linalg.lstsq(shrunk, kernel.flatten(1).T).solution.T.view(2, 1, 4, 4)
    torch.testing.assert_close(resize_patch_kernel(kernel, 4), expected)


@pytest.mark.parametrize("size", [11, 16])
def test_a_larger_kernel_answers_an_even_patch_as_before(size):
    kernel = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(resize_patch_kernel(kernel, size).sum((2, 3)), kernel.sum((2, 3)))


def test_the_same_size_changes_nothing():
    kernel, table = torch.randn(4, 3, 8, 8), torch.randn(1, 17, 24)
    assert resize_patch_kernel(kernel, 8) is kernel
    assert resize_positions(table, old_grid=4, grid=4) is table
    model = vit()
    same = resize_model(model, image_size=32, patch_size=8)
    assert same is not model
    assert torch.equal(same(pixel_values=pixels(32)).logits, model(pixel_values=pixels(32)).logits)


@pytest.mark.parametrize("special", [1, 2])
def test_special_tokens_keep_their_positions_and_the_grid_is_resized(special):
    table = torch.randn(1, special + 16, 24, generator=torch.Generator().manual_seed(0))
    resized = resize_positions(table, old_grid=4, grid=6)
    assert resized.shape == (1, special + 36, 24)
    assert torch.equal(resized[:, :special], table[:, :special])
    back = resize_positions(torch.full((1, special + 16, 24), 0.5), old_grid=4, grid=6)
    torch.testing.assert_close(back, torch.full_like(back, 0.5))


def test_positions_keep_their_order_on_the_grid():
    rows = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1)  # each position says its row
    resized = resize_positions(torch.cat([torch.zeros(1, 1, 1), rows], dim=1), old_grid=4, grid=8)
    grid = resized[0, 1:, 0].view(8, 8)
    assert torch.all(grid.diff(dim=0) >= -0.2)
    assert grid[-1, 0] - grid[0, 0] > 2.5
    torch.testing.assert_close(grid, grid[:, :1].expand(8, 8))


@pytest.mark.parametrize(("image_size", "patch_size"), [(64, 16), (64, 8), (16, 4), (24, 8)])
def test_a_fitted_model_takes_images_of_its_new_size(image_size, patch_size):
    fitted = resize_model(vit(), image_size=image_size, patch_size=patch_size)
    assert (fitted.config.image_size, fitted.config.patch_size) == (image_size, patch_size)
    outputs = fitted(pixel_values=pixels(image_size), output_hidden_states=True)
    assert outputs.hidden_states[0].shape[1] == (image_size // patch_size) ** 2 + 1


def clip(image_size=32, patch_size=4):
    torch.manual_seed(0)
    tower = {**SMALL, "image_size": image_size, "patch_size": patch_size}
    return CLIPForImageClassification(CLIPConfig(vision_config=tower)).eval()


@pytest.mark.parametrize("make", [vit, clip])
def test_a_model_for_enlarged_images_sees_what_the_model_saw(make):
    model = make(image_size=32, patch_size=4)
    fitted = resize_model(model, image_size=64, patch_size=8)
    patches = pixels(32).unfold(2, 4, 4).unfold(3, 4, 4)  # (2, 3, 8, 8, 4, 4): each patch is enlarged by itself
    larger = enlarged(patches.reshape(-1, 1, 4, 4), 8).view(2, 3, 8, 8, 8, 8).permute(0, 1, 2, 4, 3, 5)
    seen = fitted(pixel_values=larger.reshape(2, 3, 64, 64)).logits
    torch.testing.assert_close(seen, model(pixel_values=pixels(32)).logits, atol=1e-5, rtol=1e-4)


def test_patches_that_do_not_divide_the_image_are_refused():
    with pytest.raises(ValueError, match=r"found 30 and 8 pixels.*--image_size 24"):
        resize_model(vit(), image_size=30)


def test_weights_that_are_elsewhere_cannot_be_fitted():
    with pytest.raises(ValueError, match="found them in the first process only"):
        resize_model(vit().to("meta"), image_size=64)


def test_deit_dinov2_and_clip_can_be_fitted_and_convnext_cannot():
    deit = DeiTForImageClassification(DeiTConfig(image_size=32, patch_size=8, **SMALL))
    dino = Dinov2ForImageClassification(
        Dinov2Config(image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=3)
    )
    for model in (deit, dino, clip(patch_size=8)):
        assert is_resizable(model)
        fitted = resize_model(model, image_size=16, patch_size=4).eval()
        assert fitted(pixel_values=pixels(16)).logits.shape == (2, 2)
    assert not is_resizable(
        ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2))
    )


def test_a_fitted_model_is_an_ordinary_one_that_the_pipeline_loads(tmp_path):
    fitted = resize_model(vit(), image_size=16, patch_size=4)
    fitted.save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(again(pixel_values=pixels(16)).logits, fitted(pixel_values=pixels(16)).logits)
    classify = pipeline("image-classification", model=str(tmp_path))
    assert len(classify(Image.new("RGB", (40, 30), "teal"))) == 2


def test_a_deit_of_a_vits_weights_has_its_layers_and_two_equal_heads():
    model = vit()
    deit = deit_from_vit(model).eval()
    outputs = deit(pixel_values=pixels(32))
    torch.testing.assert_close(outputs.cls_logits, outputs.distillation_logits)  # both tokens start alike
    for name, value in model.vit.layers.state_dict().items():
        assert torch.equal(deit.deit.layers.state_dict()[name], value)
    assert torch.equal(deit.deit.embeddings.position_embeddings[:, 1:], model.vit.embeddings.position_embeddings)


def test_a_deit_whose_second_token_nobody_reads_answers_as_the_vit():
    model = vit(attn_implementation="eager")
    deit = deit_from_vit(model).eval()
    keep = torch.ones(18).bool()
    keep[1] = False  # the distillation token, hidden from the others
    mask = torch.zeros(1, 1, 18, 18).masked_fill(~keep, float("-inf"))
    answered = deit(pixel_values=pixels(32), attention_mask=mask).cls_logits
    torch.testing.assert_close(answered, model(pixel_values=pixels(32)).logits)


def test_a_deit_is_saved_with_the_processor_of_the_vit_and_only_a_vit_is_converted(tmp_path, capsys):
    vit().save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    assert deit_main(["--vit", str(tmp_path / "vit"), "--output_dir", str(tmp_path / "deit")]) == 0
    assert (
        type(AutoModelForImageClassification.from_pretrained(tmp_path / "deit"))
        is DeiTForImageClassificationWithTeacher
    )
    assert (tmp_path / "deit/preprocessor_config.json").is_file()
    assert deit_main(["--vit", str(tmp_path / "deit"), "--output_dir", str(tmp_path / "again")]) == 1
    assert "expected a ViT classifier; found a deit" in capsys.readouterr().err
