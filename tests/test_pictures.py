"""Preparing pictures of every kind and size for a model."""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hundredfold.pictures import pixels
from hundredfold.pictures.load import load_picture
from hundredfold.pictures.pixels import formats
from hundredfold.support.errors import UnavailableError, UserError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)
WANTED = torch.from_numpy(PIXELS).permute(2, 0, 1)


def png(image: Image.Image) -> bytes:
    """Return the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "ünï code.png"
    path.write_bytes(png(IMAGE))
    opaque = IMAGE.copy()
    opaque.putalpha(255)
    for same in (IMAGE, PIXELS, WANTED, png(IMAGE), path, str(path), opaque, png(opaque)):
        assert torch.equal(load_picture(same, 32), WANTED)


def test_grey_pictures_get_three_equal_channels() -> None:
    grey = PIXELS[:, :, 0]
    want = torch.from_numpy(grey).expand(3, -1, -1)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    real = Image.fromarray(grey.astype(np.float32) / 255)
    for same in (grey, grey[:, :, None], torch.from_numpy(grey)[None], deep, png(deep), real):
        assert torch.equal(load_picture(same, 32), want)


def test_a_palette_gives_its_colours() -> None:
    few = Image.fromarray(PIXELS // 128 * 128)
    for mode in (few.convert("P", palette=Image.Palette.ADAPTIVE), few.quantize(8)):
        want = torch.from_numpy(np.array(mode.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(load_picture(png(mode), 32), want)


def test_transparency_is_laid_over_white() -> None:
    alpha = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    image = IMAGE.copy()
    image.putalpha(Image.fromarray(alpha))
    share = alpha[:, :, None] / 255
    want = PIXELS * share + 255 * (1 - share)
    found = load_picture(png(image), 32).permute(1, 2, 0).numpy()
    assert np.abs(found - want).max() <= 1


def test_the_exif_orientation_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a turn by 90 degrees clockwise
    IMAGE.save(tmp_path / "turned.png", exif=exif)
    want = torch.from_numpy(np.rot90(PIXELS, -1).copy()).permute(2, 0, 1)
    assert torch.equal(load_picture(tmp_path / "turned.png", 32), want)


@settings(max_examples=40)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 40), st.booleans())
def test_the_central_square_is_resized(width: int, height: int, size: int, turned: bool) -> None:
    # A ramp stays a ramp: each resized pixel has the ramp's value at its own centre.
    side = min(width, height)
    ramp = np.tile((np.arange(width) * 2).astype(np.uint8), (height, 1))
    found = load_picture(ramp.T.copy() if turned else ramp, size)
    assert found.shape == (3, size, size)
    middles = (width - side) / 2 + (np.arange(size) + 0.5) * side / size - 0.5
    inner = slice(size // 4, size - size // 4)
    line = found[0, :, size // 2] if turned else found[0, size // 2]
    want = np.clip(middles, 0, width - 1)[inner] * 2
    assert np.abs(line.numpy()[inner] - want).max() <= 2 + side / size


def test_shrinking_does_not_alias() -> None:
    board = ((np.indices((90, 90)).sum(0) % 2) * 255).astype(np.uint8)
    found = load_picture(board, 25)[0].float()  # nearest neighbours would give black and white
    assert (found - 127.5).abs().max() < 40


def test_grey_levels_out_of_range_are_refused() -> None:
    for levels in (np.full((4, 4), 200, np.float32), np.full((4, 4), np.nan, np.float32)):
        with pytest.raises(UserError, match="grey levels must be in"):
            load_picture(Image.fromarray(levels), 32)


def test_a_picture_with_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hundredfold.pictures.pixels.MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="32 x 32 pixels are more than 1,000"):
        load_picture(png(IMAGE), 32)


def test_only_the_decoded_pixels_of_a_jpeg_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hundredfold.pictures.pixels.MAX_PIXELS", 100_000)
    monkeypatch.setattr("hundredfold.pictures.pixels.MAX_STORED", 480_000)
    image = IMAGE.resize((800, 600), Image.Resampling.BICUBIC)
    jpeg, progressive = io.BytesIO(), io.BytesIO()
    image.save(jpeg, "JPEG", quality=95)
    image.save(progressive, "JPEG", quality=95, progressive=True)
    want = load_picture(image.resize((200, 150), Image.Resampling.BOX), 32).float()
    for content in (jpeg, progressive):  # at a quarter: 30,000 pixels
        assert (load_picture(content.getvalue(), 32).float() - want).abs().max() <= 6
        with pytest.raises(UserError, match="800 x 600 pixels are more than 100,000"):
            load_picture(content.getvalue(), 300)
    for same in (png(image), image):
        with pytest.raises(UserError, match="800 x 600 pixels are more than 100,000"):
            load_picture(same, 32)
    monkeypatch.setattr("hundredfold.pictures.pixels.MAX_STORED", 479_999)
    with pytest.raises(UserError, match="800 x 600 pixels are more than 479,999"):
        load_picture(jpeg.getvalue(), 32)


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hundredfold.pictures.pixels.LARGE", 4 * 32 * 32)
    found: list[torch.Tensor] = []
    large = png(IMAGE.resize((33, 32)))
    with pixels.large_picture_lock:
        waits = threading.Thread(target=lambda: found.append(load_picture(large, 32)))
        waits.start()
        assert torch.equal(load_picture(png(IMAGE), 32), WANTED)  # a smaller one does not wait
        assert waits.is_alive() and not found
    waits.join()
    assert torch.equal(found[0], load_picture(large, 32))


def test_open_files_are_read_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(IMAGE))
    buffer = io.BytesIO()
    IMAGE.save(buffer, "PNG")  # leaves the position at the end
    assert torch.equal(load_picture(buffer, 32), WANTED)
    with (tmp_path / "x.png").open("rb") as file:
        assert torch.equal(load_picture(file, 32), WANTED)
        assert not file.closed
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb") as feeding:
        feeding.write(png(IMAGE))  # less than a pipe holds
        feeding.close()
        assert torch.equal(load_picture(pipe, 32), WANTED)
    assert torch.equal(load_picture(memoryview(png(IMAGE)), 32), WANTED)  # type: ignore[arg-type]
    with (
        (tmp_path / "x.png").open(encoding="latin-1") as text,
        pytest.raises(UserError, match="must be open in binary mode"),
    ):
        load_picture(text, 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 5, 0.5, object(), {"path": "x.png"}, ["x.png"]])
def test_objects_of_other_types_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=f"not {type(wrong).__name__}"):
        load_picture(wrong, 32)


def test_files_that_are_not_regular_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "x.png").write_bytes(png(IMAGE))
    for name in ("pipe.png", "link.png"):
        with pytest.raises(UserError, match=f"{name} cannot be read .*: it is not a regular file"):
            load_picture(tmp_path / name, 32)
    with pytest.raises(UserError, match="it is a folder"):
        load_picture(tmp_path / "folder.png", 32)
    monkeypatch.setattr("hundredfold.pictures.pixels.MAX_FILE", 1000)
    with pytest.raises(UserError, match="it is larger than"):
        load_picture(tmp_path / "x.png", 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "BMP", "ICO"])
def test_damaged_files_raise_only_user_errors(kind: str) -> None:
    buffer = io.BytesIO()
    IMAGE.save(buffer, kind)
    whole = buffer.getvalue()
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(damaged), 5):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(UserError):
            assert load_picture(bytes(damaged), 32).shape == (3, 32, 32)


def test_formats_that_run_a_program_are_not_opened() -> None:
    assert not {"EPS", "PDF", "WMF"} & set(formats())
    with pytest.raises(UserError, match="not in a supported format"):
        load_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 32)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_pixels_of_other_types_and_shapes_are_refused(
    pixels: np.ndarray[tuple[int], np.dtype[np.uint8]],
) -> None:
    with pytest.raises(UserError, match="shape"):
        load_picture(pixels, 32)


def test_the_error_names_a_file_that_is_not_a_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(png(IMAGE)[:500])
    (tmp_path / "empty.jpg").touch()
    for name in ("notes.png", "cut.png", "empty.jpg", "missing.png"):
        with pytest.raises(UserError, match=name):
            load_picture(tmp_path / name, 32)
    with pytest.raises(UserError, match="cannot be read"):
        load_picture(tmp_path, 32)


class Server(BaseHTTPRequestHandler):
    """Answer /there with a picture, and everything else with 404."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()
        self.wfile.write(png(IMAGE) if self.path == "/there" else b"")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of a running server."""
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url_is_downloaded(url: str) -> None:
    assert torch.equal(load_picture(f"{url}/there", 32), WANTED)
    with pytest.raises(UnavailableError, match="404"):
        load_picture(f"{url}/gone", 32)
    for wrong in ("http://localhost:no/x", f"{url}/a b.png"):
        with pytest.raises(UserError):
            load_picture(wrong, 32)
