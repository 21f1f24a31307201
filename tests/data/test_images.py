import io
import os

import numpy as np
import pytest
from PIL import Image

from hpjax.data import images
from hpjax.data.images import (
    FORMATS,
    Picture,
    check_image_size,
    decode_chunks,
    decode_image,
    image_suffixes,
    is_image,
    measure_scale,
)
from hpjax.errors import DataError


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decode(content, size=8) -> np.ndarray:
    picture = Picture("some/file.png", 0, content)
    return decode_image(picture, size, measure_scale([picture]))


def gradient(size=64) -> Image.Image:
    line = np.linspace(0, 255, size).astype(np.uint8)
    return Image.fromarray(np.stack([np.tile(line, (size, 1))] * 3, -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_modes_of_png_become_rgb(mode):
    image = decode(encode(Image.new("RGB", (10, 7), "white").convert(mode)))
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert (image == 255).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L"])
def test_modes_of_jpeg_become_rgb(mode):
    image = decode(encode(Image.new("RGB", (16, 16), (200, 30, 30)).convert(mode), "JPEG", quality=95))
    assert image.shape == (8, 8, 3)
    if mode != "L":
        assert abs(image.astype(int) - (200, 30, 30)).max() < 12


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range(format):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = decode(encode(Image.fromarray(values), format))
    np.testing.assert_array_equal(image[..., 0], np.rint(values / 257).astype(np.uint8))


def test_float_grey_is_scaled_and_not_a_number_is_black():
    values = np.array([[0.0, 1.0], [np.nan, 0.5]], np.float32).repeat(4, 0).repeat(4, 1)
    image = decode(encode(Image.fromarray(values), "TIFF"))
    assert [int(image[i, j, 0]) for i, j in ((0, 0), (0, 7), (7, 0), (7, 7))] == [0, 255, 0, 128]


def test_transparency_shows_white():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (decode(encode(clear)) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    assert (decode(encode(palette, transparency=0)) == 255).all()


def test_one_pixel_fills_the_square():
    assert (decode(encode(Image.new("RGB", (1, 1), (1, 2, 3)))) == (1, 2, 3)).all()


def test_wide_image_is_squeezed_and_not_cropped():
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 20:] = 255
    image = decode(encode(Image.fromarray(wide)))
    assert image[:, :3].max() == 0 and image[:, 5:].min() == 255


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    plain, turned = (decode(encode(gradient(), "JPEG", exif=e, quality=95)) for e in (Image.Exif(), exif))
    assert abs(plain[::-1, ::-1].astype(int) - turned).max() < 6


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b"hello, I am text", "no image format"),
        (encode(gradient(), "JPEG")[:400], "(?i:truncated)"),
        (encode(gradient(256), "JPEG")[:-2000], "(?i:truncated)"),
        (encode(gradient())[:80], "not a readable image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not a readable image"),
    ],
)
def test_bad_content_is_refused_by_name(content, reason):
    with pytest.raises(DataError, match=f"some/file.png.*{reason}"):
        decode(content)


def test_bad_files_are_refused_by_name(tmp_path):
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for name, reason in (("zero.jpg", "empty"), ("link.jpg", "no such file")):
        with pytest.raises(DataError, match=f"{name}.*{reason}"):
            decode_image(Picture(str(tmp_path / name), 0, tmp_path / name), 8)


def test_decompression_bomb_is_refused_before_it_unfolds():
    bomb = encode(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 200_000
    with pytest.raises(DataError, match="some/file.png.*(too many|bomb)"):
        decode(bomb)


def test_chunks_keep_order_and_count_what_they_skip(monkeypatch):
    monkeypatch.setattr(images, "CHUNK", 3)
    good = [Picture(f"{i}", i, encode(Image.new("RGB", (4, 4), (i, i, i)))) for i in range(7)]
    pictures = [*good[:2], Picture("bad one", 9, b"?"), *good[2:]]
    skipped = []
    chunks = list(decode_chunks(pictures, 8, skipped))
    assert [len(labels) for _, labels in chunks] == [2, 3, 2]
    decoded, labels = (np.concatenate(part) for part in zip(*chunks, strict=True))
    np.testing.assert_array_equal(labels, np.arange(7))
    np.testing.assert_array_equal(decoded[:, 0, 0, 0], np.arange(7))
    assert len(skipped) == 1 and skipped[0].startswith("bad one: ")
    with pytest.raises(DataError, match="bad one"):
        list(decode_chunks(pictures, 8))


def test_chunk_of_bad_pictures_only_is_empty():
    [(decoded, labels)] = decode_chunks([Picture("x", 0, b"")], 8, [])
    assert decoded.shape == (0, 8, 8, 3) and labels.shape == (0,)


@pytest.mark.parametrize("size", [-1, 1, 7])
def test_small_sizes_are_refused(size):
    with pytest.raises(DataError, match=f"data.image_size={size}.*at least 8"):
        check_image_size(size)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="pipe.png: not a readable image .it is no regular file"):
        decode_image(Picture(str(tmp_path / "pipe.png"), 0, tmp_path / "pipe.png"), 8)


def _can_save(format: str) -> bool:
    try:
        encode(Image.new("RGB", (16, 16), (200, 30, 30)), format)
    except (KeyError, OSError, ValueError):
        return False
    return True


Image.init()
READ = [format for format in FORMATS if _can_save(format)]
# Everything else that Pillow writes, and so may read.
NOT_READ = [format for format in sorted(Image.SAVE) if format not in FORMATS and _can_save(format)]


def test_nearly_every_format_is_tried():
    assert {*FORMATS} - {*READ} <= {"QOI"} and len(NOT_READ) > 5


@pytest.mark.parametrize("suffix", ["", ".dat", "own"])
@pytest.mark.parametrize("format", READ)
def test_every_format_is_read_whatever_the_file_is_called(tmp_path, format, suffix):
    if format == "TGA":
        if suffix != "own":
            pytest.skip("nothing but the name tells such a file")
        suffix = ".tga"
    path = tmp_path / f"a{'.jpg' if suffix == 'own' else suffix}"
    path.write_bytes(encode(Image.new("RGB", (16, 16), (200, 30, 30)), format))
    assert is_image(path)
    image = decode_image(Picture(str(path), 0, path), 8)
    assert abs(image.astype(int) - (200, 30, 30)).max() < 12


@pytest.mark.parametrize("suffix", ["", ".jpg", ".png", ".eps", ".tga"])
@pytest.mark.parametrize("format", NOT_READ)
def test_no_other_decoder_is_run(tmp_path, monkeypatch, format, suffix):
    """A file of any other format is no image, by whichever name; nor is a program started for one."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(Image.new("RGB", (16, 16), (200, 30, 30)), format))
    assert is_image(path) == (suffix in (".jpg", ".png", ".tga"))  # these are taken at their word
    with pytest.raises(DataError, match="its content is no image format known here"):
        decode_image(Picture(str(path), 0, path), 8)
    assert not (tmp_path / "started").exists()


def test_suffixes_are_those_of_the_formats():
    assert {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
    } < image_suffixes()
    assert {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".tga"} < image_suffixes()
    assert not image_suffixes() & {".eps", ".ps", ".pdf", ".wmf", ".emf", ".fits", ".h5", ".mpg", ".psd", ""}


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 1000, b"\n\x05" + b"\xff" * 200, b"\xff\xd8"])
def test_other_content_is_no_image(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert not is_image(tmp_path / "a")


def test_what_is_no_file_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "nowhere", "."):
        assert not is_image(tmp_path / name)
