"""Predict with the exported model: needs numpy and onnxruntime; for picture files Pillow, too.

python predict.py pictures.npy ...   uint8 pixels (N, H, W, 3) of the model's size
python predict.py cat.jpg ...
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

path = Path(__file__).with_name("model.onnx")
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
classes, size = json.loads(facts["classes"]), int(facts["image_size"])


def pixels(name: str) -> np.ndarray:
    """Return pictures (N, size, size, 3) uint8: upright, over white, the middle part."""
    if name.endswith(".npy"):
        return np.asarray(np.load(name, allow_pickle=False))
    from PIL import Image, ImageOps  # noqa: PLC0415

    with Image.open(name) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("RGB")
    return np.asarray(ImageOps.fit(flat, (size, size), Image.Resampling.BILINEAR))[None]


for name in sys.argv[1:]:
    for batch in np.array_split(pixels(name), max(1, len(pixels(name)) // 100)):
        for row in session.run(None, {"pictures": batch})[0]:
            best = row.argmax()
            print(f"{name}\t{classes[best]}\t{row[best]:.4f}")
