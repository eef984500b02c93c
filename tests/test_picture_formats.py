"""Pictures in every format have the right pixels, for training, prediction and audit."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, features
from torch import Tensor

from hundredfold.audit.pictures import load_audited_pictures
from hundredfold.data.load import load_data
from hundredfold.pictures.load import load_picture

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
GREY = RGB[:, :, 0]
Pixels = npt.NDArray[np.uint8]
Kind = tuple[bytes, Pixels, int]
"""Content of a file, its expected pixels (H, W, 3), and the largest error allowed."""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the content of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(levels: npt.NDArray[np.generic]) -> Pixels:
    """Return grey levels (H, W) as equal channels."""
    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, 2)


def over_white(pixels: Pixels) -> Pixels:
    """Return pixels with transparency ALPHA over white, by the textbook formula."""
    share = ALPHA[:, :, None] / 255
    return np.asarray((pixels * share + 255 * (1 - share)).round(), np.uint8)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def raw_png(rows: npt.NDArray[np.uint16], colour: int) -> bytes:
    """Return a 16-bit PNG of (32, 32, channels). Pillow can only write grey ones."""
    header = struct.pack(">IIBBBBB", 32, 32, 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def kinds() -> dict[str, Callable[[], Kind]]:
    """Return functions that make each kind of file, by file name."""
    image = Image.fromarray(RGB)
    transparent = image.copy()
    transparent.putalpha(Image.fromarray(ALPHA))
    few = Image.fromarray(RGB // 128 * 128).quantize(8)
    few_rgb = np.asarray(few.convert("RGB"))
    keyed = np.where((np.asarray(few) == 2)[:, :, None], 255, few_rgb).astype(np.uint8)
    smooth = Image.fromarray(RGB[:4, :4]).resize((32, 32), Image.Resampling.BICUBIC)
    soft = np.asarray(smooth)
    deep = RNG.integers(0, 65536, (32, 32, 3), dtype=np.uint16)
    scaled = (deep.astype(np.float64) / 257).round()
    both = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA)))
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    turned = Image.Exif()
    turned[0x0112] = 6
    later = Image.fromarray(255 - RGB)
    return {
        "plain.png": lambda: (saved(image, "PNG"), RGB, 0),
        "grey.png": lambda: (saved(Image.fromarray(GREY), "PNG"), grey(GREY), 0),
        "grey 16.png": lambda: (
            saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
            grey(GREY),
            1,
        ),
        "grey 16 any.png": lambda: (raw_png(deep[:, :, :1], 0), grey(scaled[:, :, 0]), 1),
        "colour 16.png": lambda: (raw_png(deep, 2), scaled.astype(np.uint8), 1),
        "bits.png": lambda: (
            saved(Image.fromarray(GREY > 127), "PNG"),
            grey(255 * (GREY > 127)),
            0,
        ),
        "alpha.png": lambda: (saved(transparent, "PNG"), over_white(RGB), 1),
        "grey alpha.png": lambda: (saved(both, "PNG"), over_white(grey(GREY)), 1),
        "palette.png": lambda: (saved(few, "PNG"), few_rgb, 0),
        "palette key.png": lambda: (saved(few, "PNG", transparency=2), keyed, 0),
        "palette.GIF": lambda: (saved(few, "GIF"), few_rgb, 0),
        "moving.gif": lambda: (
            saved(few, "GIF", save_all=True, append_images=[few.rotate(90)]),
            few_rgb,
            0,
        ),
        "moving.webp": lambda: (
            saved(image, "WEBP", save_all=True, append_images=[later], lossless=True),
            RGB,
            0,
        ),
        "plain.webp": lambda: (saved(image, "WEBP", lossless=True), RGB, 0),
        "plain.BMP": lambda: (saved(image, "BMP"), RGB, 0),
        "plain.tiff": lambda: (saved(image, "TIFF"), RGB, 0),
        "real.tif": lambda: (
            saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
            grey(GREY),
            1,
        ),
        "soft.JPEG": lambda: (saved(smooth, "JPEG", quality=97, subsampling=0), soft, 6),
        "soft.avif": lambda: (saved(smooth, "AVIF", quality=97, subsampling="4:4:4"), soft, 9),
        "ink.jpg": lambda: (saved(red, "JPEG"), np.full((32, 32, 3), (255, 0, 0), np.uint8), 3),
        "turned.png": lambda: (saved(image, "PNG", exif=turned), np.rot90(RGB, -1).copy(), 0),
        "turned.jpg": lambda: (
            saved(smooth, "JPEG", quality=97, subsampling=0, exif=turned),
            np.rot90(soft, -1).copy(),
            6,
        ),
    }


KINDS = kinds()


def largest_error(pixels: Tensor, want: Pixels) -> int:
    """Return the largest absolute error of pixels (3, H, W)."""
    got = pixels.permute(1, 2, 0).numpy().astype(np.int16)
    return int(np.abs(got - want.astype(np.int16)).max())


@pytest.mark.parametrize("name", KINDS)
def test_pixels_are_right_in_every_format(name: str, tmp_path: Path) -> None:
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    content, want, most = KINDS[name]()
    for label in ("a", "b"):
        for split in ("train", "test"):
            path = tmp_path / "data" / split / label / f"{label} {split} {name}"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    by_path, by_content = load_picture(path, 32), load_picture(content, 32)
    assert largest_error(by_path, want) <= most
    assert by_content.equal(by_path)
    dataset = load_data(str(tmp_path / "data"), lambda _: None)
    for part in dataset.splits.values():
        for image in part.images:
            assert image.equal(by_path)
    assert load_audited_pictures(str(tmp_path / "data")).store[0].equal(by_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int, tmp_path: Path) -> None:
    stored = {  # as the EXIF standard defines it
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(stored.copy()), "PNG", exif=exif)
    assert largest_error(load_picture(content, 32), RGB) == 0


def exif_tag(number: int, kind: int, value: bytes) -> bytes:
    """Return an entry of an EXIF directory with one value of up to four bytes."""
    return struct.pack("<HHI", number, kind, 1) + value.ljust(4, b"\0")


def exif_of(*tags: bytes) -> bytes:
    """Return an EXIF directory that may be invalid. Pillow can only write valid ones."""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4)


TURNED = exif_tag(0x0112, 3, struct.pack("<H", 6))
BROKEN = {
    "no EXIF": b"garbage",
    "no EXIF after its marker": b"Exif\0\0garbage",
    "only a header": b"II*\0",
    "a directory beyond the end": b"II*\0\xff\xff\xff\x7f",
    "a truncated directory": exif_of(TURNED)[:14],
    "a text for an orientation": exif_of(exif_tag(0x0112, 2, b"abc")),
    "NaN for an orientation": exif_of(exif_tag(0x0112, 11, struct.pack("<f", float("nan")))),
    "no such orientation": exif_of(exif_tag(0x0112, 3, struct.pack("<H", 99))),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore")  # Pillow's warnings
def test_a_broken_exif_tag_is_ignored(kind: str, broken: str) -> None:
    content = saved(Image.fromarray(RGB), kind, exif=BROKEN[broken], lossless=True)
    assert largest_error(load_picture(content, 32), RGB) == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_nan_in_another_tag_does_not_prevent_the_turn(kind: str) -> None:
    nan = exif_of(TURNED, exif_tag(0x9000, 11, struct.pack("<f", float("nan"))))
    content = saved(Image.fromarray(RGB), kind, exif=nan, lossless=True)
    assert largest_error(load_picture(content, 32), np.rot90(RGB, -1)) == 0


def test_conversion_by_bands_gives_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contents = [make()[0] for make in KINDS.values()]
    whole = [load_picture(content, 24) for content in contents]
    monkeypatch.setattr("hundredfold.pictures.pixels.BAND", 100)  # a band of three rows
    for content, want in zip(contents, whole, strict=True):
        assert load_picture(content, 24).equal(want)


@pytest.mark.parametrize("black", [0, 100, 255])
def test_ycck_gives_the_right_colours(black: int) -> None:
    content = bytearray(saved(Image.new("CMYK", (32, 32), (90, 108, 148, black)), "JPEG"))
    marker = content.index(b"Adobe") + 11
    assert content[marker] == 0  # the transform: 0 is CMYK, 2 is YCCK
    content[marker] = 2
    y, cb, cr = 255 - 90, 255 - 108 - 128, 255 - 148 - 128  # as stored: Adobe inverts
    rgb = y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb  # ITU-R BT.601
    inks = np.array([255 - level for level in rgb])  # libjpeg's step to CMYK
    want = np.full((32, 32, 3), (inks * (255 - black) / 255).round(), np.uint8)
    assert largest_error(load_picture(bytes(content), 32), want) <= 3


def test_a_jpeg_decoded_at_reduced_size_is_close_to_the_full_one() -> None:
    smooth = Image.fromarray(RGB[:12, :12]).resize((512, 384), Image.Resampling.BICUBIC)
    content = saved(smooth, "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        whole = np.asarray(image)
    assert largest_error(load_picture(content, 32), np.asarray(Image.new("RGB", (32, 32)))) > 0
    by_array = load_picture(whole, 32)
    assert largest_error(load_picture(content, 32), by_array.permute(1, 2, 0).numpy()) <= 4
    assert load_picture(content, 384).equal(load_picture(whole, 384))
    assert isinstance(by_array, torch.Tensor)
