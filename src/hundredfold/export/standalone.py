"""Predict with the exported model. Needs numpy and onnxruntime, and Pillow for picture files.

usage: python predict.py FILE ...

Each FILE is a picture, or a .npy file of uint8 pixels (N, S, S, 3), where S is the input size of
the model. Prints a line for each picture: file, most probable class, probability, tab-separated.
If the model can say how familiar a picture looks, that follows (0 to 1); below 0.05, the picture
probably shows none of the classes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime


def pictures(path: Path, size: int, fit: str) -> npt.NDArray[np.uint8]:
    """Return the pictures in a file, (N, size, size, 3) uint8.

    Raises:
        Exception: the file cannot be read, or holds something else.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.suffix.lower() != ".npy":
        from pixels import open_picture, read_square  # type: ignore # noqa: PLC0415

        with open_picture(path) as image:
            return np.asarray(read_square(image, size, fit))[None]
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
        raise ValueError(
            f"its pixels are {pixels.dtype} of shape {pixels.shape}, but must be uint8 of shape "
            f"(N, {size}, {size}, 3)"
        )
    return np.asarray(pixels)


def plain(text: object) -> str:
    """Return text with control characters escaped."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(text))


def main(names: list[str]) -> int:
    """Predict files; return the exit code."""
    if not names or {"-h", "--help"} & {*names}:
        print(__doc__.strip(), file=sys.stdout if names else sys.stderr)
        return 0 if names else 2
    model = Path(__file__).with_name("model.onnx")
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises errors of many types
        print(f"error: {plain(model)} cannot be loaded: {plain(error)}", file=sys.stderr)
        return 2
    metadata = session.get_modelmeta().custom_metadata_map
    classes, size, fit = (json.loads(metadata[key]) for key in ("classes", "image_size", "fit"))
    count = 100 if size <= 128 else 25  # pictures in a batch
    failed = False
    for name in names:
        try:
            batch = pictures(Path(name), size, fit)
        except Exception as error:  # Pillow and numpy raise errors of many types
            print(f"error: {plain(name)}: {plain(error)}", file=sys.stderr)
            failed = True
            continue
        for start in range(0, len(batch), count):
            rows, *known = session.run(None, {"pictures": batch[start : start + count]})
            for i, row in enumerate(rows):
                best = row.argmax()
                familiar = "".join(f"\t{values[i]:.3f}" for values in known)
                print(f"{plain(name)}\t{plain(classes[best])}\t{row[best]:.4f}{familiar}")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
