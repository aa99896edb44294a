"""The CNN of Bird & Lotfi (2024) as a Hugging Face model.

This file imports torch and transformers only. A copy is saved with the weights, so that the model loads with
`trust_remote_code=True` where realfake_hf is not installed.
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput


class CifakeCnnConfig(PreTrainedConfig):
    """Configuration of a CIFAKE CNN, which covers all topologies of the paper.

    The default is the best topology of the paper: two convolutions of 32 filters and 64 dense units, with 141,345
    parameters at 32 pixels.

    Args:
        image_size: height and width of the input in pixels.
        num_channels: channels of the input.
        num_filters: filters per 3x3 convolution.
        num_conv_layers: number of convolutions, each followed by ReLU and 2x2 max pooling.
        dense_units: units per dense layer.
        num_dense_layers: number of dense layers between the features and the output unit.

    Raises:
        ValueError: a number is below its minimum, or pooling leaves no pixel.
    """

    model_type = "cifake_cnn"

    image_size: int = 32
    num_channels: int = 3
    num_filters: int = 32
    num_conv_layers: int = 2
    dense_units: int = 64
    num_dense_layers: int = 1

    def __post_init__(self, **kwargs: object) -> None:
        """Set the two labels and reject invalid shapes."""
        names = self.id2label or {0: "REAL", 1: "FAKE"}
        count = kwargs.pop("num_labels", len(names))
        if not count == len(names) == 2:  # noqa: PLR2004
            raise ValueError(
                f"expected two labels, because the logits are (0, z); found {count} with the names {names}"
            )
        self.id2label, self.label2id = names, self.label2id or {name: int(index) for index, name in names.items()}
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self._check_shape()

    def _check_shape(self) -> None:
        names = ("image_size", "num_channels", "num_filters", "num_conv_layers", "dense_units", "num_dense_layers")
        for name in names:
            value, least = getattr(self, name), 0 if name == "num_dense_layers" else 1
            if not isinstance(value, int) or value < least:
                raise ValueError(f"expected an integer {name} of at least {least}; found {value!r}")
        if self.grid_size < 1:
            raise ValueError(
                f"expected at least one pixel after {self.num_conv_layers} poolings; found none for image_size "
                f"{self.image_size}. Use fewer convolutions or larger images."
            )

    @property
    def grid_size(self) -> int:
        """Height and width of the last feature map after pooling."""
        return int(self.image_size >> self.num_conv_layers)


class CifakeCnnForImageClassification(PreTrainedModel):
    """Convolutions, dense layers and one output unit for FAKE, returned as two logits.

    The single output z of the paper becomes the logits (0, z). Their softmax is exactly (1 - sigmoid(z), sigmoid(z)),
    and their cross-entropy is exactly the binary cross-entropy of z.
    """

    config_class = CifakeCnnConfig
    config: CifakeCnnConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"

    def __init__(self, config: CifakeCnnConfig) -> None:
        super().__init__(config)
        self.features = _convolutions(config)
        self.dense = _dense_layers(config)
        self.output = nn.Linear(_dense_width(config), 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise weights uniformly (Glorot & Bengio, 2010) and biases with zero, as the paper's framework does."""
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, return_dict: bool | None = None
    ) -> ImageClassifierOutput | tuple[torch.Tensor, ...]:
        """Compute the logits of a batch.

        Args:
            pixel_values: (batch, channels, image_size, image_size), normalised by the model's image processor.
            labels: (batch,), 0 = REAL and 1 = FAKE; if given, the output contains the mean cross-entropy as `loss`.
            return_dict: whether to return an output object instead of a tuple; None leaves it to the config.

        Returns:
            `logits` (batch, 2), REAL first.

        Raises:
            ValueError: the images have another size or other channels than the model.
        """
        self._check_pixels(pixel_values)
        features: torch.Tensor = self.features(pixel_values)  # (batch, filters, grid, grid)
        score = self.output(self.dense(features.flatten(1)))  # (batch, 1)
        logits = torch.cat([torch.zeros_like(score), score], dim=1)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = ImageClassifierOutput(loss=loss, logits=logits)
        as_output = self.config.return_dict if return_dict is None else return_dict
        return output if as_output else output.to_tuple()

    def _check_pixels(self, pixel_values: torch.Tensor) -> None:
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"expected pixel_values (batch, {', '.join(map(str, expected))}); found {tuple(pixel_values.shape)}. "
                "Use the image processor saved with the model."
            )


def _convolutions(config: CifakeCnnConfig) -> nn.Sequential:
    """Build the feature extractor. Pooling precedes ReLU: the same values at a quarter of the cost."""
    widths = [config.num_channels] + [config.num_filters] * config.num_conv_layers
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Conv2d(width_in, width_out, kernel_size=3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers)


def _dense_layers(config: CifakeCnnConfig) -> nn.Sequential:
    widths = [config.num_filters * config.grid_size**2] + [config.dense_units] * config.num_dense_layers
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers)


def _dense_width(config: CifakeCnnConfig) -> int:
    return config.dense_units if config.num_dense_layers else config.num_filters * config.grid_size**2
