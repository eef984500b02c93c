"""Write data sets as shards, with the libraries of Hugging Face and WebDataset."""

from pathlib import Path

import datasets
import webdataset

CLASSES = ["cat", "dog"]


def rows(root: Path, split: str) -> tuple[list[Path], list[int]]:
    """Return the files of a split, in turn from each class, and their labels."""
    files = sorted((root / split).rglob("*.png"), key=lambda path: path.stem.rpartition("-")[2])
    return files, [CLASSES.index(file.parent.name) for file in files]


def table(files: list[Path], labels: list[int]) -> datasets.Dataset:
    """Return a data set of the library with names for its labels."""
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def write_parquet(root: Path, folder: Path) -> Path:
    """Write two training shards and one test shard as `datasets` does."""
    for split, shards in (("train", 2), ("test", 1)):
        files, labels = rows(root, split)
        whole = table(files, labels)
        for i in range(shards):
            path = folder / "data" / f"{split}-{i:05d}-of-{shards:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.shard(shards, i).to_parquet(path)
    return folder


def write_tars(root: Path, folder: Path, kind: str = "cls") -> Path:
    """Write two training shards and one test shard as WebDataset does."""
    folder.mkdir()
    for split, shards in (("train", 2), ("test", 1)):
        files, labels = rows(root, split)
        for i in range(shards):
            with webdataset.TarWriter(str(folder / f"{split}-{i:03d}.tar")) as writer:
                for file, label in list(zip(files, labels, strict=True))[i * 6 : i * 6 + 6]:
                    value = label if kind == "cls" else {"label": CLASSES[label], "id": 7}
                    sample = {"__key__": f"{split}/{file.stem}", "png": file.read_bytes()}
                    writer.write(sample | {kind: value})
    if kind == "cls":
        (folder / "classnames.txt").write_text("cat\ndog\n")
    return folder
