"""Pictures of every kind and size, as a model takes them."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hundredfold.errors import UnavailableError, UserError
from hundredfold.pictures import load_picture

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)
WANTED = torch.from_numpy(PIXELS).permute(2, 0, 1)


def png(image: Image.Image) -> bytes:
    """Return a picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_of_the_right_size_keeps_its_very_pixels(tmp_path: Path) -> None:
    path = tmp_path / "ünï code.png"
    path.write_bytes(png(IMAGE))
    opaque = IMAGE.copy()
    opaque.putalpha(255)
    for same in (IMAGE, PIXELS, WANTED, png(IMAGE), path, str(path), opaque, png(opaque)):
        assert torch.equal(load_picture(same, 32), WANTED)


def test_greys_become_three_equal_channels() -> None:
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
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    IMAGE.save(tmp_path / "turned.png", exif=exif)
    want = torch.from_numpy(np.rot90(PIXELS, -1).copy()).permute(2, 0, 1)
    assert torch.equal(load_picture(tmp_path / "turned.png", 32), want)


@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 40))
def test_the_middle_square_is_resized_without_aliasing(width: int, height: int, size: int) -> None:
    # A ramp stays a ramp: each pixel of the result has the ramp's height at its own middle.
    side = min(width, height)
    left = (width - side) / 2
    ramp = np.tile((np.arange(width) * 2).astype(np.uint8), (height, 1))
    found = load_picture(ramp, size)
    assert found.shape == (3, size, size)
    middles = left + (np.arange(size) + 0.5) * side / size - 0.5
    inner = slice(size // 4, size - size // 4)
    want = np.clip(middles, 0, width - 1)[inner] * 2
    assert np.abs(found[0, size // 2].numpy()[inner] - want).max() <= 2 + side / size


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_pixels_of_another_kind_are_refused(
    pixels: np.ndarray[tuple[int], np.dtype[np.uint8]],
) -> None:
    with pytest.raises(UserError, match="shape"):
        load_picture(pixels, 32)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(png(IMAGE)[:500])
    (tmp_path / "empty.jpg").touch()
    for name in ("notes.png", "cut.png", "empty.jpg", "missing.png"):
        with pytest.raises(UserError, match=name):
            load_picture(tmp_path / name, 32)
    with pytest.raises(UserError, match="cannot be read"):
        load_picture(tmp_path, 32)


class Server(BaseHTTPRequestHandler):
    """Answers /there with a picture, all else with 404."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()
        self.wfile.write(png(IMAGE) if self.path == "/there" else b"")

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a running server."""
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_is_fetched(address: str) -> None:
    assert torch.equal(load_picture(f"{address}/there", 32), WANTED)
    with pytest.raises(UnavailableError, match="404"):
        load_picture(f"{address}/gone", 32)
