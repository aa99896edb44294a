"""File properties are those of the files in a source, and headers are read."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.metadata import PROPERTIES, header_properties, read_file_properties, read_metadata


def saved(format="PNG", **settings):
    buffer = io.BytesIO()
    Pillow.new("RGB", (6, 4)).save(buffer, format=format, **settings)
    return buffer.getvalue()


def test_the_properties_of_a_jpeg_are_those_it_was_written_with(picture_bytes):
    data = picture_bytes(0, "JPEG", (24, 16), quality=75, progressive=True)
    header = header_properties(data)
    assert tuple(header) == PROPERTIES
    assert (header["format"], header["mode"], header["width"], header["height"]) == ("JPEG", "RGB", 24, 16)
    assert (header["aspect"], header["bytes"], header["bytes_per_pixel"]) == (1.5, len(data), len(data) / (24 * 16))
    assert header["in_passes"] is True
    assert header["exif"] is False
    assert header["jpeg_luminance"] == np.mean(Pillow.open(io.BytesIO(data)).quantization[0])


def test_equal_quality_means_equal_tables_and_lower_quality_means_coarser_ones(picture_bytes):
    first, second, low = (
        header_properties(picture_bytes(seed, "JPEG", quality=q)) for seed, q in ((0, 75), (1, 75), (0, 20))
    )
    assert first["jpeg_tables"] == second["jpeg_tables"] != low["jpeg_tables"]
    assert low["jpeg_luminance"] > first["jpeg_luminance"]


def test_a_png_has_no_tables(picture_bytes):
    header = header_properties(picture_bytes(0, "PNG"))
    assert (header["format"], header["jpeg_tables"], header["in_passes"]) == ("PNG", "none", False)
    assert np.isnan(header["jpeg_luminance"])


def test_an_exif_block_is_found(picture_bytes):
    exif = Pillow.Exif()
    exif[0x010F] = "a maker"
    assert header_properties(picture_bytes(0, "JPEG", exif=exif))["exif"] is True


def test_properties_are_those_of_the_original_files_not_of_the_rows_of_load_images(make_folder):
    palette = io.BytesIO()
    Pillow.new("P", (8, 8)).save(palette, "GIF")
    files = read_file_properties(make_folder({"real/a.png": palette.getvalue(), "fake/b.png": palette.getvalue()}))
    assert files.columns["format"].tolist() == ["GIF", "GIF"]  # whatever the name says
    assert files.columns["mode"].tolist() == ["P", "P"]
    assert files.columns["bytes"].tolist() == [len(palette.getvalue())] * 2
    assert files.digest[0] == files.digest[1]
    assert files.as_stored is False


def test_rows_of_a_data_set_are_marked_as_stored(tmp_path, picture_bytes):
    rows = {"image": [{"bytes": picture_bytes(n), "path": None} for n in range(2)], "label": [0, 1]}
    features = Features({"image": Image(), "label": ClassLabel(names=["FAKE", "REAL"])})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    files = read_file_properties(tmp_path / "rows.parquet")
    assert files.as_stored is True
    assert files.is_fake.tolist() == [True, False]


def test_a_damaged_header_is_skipped_and_counted(make_folder, picture_bytes):
    images = {"real/a.png": picture_bytes(0), "fake/b.png": picture_bytes(1), "fake/c.png": b"not an image"}
    files = read_file_properties(make_folder(images))
    assert (len(files.is_fake), files.unreadable) == (2, 1)
    assert all(len(column) == 2 for column in files.columns.values())


def test_a_source_without_readable_headers_is_rejected(make_folder):
    with pytest.raises(ValueError, match=r"readable header in pictures; found none among 2"):
        read_file_properties(make_folder({"real/a.png": b"-", "fake/b.png": b"-"}))


@pytest.mark.parametrize(("limit", "fake", "real"), [(8, 4, 4), (14, 9, 5), (50, 20, 5)])
def test_a_limit_draws_balanced_labels_if_possible(make_folder, limit, fake, real):
    folder = make_folder([*(f"fake/{n}.png" for n in range(20)), *(f"real/{n}.png" for n in range(5))])
    is_fake = read_file_properties(folder, limit=limit).is_fake
    assert (is_fake.sum(), (~is_fake).sum()) == (fake, real)


def test_the_draw_depends_on_its_seed(make_folder):
    folder = make_folder([f"{label}/{n}.png" for label in ("real", "fake") for n in range(20)])
    drawn = [read_file_properties(folder, limit=10, seed=seed).digest.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_limit_below_one_is_rejected(make_folder):
    with pytest.raises(ValueError, match=r"limit of 1 file or more; found 0"):
        read_file_properties(make_folder(["real/a.png", "fake/b.png"]), limit=0)


def test_the_header_of_a_file_is_read():
    metadata = read_metadata(saved())
    assert (metadata.format, metadata.mode, metadata.width, metadata.height) == ("PNG", "RGB", 6, 4)
    assert (metadata.has_more_frames, metadata.n_bytes) == (False, len(saved()))


def test_metadata_of_a_file_that_is_not_an_image_are_rejected():
    with pytest.raises(UnreadableImageError, match="not an image"):
        read_metadata(b"not an image")


def test_two_images_in_a_jpeg_are_a_jpeg():
    data = saved("MPO", save_all=True, append_images=[Pillow.new("RGB", (6, 4), "red")])
    assert Pillow.open(io.BytesIO(data)).format == "MPO"
    assert header_properties(data)["format"] == read_metadata(data).format == "JPEG"
    assert read_metadata(data).has_more_frames is False


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_more_frames_are_found(format):
    data = saved(format, save_all=True, append_images=[Pillow.new("RGB", (6, 4), "red")])
    assert read_metadata(data).has_more_frames is True
