"""The facts are those of the files that lie in a source, read from their headers."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

from realfake_hf.data.metadata import PROPERTIES, header_properties, read_file_properties


def test_the_facts_of_a_jpeg_are_those_it_was_written_with(picture_bytes):
    data = picture_bytes(0, "JPEG", (24, 16), quality=75, progressive=True)
    facts = header_properties(data)
    assert tuple(facts) == PROPERTIES
    assert (facts["format"], facts["mode"], facts["width"], facts["height"]) == ("JPEG", "RGB", 24, 16)
    assert (facts["aspect"], facts["bytes"], facts["bytes_per_pixel"]) == (1.5, len(data), len(data) / (24 * 16))
    assert facts["in_passes"] is True
    assert facts["exif"] is False
    assert facts["jpeg_luminance"] == np.mean(Pillow.open(io.BytesIO(data)).quantization[0])


def test_equal_quality_means_equal_tables_and_a_lower_one_means_coarser_ones(picture_bytes):
    one, same, low = (
        header_properties(picture_bytes(seed, "JPEG", quality=q)) for seed, q in ((0, 75), (1, 75), (0, 20))
    )
    assert one["jpeg_tables"] == same["jpeg_tables"] != low["jpeg_tables"]
    assert low["jpeg_luminance"] > one["jpeg_luminance"]


def test_a_png_has_no_tables(picture_bytes):
    facts = header_properties(picture_bytes(0, "PNG"))
    assert (facts["format"], facts["jpeg_tables"], facts["in_passes"]) == ("PNG", "none", False)
    assert np.isnan(facts["jpeg_luminance"])


def test_an_exif_block_is_seen(picture_bytes):
    exif = Pillow.Exif()
    exif[0x010F] = "a maker"
    assert header_properties(picture_bytes(0, "JPEG", exif=exif))["exif"] is True


def test_palette_files_are_read_as_they_lie_and_not_as_load_images_keeps_them(make_folder):
    palette = io.BytesIO()
    Pillow.new("P", (8, 8)).save(palette, "GIF")
    facts = read_file_properties(make_folder({"real/a.png": palette.getvalue(), "fake/b.png": palette.getvalue()}))
    assert facts.columns["format"].tolist() == ["GIF", "GIF"]  # whatever the name says
    assert facts.columns["mode"].tolist() == ["P", "P"]
    assert facts.columns["bytes"].tolist() == [len(palette.getvalue())] * 2
    assert facts.digest[0] == facts.digest[1]
    assert facts.as_stored is False


def test_rows_of_an_hf_data_set_are_said_to_be_as_stored(tmp_path, picture_bytes):
    rows = {"image": [{"bytes": picture_bytes(n), "path": None} for n in range(2)], "label": [0, 1]}
    features = Features({"image": Image(), "label": ClassLabel(names=["FAKE", "REAL"])})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    facts = read_file_properties(tmp_path / "rows.parquet")
    assert facts.as_stored is True
    assert facts.is_fake.tolist() == [True, False]


def test_a_broken_header_is_left_out_and_counted(make_folder, picture_bytes):
    files = {"real/a.png": picture_bytes(0), "fake/b.png": picture_bytes(1), "fake/c.png": b"no picture"}
    facts = read_file_properties(make_folder(files))
    assert (len(facts), facts.unreadable) == (2, 1)
    assert all(len(column) == 2 for column in facts.columns.values())


def test_nothing_readable_is_refused(make_folder):
    with pytest.raises(
        ValueError, match=r"wanted picture files with a readable header in pictures; found none among 2\. Get the data"
    ):
        read_file_properties(make_folder({"real/a.png": b"-", "fake/b.png": b"-"}))


@pytest.mark.parametrize(("limit", "fake", "real"), [(8, 4, 4), (14, 9, 5), (50, 20, 5)])
def test_a_limit_draws_both_labels_alike_as_far_as_they_go(make_folder, limit, fake, real):
    folder = make_folder([*(f"fake/{n}.png" for n in range(20)), *(f"real/{n}.png" for n in range(5))])
    is_fake = read_file_properties(folder, limit=limit).is_fake
    assert (is_fake.sum(), (~is_fake).sum()) == (fake, real)


def test_the_draw_is_that_of_its_seed(make_folder):
    folder = make_folder([f"{label}/{n}.png" for label in ("real", "fake") for n in range(20)])
    drawn = [read_file_properties(folder, limit=10, seed=seed).digest.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_limit_below_one_is_refused(make_folder):
    with pytest.raises(ValueError, match=r"wanted a limit of 1 file or more; found 0\. Leave it out for all files\."):
        read_file_properties(make_folder(["real/a.png", "fake/b.png"]), limit=0)
