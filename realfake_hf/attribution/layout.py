"""Where the cells of an image lie in a model, found by running it on one image, not from names or configurations."""

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Grid = tuple[int, int]

MAX_SPECIAL: Final = 16  # class, distillation and register tokens in a sequence; DINOv3 has 5
_IMAGE_SIZE: Final = 224  # pixels, for models that take any size
_layouts: WeakKeyDictionary[nn.Module, dict[object, "Layout"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layout:
    """Where a model keeps the cells of images of one size."""

    layers: Mapping[str, Grid]  # by name, height and width of the grid in what each layer returns, for layers with one
    last: str | None  # the layer that Grad-CAM reads by default; see `maps.default_layer`. None if there is none
    # names of the layers that return attention weights, from first to last; none after those in `read`
    attention: tuple[str, ...]
    refusal: str | None  # why these weights cannot be combined into one matrix, or None if they can
    # (tokens,) weights of the last tokens in what the classifier reads, summing to 1; empty if refused
    pooling: Tensor = field(default_factory=lambda: torch.empty(0))
    # numbers of the attention layers after which it reads tokens with these weights, 1 for the first: the last one, or
    # the `feature_layers` of the model
    read: tuple[int, ...] = ()
    grid: Grid = (0, 0)  # height and width of the patches among these tokens, which special tokens precede


def layout_of(model: PreTrainedModel, pixel_values: Tensor | None = None) -> Layout:
    """Return the layout of a model in eval mode for images of one size; by default, of the size in the config.

    It takes two forward passes and one backward pass of one image, once per model and size. Of the pixel values,
    (batch, channels, height, width), the first image is used.
    """
    check_input(model)
    image = example_image(model) if pixel_values is None else pixel_values[:1].detach()
    kept = _layouts.setdefault(model, {})
    key = image.shape, image.device, tuple(name for name, _ in model.named_modules())
    if key not in kept:
        kept[key] = _find(model, image)
    return kept[key]


def check_input(model: PreTrainedModel) -> None:
    """Check that a model predicts from pixel values alone.

    Raises:
        ValueError: it does not, as ImageGPT and SigLIP 2 of variable resolution.
    """
    needed = inspect.signature(model.forward).parameters.keys()
    if "pixel_values" not in needed or "spatial_shapes" in needed:
        raise ValueError(
            "expected a model that predicts from pixel_values (batch, channels, height, width); found "
            f"{class_name(model)}, whose images are sequences. Explain a model of fixed image size."
        )


def class_name(model: nn.Module) -> str:
    """Return the class of a model to name in messages; a part of a model names that of the whole as `known_as`."""
    return str(getattr(model, "known_as", type(model).__name__))


@contextmanager
def attention_function(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Switch a model temporarily to a registered attention function, such as "eager", if its class can switch."""
    configs = {"": model.config, **{name: getattr(model.config, name) for name in model.config.sub_configs}}
    used = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]  # no text tower
    before = {name: each._attn_implementation for name, each in configs.items() if any(each is one for one in used)}
    model.set_attn_implementation(dict.fromkeys(before, name))
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attention_options(model: PreTrainedModel) -> dict[str, bool]:
    """Return the arguments with which the layers of a model return their attention weights; most need none."""
    if model.config.model_type == "timm_wrapper":  # takes the argument only to refuse it
        return {}
    named = "output_attentions" in inspect.signature(model.forward).parameters
    return {"output_attentions": True} if named else {}


def read_cells(output: Tensor, grid: Grid) -> Tensor:
    """Return the cells in the output of a layer, which are (batch, channels, grid_h, grid_w).

    The output is these cells, or (batch, special + grid_h * grid_w, channels).
    """
    if output.ndim == 4:  # noqa: PLR2004
        return output
    return output[:, -math.prod(grid) :].transpose(1, 2).reshape(len(output), -1, *grid)


def replace_cells(output: Tensor, cells: Tensor) -> Tensor:
    """Return the output of a layer with other cells."""
    if output.ndim == 4:  # noqa: PLR2004
        return cells
    special = output[:, : output.shape[1] - cells.shape[2] * cells.shape[3]]
    return torch.cat([special, cells.flatten(2).transpose(1, 2)], dim=1)


def first_tensor(output: object) -> Tensor | None:
    """Return what a layer returned, or the first of several, if it is a tensor, else None."""
    match output:
        case (Tensor() as first, *_):
            return first
    return output if isinstance(output, Tensor) else None


def with_first_tensor(output: object, tensor: Tensor) -> object:
    """Return what a layer returned with another tensor in place of `first_tensor`."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


def block_of(model: nn.Module, layer: str) -> nn.Module:
    """Return the outermost module around a layer that is in a list of modules."""
    path = [model, *(model.get_submodule(name) for name in accumulate(layer.split("."), "{}.{}".format))]
    return next(inner for outer, inner in pairwise(path) if isinstance(outer, nn.ModuleList))


def attention_weights(output: object) -> Tensor | None:
    """Return the attention weights in what a layer returned, (..., tokens, tokens), or None."""
    match output:
        case (Tensor(), Tensor() as weights, *_) if weights.ndim >= 4:  # noqa: PLR2004
            return weights
    return None


@dataclass(eq=False)
class _Step:
    """The output of one layer, or of several if they return the same tensor."""

    name: str  # of the outermost layer
    grid: Grid  # height and width of its cells, (0, 0) without any
    has_parameters: bool  # whether the innermost layer has any
    # (cells,) norm of the gradient of the prediction with respect to each cell or token; empty without one
    effect: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def has_effect(self) -> bool:
        """Whether at least two cells affect the prediction."""
        return int((self.effect[-math.prod(self.grid) :] != 0).sum()) > 1


@dataclass
class _Trace:
    """The steps of a forward pass and, once gradients were computed, the step before the last attention in use."""

    steps: list[_Step] = field(default_factory=list)
    layers: dict[str, Grid] = field(default_factory=dict)
    before_attention: _Step | None = None
    began: dict[nn.Module, _Step] = field(default_factory=dict)  # by attention layer, the step before it
    _grids: set[Grid] = field(default_factory=set)
    _previous: Tensor | None = None

    def add(self, name: str, module: nn.Module, returned: object) -> None:
        """Record what a layer returned."""
        output = first_tensor(returned)
        if output is None:
            return
        if module in self.began and output.requires_grad:
            output.register_hook(partial(self._is_used, self.began[module]))  # type: ignore[no-untyped-call]
        if isinstance(module, nn.Conv2d) and len(output) == 1:
            self._grids.add((output.shape[2], output.shape[3]))
        grid = _grid(output.shape, self._grids)
        if grid:
            self._grids.add(grid)
            self.layers[name] = grid
        if output is self._previous:
            self.steps[-1].name = name
            return
        self._previous = output
        step = _Step(name, grid or (0, 0), any(True for _ in module.parameters()))
        self.steps.append(step)
        if grid and output.requires_grad:
            output.register_hook(partial(_note, step))  # type: ignore[no-untyped-call]

    def begin(self, module: nn.Module, _inputs: object) -> None:
        """Record that a layer begins."""
        if type(module).__name__.endswith("Attention") and self.steps:
            self.began[module] = self.steps[-1]

    def _is_used(self, step: _Step, _gradient: Tensor) -> None:
        self.before_attention = self.before_attention or step  # the last attention has the first gradient


def _note(step: _Step, gradient: Tensor) -> None:
    step.effect = gradient[0].float().norm(dim=-1 if gradient.ndim == 3 else 0).flatten()  # noqa: PLR2004


def _find(model: PreTrainedModel, image: Tensor) -> Layout:
    with attention_function(model, "eager"):
        shapes = _attention_shapes(model, image)
        is_eager = model.config._attn_implementation == "eager"
    trace = _run(model, image)
    read = tuple(getattr(model, "feature_layers", (len(shapes),)))
    attention = tuple(shapes)[: max(read)]
    refusal = _why_not_combined(list(shapes.values()), is_eager=is_eager)
    before = trace.before_attention
    if len(read) > 1:  # what all features depend on is before the first of these layers
        before = trace.began[model.get_submodule(attention[min(read) - 1])]
    layout = Layout(
        layers=trace.layers,
        last=_last_layer([step for step in trace.steps if step.has_effect], before),
        attention=attention,
        refusal=refusal,
    )
    if refusal:
        return layout
    tokens = next(iter(shapes.values()))[-1]
    pooled = [step for step in trace.steps if len(step.effect) == tokens and step.effect.any()]
    if not pooled:
        return replace(layout, refusal="its tokens do not lie on a grid")
    effect = pooled[-1].effect
    return replace(layout, pooling=effect / effect.sum(), read=read, grid=pooled[-1].grid)


def _attention_shapes(model: PreTrainedModel, image: Tensor) -> dict[str, torch.Size]:
    """Return the shape of the attention weights of each layer that returns some."""
    shapes: dict[str, torch.Size] = {}
    previous: Tensor | None = None

    def record(name: str, _module: nn.Module, output: object) -> None:
        nonlocal previous
        weights = attention_weights(output)
        if weights is None or weights is previous:  # a layer may return the weights of the layer inside it
            return
        sums = weights.float().sum(dim=-1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=0.02):  # bfloat16
            return
        previous = weights
        shapes[name] = weights.shape

    with _on_each_module(model, record), torch.no_grad():
        model(pixel_values=image, **attention_options(model))
    return shapes


def _run(model: PreTrainedModel, image: Tensor) -> _Trace:
    """Trace a forward pass, and the backward pass from what the classifier reads.

    That is the input of its first linear layer, or of its `view_head`, where the gradient becomes random signs: the
    weights of the classifier do not matter, and concatenated inputs count equally.
    """
    trace = _Trace()
    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(trace.begin).remove)
            if isinstance(module, nn.Linear) or module is getattr(model, "view_head", None):
                hooks.callback(module.register_forward_pre_hook(_replace_gradient).remove)
        hooks.enter_context(_on_each_module(model, trace.add))
        hooks.enter_context(torch.enable_grad())
        leaf = image.clone().requires_grad_()  # parameters may be frozen
        score = model(pixel_values=leaf).logits.sum()
        torch.autograd.grad(score, leaf, torch.full_like(score, torch.nan))  # NaN passes through weights of 0
    return trace


@contextmanager
def _on_each_module(model: nn.Module, use: Callable[[str, nn.Module, object], None]) -> Iterator[None]:
    """Call `use` with the name of each module, the module and its output."""

    def hook(name: str, module: nn.Module, _inputs: object, output: object) -> None:
        use(name, module, output)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(partial(hook, name)).remove)
        yield


def _replace_gradient(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    match inputs:
        case (Tensor(ndim=2, requires_grad=True) as given,) if len(given) == 1:
            signs = torch.randint(2, given.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
            given.register_hook(signs.to)  # type: ignore[no-untyped-call]


def _grid(shape: torch.Size, seen: Collection[Grid]) -> Grid | None:
    """Return the grid in an output of one image, which is one seen before it or half of that, or None."""
    known = {*seen, *(((h + up) // 2, (w + up) // 2) for h, w in seen for up in (0, 1))} - {(0, 0)}
    match shape:
        case (1, _, h, w) if (h, w) in known:
            return h, w
        case (1, n, channels) if channels > 1:  # else pooled tokens
            fitting = (grid for grid in known if math.prod(grid) <= n <= math.prod(grid) + MAX_SPECIAL)
            return max(fitting, key=math.prod, default=None)
    return None


def _last_layer(reached: Sequence[_Step], before_attention: _Step | None) -> str | None:
    """Return the layer that Grad-CAM reads by default; see `maps.default_layer`."""
    if not reached:
        return None
    if before_attention and before_attention in reached and before_attention.grid == reached[-1].grid:
        return before_attention.name
    index = max((i for i, step in enumerate(reached) if step.has_parameters), default=0)
    for step in reached[index + 1 :]:  # activations, but not pooling
        if step.grid != reached[index].grid:
            break
        index += 1
    return reached[index].name


def _why_not_combined(shapes: Sequence[torch.Size], *, is_eager: bool) -> str | None:
    """Return why attention weights of these shapes cannot be combined into one matrix, or None."""
    if not shapes and not is_eager:  # as Data2Vec, whose class cannot switch
        return "it returns attention weights only if loaded with attn_implementation='eager'"
    if not shapes:
        return "none of its layers returns attention weights"
    if any(len(shape) > 4 or shape[0] != 1 for shape in shapes):  # noqa: PLR2004
        return "its attention stays inside windows"
    if len({n for shape in shapes for n in shape[-2:]}) > 1:
        return "its tokens are merged between layers"
    return None


def example_image(model: PreTrainedModel) -> Tensor:
    """Return noise of the size of the images in the config: (1, channels, height, width)."""
    config = getattr(model.config, "vision_config", getattr(model.config, "tower_config", model.config))
    size = getattr(config, "image_size", None) or _IMAGE_SIZE
    shape = 1, getattr(config, "num_channels", 3), *((size, size) if isinstance(size, int) else size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
