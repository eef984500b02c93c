"""How pictures that are not square become squares."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.oblong import FITS, jpeg, noise, plainly, smooth

from hundredfold.pictures import pixels
from hundredfold.pictures.pixels import DRAFT, GREY, UPRIGHT, Fit, open_picture, read_square, square

SIDES = st.integers(1, 200)


@settings(max_examples=120)
@given(SIDES, SIDES, st.integers(8, 70), st.sampled_from(FITS), st.data())
@example(1, 200, 32, "squash", None)
@example(200, 1, 32, "squash", None)
@example(3, 160, 32, "pad", None)
def test_each_fit_is_what_pillow_does(
    width: int, height: int, size: int, fit: Fit, data: st.DataObject | None
) -> None:
    mode, turn = "RGB", 1
    if data:
        mode = data.draw(st.sampled_from(["RGB", "RGBA", "L", "I;16"]))
        turn = data.draw(st.integers(1, 8))
    image = noise(width, height, mode)
    image.getexif()[0x0112] = turn
    found = square(image, size, fit).astype(int)
    assert found.shape == (size, size, 3)
    if fit == "pad" and round(min(width, height) / max(width, height) * size) == 0:
        inner = found if (height > width) != (turn > 4) else found.transpose(1, 0, 2)
        middle = round((size - 1) / 2)  # Pillow refuses a side of 0; here it is 1
        assert (np.delete(inner, middle, 1) == GREY).all()
        assert not (inner[:, middle] == GREY).all()
        return
    want = plainly(image, size, fit, turn).astype(int)
    # A narrow, high picture is resized in the other order, and Pillow rounds after each.
    reordered = fit == "squash" and (width < size < height or height < size < width)
    assert np.abs(found - want).max() <= (1 if reordered else 0)


@given(st.integers(1, 60), st.integers(8, 60))
def test_a_square_picture_is_the_same_in_each_fit(side: int, size: int) -> None:
    image = noise(side, side, "RGB")
    want = square(image, size)
    for fit in FITS:
        assert np.array_equal(square(image, size, fit), want)


def test_a_padded_picture_is_whole_between_grey_bars() -> None:
    image = Image.new("RGB", (60, 20), "red")
    found = square(image, 30, "pad")
    assert (found[10:20] == (255, 0, 0)).all()
    assert (found[:10] == 127).all() and (found[20:] == 127).all()


@settings(max_examples=60)
@given(
    st.integers(1, 1200),
    st.integers(1, 1200),
    st.integers(8, 60),
    st.sampled_from(FITS),
    st.sampled_from([1, *UPRIGHT]),
)
@example(1, 1200, 32, "pad", 6)
@example(1200, 30, 32, "pad", 1)
@example(1000, 333, 33, "pad", 8)
def test_a_jpeg_file_is_reduced_only_to_twice_what_is_needed(
    width: int, height: int, size: int, fit: Fit, turn: int
) -> None:
    content = jpeg(smooth(width, height), turn)
    with open_picture(io.BytesIO(content)) as opened:
        found = read_square(opened, size, fit).astype(int)
        decoded = opened.size
    longer = max(width, height)
    needed = [max(1, round(s / longer * size)) if fit == "pad" else size for s in (width, height)]
    if decoded != (width, height):
        assert all(d >= DRAFT * n for d, n in zip(decoded, needed, strict=True))
    scale = round(longer / max(decoded))
    if scale < 8:  # half as many would be too few
        assert any(
            s // (2 * scale) < DRAFT * n for s, n in zip((width, height), needed, strict=True)
        )
    with Image.open(io.BytesIO(content)) as image:
        want = square(image, size, fit).astype(int)
    assert ((found == GREY).all(2) == (want == GREY).all(2)).mean() > 0.98  # the same bars
    if min(needed) >= 16:  # a reduced edge may cover less than a whole pixel
        assert np.abs(found - want).mean() <= 6


LIMITED = """
import resource, sys
import numpy as np
from PIL import Image
sys.path.insert(0, sys.argv[1])
import pixels
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
image = Image.fromarray(np.tile(np.uint8([[0], [200]]), (1_000_000, 1)))
for given in (image, image.transpose(Image.Transpose.ROTATE_90)):
    for fit in ("crop", "squash", "pad"):
        found = pixels.square(given, 384, fit)
        print(fit, found.shape[0], found[192, 192, 0])
"""


def test_a_line_of_two_million_pixels_needs_little_memory() -> None:
    folder = str(Path(pixels.__file__).parent)
    command = [sys.executable, "-c", LIMITED, folder]  # 3 GB, if rows were resized first
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [*FITS, *FITS] and {row[1] for row in rows} == {"384"}
    assert all(abs(int(row[2]) - 100) <= 1 for row in rows if row[0] == "squash")
