"""Predict with the exported model: needs numpy and onnxruntime; for picture files Pillow, too.

usage: python predict.py FILE ...

A FILE is a picture, or a .npy file of uint8 pixels (N, S, S, 3), S being the model's size.
Prints each picture's file, its most probable class and the probability, with tabs between.
"""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

BATCH = 100
"""Pictures that the runtime is given at once."""


def pictures(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Return the pictures of a file, (N, size, size, 3).

    Raises:
        Exception: it cannot be read, or holds something else.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.suffix.lower() != ".npy":
        from pixels import open_picture, read_square  # type: ignore # noqa: PLC0415

        with open_picture(path) as image:
            return np.asarray(read_square(image, size))[None]
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.dtype != np.uint8 or found.shape[1:] != (size, size, 3):
        raise ValueError(
            f"its pixels are {found.dtype} of shape {found.shape}, and must be uint8 of shape "
            f"(N, {size}, {size}, 3)"
        )
    return np.asarray(found)


def plain(text: object) -> str:
    """Return text without characters that a terminal obeys."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(text))


def main(names: list[str]) -> int:
    """Predict files; return the exit code."""
    if not names or {"-h", "--help"} & {*names}:
        print(__doc__.strip(), file=sys.stdout if names else sys.stderr)
        return 0 if names else 2
    model = Path(__file__).with_name("model.onnx")
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a score of kinds
        print(f"error: {plain(model)} cannot be loaded: {plain(error)}", file=sys.stderr)
        return 2
    facts = session.get_modelmeta().custom_metadata_map
    classes, size = json.loads(facts["classes"]), int(facts["image_size"])
    failed = False
    for name in names:
        try:
            given = pictures(Path(name), size)
        except Exception as error:  # Pillow and numpy raise a score of kinds
            print(f"error: {plain(name)}: {plain(error)}", file=sys.stderr)
            failed = True
            continue
        for start in range(0, len(given), BATCH):
            for row in session.run(None, {"pictures": given[start : start + BATCH]})[0]:
                best = row.argmax()
                print(f"{plain(name)}\t{plain(classes[best])}\t{row[best]:.4f}")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
