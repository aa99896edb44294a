"""A frozen vision tower with light heads on its middle layers, for several views of an image.

This file imports torch and transformers only. A copy is saved with the weights, so that the model loads with
`trust_remote_code=True` where realfake_hf is not installed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput

_TWO_LABELS = 2
_LEVELS = 127  # of an 8-bit weight, on each side of zero
_CLASS_TOKENS = ("class_embedding", "cls_token")  # names of their parameters
_TOWER = {"model_type": "clip_vision_model", "patch_size": 16, "num_hidden_layers": 8}  # of CLIP ViT-B/16


class MultiViewConfig(PreTrainedConfig):
    """Configuration of a vision tower with one head for the whole image and one for its windows.

    Args:
        tower_config: configuration of the tower, or its settings; by default, the first eight layers of CLIP ViT-B/16.
        feature_layers: layers whose class token and mean patch token are the features; 1 is the first.
        hidden_units: units of the hidden layer of a head; 0 means a linear head.
        bits: 8 stores the weights of the tower's linear layers as integers with a scale for each output, 32 as floats.

    Raises:
        ValueError: the labels are not two, a layer does not exist, or a number is out of range.
    """

    model_type = "multiview"
    keys_to_ignore_at_inference = ["view_scores"]  # noqa: RUF012 - as in transformers
    sub_configs = {"tower_config": AutoConfig}  # noqa: RUF012 - as in transformers

    tower_config: dict[str, Any] | PreTrainedConfig | None = None
    feature_layers: list[int] | tuple[int, ...] = (5, 6, 7, 8)
    hidden_units: int = 0
    bits: int = 8

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Set the two labels and reject invalid numbers."""
        if not isinstance(self.tower_config, PreTrainedConfig):
            self.tower_config = AutoConfig.for_model(**(_TOWER if self.tower_config is None else self.tower_config))
        names = self.id2label or {0: "REAL", 1: "FAKE"}
        count = kwargs.pop("num_labels", len(names))
        if not count == len(names) == _TWO_LABELS:
            raise ValueError(
                f"expected two labels, because the logits are (0, z); found {count} with the names {names}"
            )
        self.auto_map = {"AutoImageProcessor": "views.MultiViewImageProcessor", **(kwargs.pop("auto_map", None) or {})}
        self.id2label, self.label2id = names, self.label2id or {name: int(index) for index, name in names.items()}
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        layers = self.tower_config.num_hidden_layers
        if not self.feature_layers or not all(1 <= layer <= layers for layer in self.feature_layers):
            raise ValueError(f"expected feature_layers from 1 to {layers}; found {self.feature_layers}")
        if self.bits not in (8, 32) or self.hidden_units < 0:
            raise ValueError(f"expected 8 or 32 bits and no negative units; found {self.bits} and {self.hidden_units}")


@dataclass
class MultiViewOutput(ImageClassifierOutput):
    """Loss and logits, and the score of each view: `view_scores` (batch, views)."""

    view_scores: torch.Tensor | None = None


class MultiViewForImageClassification(PreTrainedModel):
    """Judge the whole image and its windows by one head each; the logit is the mean of both kinds.

    The score z of an image is the mean of the whole's score and of the mean score of its windows, and its logits are
    (0, z). Middle layers keep traces of generators that the last layers drop (RINE; Koutlis & Papadopoulos, 2024).
    """

    config_class = MultiViewConfig
    config: MultiViewConfig
    base_model_prefix = "tower"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = {"scale"}  # noqa: RUF012 - as in transformers

    def __init__(self, config: MultiViewConfig) -> None:
        super().__init__(config)
        tower_class: Any = MODEL_MAPPING[type(config.tower_config)]  # type: ignore[index]
        self.set_tower(tower_class(config.tower_config))
        self._has_class_token = any(name.endswith(_CLASS_TOKENS) for name, _ in self.tower.named_parameters())
        tokens = 2 if self._has_class_token else 1
        width: int = config.tower_config.hidden_size  # type: ignore[union-attr]
        self.feature_width = tokens * len(config.feature_layers) * width
        self.whole = _head(self.feature_width, config.hidden_units)
        self.window = _head(self.feature_width, config.hidden_units)
        self.post_init()  # type: ignore[no-untyped-call]

    def set_tower(self, tower: PreTrainedModel) -> None:
        """Take over the weights of a tower of the same configuration, rounded to `bits`."""
        for name, module in list(tower.named_modules()):
            if isinstance(module, nn.Linear) and self.config.bits == 8:  # noqa: PLR2004
                tower.set_submodule(name, Int8Linear.from_linear(module))
        self.tower = tower.requires_grad_(False).eval()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Int8Linear):
            init.zeros_(module.weight)
            init.ones_(module.scale)
            init.zeros_(module.bias)
        elif isinstance(module, Standardize):
            init.zeros_(module.mean)
            init.ones_(module.std)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> "MultiViewForImageClassification":
        """Switch the heads to training; the tower stays as it is."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[torch.Tensor, ...]:
        """Compute the logits of a batch.

        Args:
            pixel_values: (batch, views, 3, size, size), normalised by the model's image processor; the first view is
                the whole image, the others are windows.
            labels: (batch,), 0 = REAL and 1 = FAKE; if given, the output contains the mean cross-entropy as `loss`.
            features: (batch, views, width) from `features`, instead of `pixel_values`.
            return_dict: whether to return an output object instead of a tuple; None leaves it to the config.

        Returns:
            `logits` (batch, 2), REAL first, and `view_scores` (batch, views).

        Raises:
            ValueError: `pixel_values` has another shape.
        """
        if features is None:
            if pixel_values is None or pixel_values.ndim != 5 or not pixel_values.shape[1]:  # noqa: PLR2004
                raise ValueError(
                    "expected pixel_values (batch, views, 3, size, size); found "
                    f"{None if pixel_values is None else tuple(pixel_values.shape)}. Use the image processor saved "
                    "with the model."
                )
            features = self.features(pixel_values.flatten(0, 1)).view(*pixel_values.shape[:2], -1)
        view_scores = self.view_scores(features)
        score = _pool(view_scores)
        logits = torch.stack([torch.zeros_like(score), score], dim=1)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = MultiViewOutput(loss=loss, logits=logits, view_scores=view_scores)
        as_output = self.config.return_dict if return_dict is None else return_dict
        return output if as_output else output.to_tuple()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features of views (n, 3, size, size): tokens of the tower's middle layers, (n, width)."""
        hidden = self.tower(pixel_values=pixel_values, output_hidden_states=True).hidden_states
        height, width = (side // self.config.tower_config.patch_size for side in pixel_values.shape[2:])  # type: ignore[union-attr]
        parts = []
        for layer in self.config.feature_layers:
            tokens = hidden[layer].to(self._head_dtype)  # (n, special tokens + patches, hidden)
            patches = tokens[:, tokens.shape[1] - height * width :].mean(1)
            parts += [tokens[:, 0], patches] if self._has_class_token else [patches]
        return torch.cat(parts, dim=1)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Return the score z of images (batch,) from the features of their views (batch, views, width)."""
        return _pool(self.view_scores(features))

    def view_scores(self, features: torch.Tensor) -> torch.Tensor:
        """Return the score of each view (batch, views) from their features (batch, views, width)."""
        return torch.cat([self.whole(features[:, :1]), self.window(features[:, 1:])], dim=1).squeeze(-1)

    @property
    def _head_dtype(self) -> torch.dtype:
        return next(self.whole.parameters()).dtype


class Int8Linear(nn.Module):
    """A linear layer whose weights are stored as 8-bit integers with a scale for each output.

    They are unpacked once for each dtype and device of the input.

    Attributes:
        weight: (out_features, in_features) int8.
        scale: (out_features, 1).
        bias: (out_features,).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Buffer(torch.zeros(out_features, in_features, dtype=torch.int8))
        self.scale = nn.Buffer(torch.ones(out_features, 1))
        self.bias = nn.Buffer(torch.zeros(out_features))
        self._unpacked: torch.Tensor | None = None

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "Int8Linear":
        """Round the weights of a layer; weights that are multiples of a 127th of their largest do not change."""
        packed = cls(linear.in_features, linear.out_features)
        weight = linear.weight.detach().float()
        packed.scale.copy_(weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / _LEVELS)
        packed.weight.copy_((weight / packed.scale).round())
        if linear.bias is not None:
            packed.bias.copy_(linear.bias.detach())
        return packed

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features)."""
        held = self._unpacked
        if held is None or held.dtype != input.dtype or held.device != input.device:
            with torch.inference_mode(False):  # gradients pass through it later
                self._unpacked = held = (self.weight.float() * self.scale.float()).to(input.device, input.dtype)
        return nn.functional.linear(input, held, self.bias.to(input.dtype))

    def _apply(self, function, recurse: bool = True):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        scale = self.scale
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self._buffers["scale"], self._unpacked = scale.to(self.scale.device), None
        return self


class Standardize(nn.Module):
    """Subtract the mean of each feature in the training images, and divide by its standard deviation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(torch.zeros(width)), nn.Buffer(torch.ones(width))

    def fit(self, features: torch.Tensor) -> None:
        """Measure features (n, width)."""
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp_min(1e-6))

    @property
    def bias(self) -> torch.Tensor:
        """The constant of this affine function, (width,)."""
        return -self.mean / self.std

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Standardise features (..., width)."""
        return (features - self.mean) / self.std


def _pool(view_scores: torch.Tensor) -> torch.Tensor:
    """Average the whole's score and the mean score of the windows: (batch, views) to (batch,)."""
    whole = view_scores[:, 0]
    return whole if view_scores.shape[1] == 1 else (whole + view_scores[:, 1:].mean(1)) / 2


def _head(width: int, hidden_units: int) -> nn.Sequential:
    if not hidden_units:
        return nn.Sequential(Standardize(width), nn.Linear(width, 1))
    return nn.Sequential(Standardize(width), nn.Linear(width, hidden_units), nn.GELU(), nn.Linear(hidden_units, 1))
