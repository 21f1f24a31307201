"""Images of more than 8 bits get one scale for a whole data set, said; or are refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from hpjax.config import DataConfig
from hpjax.data import load_dataset
from hpjax.data.deep import DeepPicture
from hpjax.data.images import Picture, decode_chunks, decode_image, measure_scale
from hpjax.errors import DataError

LIMITED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SUFFIXES = {np.uint16: (".png", ".tif"), np.int32: (".tif",), np.float32: (".tif",)}


def encode(values: np.ndarray, format: str = "TIFF") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format)
    return buffer.getvalue()


def decode_all(values: list[np.ndarray], format: str = "TIFF") -> list[np.ndarray]:
    """Returns the grey values of images of one data set, each 8 pixels wide and high."""
    pictures = [Picture(f"{i}", 0, encode(v, format)) for i, v in enumerate(values)]
    scale = measure_scale(pictures)
    return [decode_image(picture, 8, scale)[..., 0] for picture in pictures]


def _values(dtype):
    spread = {
        np.uint16: st.sampled_from((1, 15, 255, 256, 4095, 65535)).flatmap(lambda most: st.integers(0, most)),
        np.int32: st.sampled_from((1, 255, 300, 10**6)).flatmap(lambda most: st.integers(-most, most)),
        np.float32: st.floats(-1000, 1000, width=32) | st.floats(0, 1, width=32),
    }[dtype]
    return st.lists(arrays.arrays(dtype, (8, 8), elements=spread), min_size=1, max_size=3)


@LIMITED
@given(st.sampled_from(tuple(SUFFIXES)).flatmap(_values))
def test_one_scale_keeps_order_across_images_and_uses_all_grey_values(values):
    """Of any two pixels of a data set the larger is never darker, and nothing is cut."""
    greys = decode_all(values)
    flat, grey = np.concatenate([v.ravel() for v in values]).astype(np.float64), np.concatenate(greys).ravel()
    order = np.argsort(flat, kind="stable")
    assert (np.diff(grey[order].astype(int)) >= 0).all()
    low = min(flat.min(), 0)
    high = max(flat.max(), 255.0) if values[0].dtype != np.float32 and low == 0 else flat.max()
    high = high if high > low else low + 1
    np.testing.assert_allclose(grey, (flat - low) * (255 / (high - low)), atol=0.51)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.int32([[255, 0]]), np.int32([[300, 0]])], [217, 255]),  # neither stays while the other is black
        ([np.float32([[1.0, 0]]), np.float32([[1.01, 0]])], [252, 255]),
        ([np.uint16([[4095, 0]]), np.uint16([[16, 0]])], [255, 1]),
        ([np.float32([[-1.0, 1.0]]), np.float32([[0.0, 0.0]])], [0, 128]),
        ([np.int32([[-100, 100]]), np.int32([[0, 0]])], [0, 128]),
        ([np.int32([[7, 0]]), np.int32([[255, 0]])], [7, 255]),  # what fits 8 bits stays
        ([np.float32([[0.0, 0]])], [0]),
        ([np.float32([[np.inf, 2.0]]), np.float32([[np.nan, -np.inf]])], [0, 0]),
    ],
)
def test_known_values(values, expected):
    greys = decode_all([v.repeat(8, 0).repeat(4, 1) for v in values])
    assert [int(grey[0, 0]) for grey in greys] == expected


def test_12_bits_use_more_than_16_grey_values():
    values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    for format in ("PNG", "TIFF"):
        assert len(np.unique(decode_all([values], format)[0])) == 64


def test_unsigned_32_bits_are_not_read_as_negative():
    values = np.uint32([[3_000_000_000, 0]]).repeat(8, 0).repeat(4, 1)
    signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, sample_format) for sample_format in (2, 1))
    content = encode(values.view(np.int32))
    assert content.count(signed) == 1
    picture = Picture("big", 0, content.replace(signed, unsigned))
    scale = measure_scale([picture])
    assert (scale.low, scale.high) == (0, 3_000_000_000)
    assert decode_image(picture, 8, scale)[0, 0, 0] == 255


def test_a_deep_image_is_turned_as_its_orientation_says():
    values = np.zeros((8, 8), np.uint16)
    values[0] = 4000
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", exif=exif)
    picture = Picture("turned", 0, buffer.getvalue())
    grey = decode_image(picture, 8, measure_scale([picture]))[..., 0]
    assert grey[7].min() == 255 and grey[:6].max() == 0


def _plant(root, values, suffix=".tif"):
    for i, (split, label) in enumerate((s, c) for s in ("train", "test", "val") for c in ("cat", "dog")):
        folder = root / split / label
        folder.mkdir(parents=True)
        Image.fromarray(values[i % len(values)]).save(folder / f"{i}{suffix}")
    return DataConfig(name="folder", dir=str(root), image_size=8, validation_fraction=0.2)


@pytest.mark.parametrize("cached", [True, False])
def test_the_scale_is_of_all_splits_said_and_remembered(tmp_path, monkeypatch, caplog, cached):
    if not cached:
        (tmp_path / "file").touch()
        monkeypatch.setenv("HPJAX_CACHE", str(tmp_path / "file" / "below"))
    levels = [np.full((8, 8), level, np.uint16) for level in (100, 200, 300, 400, 500, 1000)]
    config = _plant(tmp_path / "images", levels, ".png")
    for _ in range(2):  # decoded, and from the cache
        caplog.clear()
        with caplog.at_level("INFO", "hpjax"):
            dataset = load_dataset(config, 0)
        expected = "6 images of more than 8 bits: 0 to 1000 become 0 to 255, the same in all"
        assert expected in caplog.text and expected in dataset.remarks
        splits = (dataset.train, dataset.test, dataset.validation)
        found = [int(image[0, 0, 0]) for split in splits for image in split.images]
        assert found == [round(level * 0.255) for level in (100, 200, 300, 400, 500, 1000)]


def test_images_of_8_bits_are_not_measured(make_tree, monkeypatch):
    monkeypatch.setattr("hpjax.data.cache.measure_scale", lambda _: 1 / 0)
    assert load_dataset(DataConfig(name="folder", dir=str(make_tree()), image_size=8), 0).remarks == ()


def test_floats_beside_whole_numbers_are_refused(tmp_path):
    config = _plant(tmp_path, [np.full((8, 8), 0.5, np.float32), np.full((8, 8), 300, np.int32)])
    with pytest.raises(DataError, match=r"1.tif is of whole numbers .* and .*0.tif of floats") as caught:
        load_dataset(config, 0)
    assert "expected one" in str(caught.value) and "\n" not in str(caught.value)


def _png16(value: int, color_type: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    colours, opacity = {2: (3, 0), 4: (1, 1), 6: (3, 1)}[color_type]
    pixel = struct.pack(">H", value) * colours + b"\xff\xff" * opacity
    rows = (b"\x00" + pixel * 8) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 16, color_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_colours_of_16_bits_are_refused_where_few_of_them_are_used(color_type):
    """Pillow reads the upper 8 bits: of 12 bits in 16 that leaves 16 values."""
    few, many = (Picture(f"{value}", 0, _png16(value, color_type)) for value in (4095, 65535))
    with pytest.raises(DataError, match="4095 is of colours of 16 bits and no such image exceeds 4095: exp"):
        measure_scale([few])
    scale = measure_scale([few, many])
    assert "2 images are colours of 16 bits: the upper 8 are read" in scale.remark
    assert decode_image(many, 8, scale).max() == 255


def test_a_deep_image_without_a_scale_is_never_guessed_at():
    picture = Picture("deep", 0, encode(np.full((8, 8), 300, np.int32)))
    with pytest.raises(DeepPicture):
        decode_image(picture, 8)
    with pytest.raises(DeepPicture):
        list(decode_chunks([picture], 8, skipped=[]))


def test_bad_images_have_no_part_in_the_scale():
    good = Picture("good", 0, encode(np.full((8, 8), 300, np.int32)))
    cut = Picture("cut", 0, encode(np.full((64, 64), 9000, np.int32))[:900])
    scale = measure_scale([good, cut, Picture("text", 0, b"none"), Picture("empty", 0, b"")])
    assert scale.high == 300
