"""Make the demo data: 32x32 crops of photographs, and such crops re-synthesised by a small autoencoder.

    python -m realfake_hf.data.demo.make --output_file demo.parquet --seed 0

The photographs lie inside the installed scikit-learn and scikit-image; nothing is downloaded. Both kinds take the same
way (crop, downscale, JPEG); the fakes pass through the autoencoder in between, which has seen windows of the train
regions only. The set is a stand-in that lets the code run offline, and never a result.
"""

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import ClassLabel, Features, Image, List, Value
from PIL import Image as Pillow
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from tqdm.auto import tqdm

from realfake_hf.cli import parse
from realfake_hf.data.decoding import decode_image, pixel_hash
from realfake_hf.data.demo.recipe import Region, Window, area, crop, cut_regions, draw_all_windows, draw_box
from realfake_hf.labels import FAKE, LABEL_NAMES, REAL

logger = logging.getLogger(__name__)

POOL_SIZE: Final = 6000  # windows that the autoencoder learns from
BATCH_SIZE: Final = 64
LEARNING_RATE: Final = 2e-3
GENERATOR: Final = "demo-autoencoder"

FEATURES: Final = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=list(LABEL_NAMES)),
        "content": Value("string"),
        "generator": Value("string"),
        "source": Value("string"),
        "id": Value("string"),
        "sha256": Value("string"),
        "split": Value("string"),
        "region": Value("string"),
        "box": List(Value("int32")),
    }
)


@dataclass(frozen=True)
class DemoArguments:
    """What the demo data are made of.

    Attributes:
        output_file: the parquet file to write; it must not exist yet.
        seed: of the regions, the windows, the labels and the autoencoder.
        num_images: how many images to ask for; regions that are full or plain give fewer.
        num_steps: gradient steps of the autoencoder.
        code_channels: channels of the autoencoder's 8x8 code; fewer make worse fakes.
    """

    output_file: Path = field(metadata={"help": "The parquet file to write; it must not exist yet."})
    seed: int = field(default=0, metadata={"help": "Of the regions, the windows, the labels and the autoencoder."})
    num_images: int = field(default=2900, metadata={"help": "How many images to ask for; full regions give fewer."})
    num_steps: int = field(default=500, metadata={"help": "Gradient steps of the autoencoder."})
    code_channels: int = field(default=8, metadata={"help": "Channels of its 8x8 code; fewer make worse fakes."})


class Autoencoder(nn.Module):
    """A generator with learned upsampling: transposed convolutions leave the traces that a detector looks for.

    A kernel of 3 at stride 2 covers its output unevenly, the classic checkerboard (Odena et al., 2016).

    Args:
        code_channels: channels of the 8x8 code between encoder and decoder.
    """

    def __init__(self, code_channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, code_channels, 3, padding=1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(code_channels, 64, 3, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, 32, 32) in [0, 1] to the same shape and range."""
        decoded: Tensor = self.decoder(self.encoder(pixels))
        return decoded


def load_photographs() -> dict[str, Pillow.Image]:
    """The colour photographs of everyday things that both wheels contain and whose licences let us pass them on."""
    import skimage.data  # only who makes the set needs scikit-image (the extra `demo-data`)

    arrays = {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    arrays |= {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    return {name: Pillow.fromarray(array) for name, array in arrays.items()}


def draw_pool(
    regions: Sequence[Region], photographs: Mapping[str, Pillow.Image], random: np.random.Generator
) -> Tensor:
    """Draw what the autoencoder learns from: windows of the train regions alone.

    Returns:
        (windows, 3, 32, 32), float32 in [0, 1].
    """
    trained_on = [region for region in regions if region.split == "train"]
    areas = np.array([area(region.box) for region in trained_on], dtype=np.float64)
    chosen = random.choice(len(trained_on), size=POOL_SIZE, p=areas / areas.sum())
    drawn = [trained_on[index] for index in chosen]
    return to_pixels([crop(photographs[region.photograph], draw_box(region.box, random)) for region in drawn])


def to_pixels(pictures: Sequence[Pillow.Image]) -> Tensor:
    """Stack 32x32 pictures to (pictures, 3, 32, 32), float32 in [0, 1]."""
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


def train_autoencoder(pool: Tensor, *, num_steps: int, code_channels: int, seed: int) -> Autoencoder:
    """Train the generator to give back what it was given, by the mean absolute error.

    Args:
        pool: (windows, 3, 32, 32) in [0, 1].
        num_steps: gradient steps, at a learning rate that falls to zero in one cycle.
        code_channels: channels of the code.
        seed: of the weights, the batches and the mirroring.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Autoencoder(code_channels)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps)
    for _ in (bar := tqdm(range(num_steps), desc="autoencoder", unit="step")):
        batch = pool[torch.randint(len(pool), (BATCH_SIZE,), generator=random)]
        if torch.rand((), generator=random) < 0.5:  # noqa: PLR2004 - one half
            batch = batch.flip(-1)
        loss = nn.functional.l1_loss(model(batch), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return model.eval()


@torch.inference_mode()
def resynthesise(pictures: Sequence[Pillow.Image], model: Autoencoder) -> list[Pillow.Image]:
    """Pass 32x32 pictures through the generator."""
    decoded = model(to_pixels(pictures)).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Pillow.fromarray(array) for array in decoded]


def to_jpeg(picture: Pillow.Image) -> bytes:
    """Encode as CIFAKE does: JPEG at quality 75 with halved colour resolution, without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    return buffer.getvalue()


def to_row(window: Window, picture: Pillow.Image, *, is_fake: bool) -> dict[str, object]:
    """One row of the table; its id comes from the place of the window and knows nothing of the label."""
    encoded = to_jpeg(picture)
    region = window.region
    place = f"{region.split}/{region.photograph}/{','.join(map(str, window.box))}"
    return {
        "image": {"bytes": encoded, "path": None},
        "label": FAKE if is_fake else REAL,
        "content": region.photograph,
        "generator": GENERATOR if is_fake else None,
        "source": "demo",
        "id": hashlib.sha256(place.encode()).hexdigest()[:16],
        "sha256": pixel_hash(decode_image(encoded)),
        "split": region.split,
        "region": str(region),
        "box": list(window.box),
    }


def make_rows(arguments: DemoArguments) -> list[dict[str, object]]:
    """Draw the windows, train the generator, and make the rows, sorted by id."""
    photographs = load_photographs()
    for_windows, for_pool = np.random.default_rng(arguments.seed).spawn(2)
    regions = [
        region for name, picture in photographs.items() for region in cut_regions(name, picture.size, for_windows)
    ]
    windows, is_fake = draw_all_windows(regions, photographs, num_images=arguments.num_images, random=for_windows)
    logger.info("%d windows in %d regions of %d photographs", len(windows), len(regions), len(photographs))
    model = train_autoencoder(
        draw_pool(regions, photographs, for_pool),
        num_steps=arguments.num_steps,
        code_channels=arguments.code_channels,
        seed=arguments.seed,
    )
    originals = [crop(photographs[window.region.photograph], window.box) for window in windows]
    fakes = resynthesise(originals, model)
    rows = [
        to_row(window, fake if chosen else original, is_fake=chosen)
        for window, original, fake, chosen in zip(windows, originals, fakes, is_fake, strict=True)
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, hence the same bytes; the number of threads goes back to what it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_demo(arguments: DemoArguments) -> Path:
    """Make the demo data and write them as one parquet file that carries its Hugging Face features.

    Returns:
        The file, the same bytes for the same arguments on the same machine.

    Raises:
        FileExistsError: there is already something at `output_file`.
    """
    output_file = Path(arguments.output_file)
    if output_file.exists():
        raise FileExistsError(
            f"wanted a new file to write to; found that {output_file} exists. Name another or move it."
        )
    with _one_thread():
        rows = make_rows(arguments)
    table = pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)
    pq.write_table(table, output_file, compression="zstd")
    logger.info("%s: %d images, %.2f MB", output_file, len(rows), output_file.stat().st_size / 1e6)
    return output_file


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and make the file."""
    logging.basicConfig(level=logging.INFO)
    (arguments,) = parse(DemoArguments, argv=argv, description=__doc__)
    make_demo(arguments)


if __name__ == "__main__":
    main()
