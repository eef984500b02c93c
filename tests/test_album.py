"""The folder of pictures behind the teaching page, and how changes to it are undone."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.oblong import noise

from hundredfold.support.errors import UserError
from hundredfold.teach.album import STATE, Album, open_album

Tree = dict[str, bytes | None]


def content(seed: int, kind: str = "JPEG") -> bytes:
    """Return the content of a picture file."""
    noise(40, 30, "RGB", seed).save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


def tree(folder: Path) -> Tree:
    """Return the content of each file of an album by its name, and None for each folder."""
    paths = [path for path in folder.rglob("*") if STATE not in path.parts]
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in paths
    }


@pytest.fixture
def album(tmp_path: Path) -> Album:
    """An album of three pictures in two classes, and an empty class."""
    album = open_album(tmp_path / "photos")
    for label in ("cup", "key", "empty"):
        album.add_class(label)
    album.add_picture("cup", content(0), "first.jpg")
    album.add_picture("cup", content(1), "second.png")
    album.add_picture("key", content(2))
    album.changes.clear()
    return album


def test_a_burst_is_of_one_class(album: Album) -> None:
    before = tree(album.folder)
    for label, seed in (("cup", 10), ("cup", 11), ("key", 12)):
        album.add_picture(label, content(seed), burst="dropped")
    assert album.changes[-1].what == "adding 1 picture to key"
    album.undo()
    assert album.changes[-1].what == "adding 2 pictures to cup"
    album.undo()
    assert tree(album.folder) == before


def test_pictures_are_kept_as_they_are(album: Album) -> None:
    for kind, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tiff")):
        picture = content(5, kind)
        name = album.add_picture("key", picture, "../../My photo 1.jpeg")
        assert name.startswith("My-photo-1-")
        assert name.endswith(suffix)
        assert album.path("key", name).read_bytes() == picture
        with Image.open(album.path("key", name)) as image:
            assert image.format == kind
    assert set(album.classes()) == {"cup", "key", "empty"}
    assert list(map(len, album.classes().values())) == [2, 0, 5]


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (content(0), "The picture is in cup already"),
        (b"", "cannot be read as a picture"),
        (b"no picture", "cannot be read as a picture"),
        (content(7)[:400], "cannot be read as a picture"),
    ],
)
def test_other_contents_are_refused(album: Album, picture: bytes, words: str) -> None:
    before = tree(album.folder)
    with pytest.raises(UserError, match=words):
        album.add_picture("key", picture)
    assert tree(album.folder) == before
    assert album.changes == []


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a/b", "..", ".hidden", "end.", "a\\b", "C:", "x" * 61, "a\x00b", "thumbs.db"],
)
def test_names_that_cannot_be_folders_are_refused(album: Album, name: str) -> None:
    before = tree(album.folder)
    for change in (album.add_class, lambda new: album.rename_class("cup", new)):
        with pytest.raises(UserError, match="name of a"):
            change(name)
    assert tree(album.folder) == before


def test_names_are_tidied_and_unique(album: Album) -> None:
    assert album.add_class("  blue   pen ") == "blue pen"
    for name in ("Blue Pen", "CUP"):
        with pytest.raises(UserError, match="already"):
            album.add_class(name)
    assert album.rename_class("cup", "Cup") == "Cup"
    assert album.rename_class("Cup", "Cup") == "Cup"
    assert set(album.classes()) == {"Cup", "key", "empty", "blue pen"}


def test_unknown_names_are_refused(album: Album) -> None:
    picture = album.classes()["cup"][0]
    for change in (
        lambda: album.rename_class("pen", "pencil"),
        lambda: album.delete_class("../photos"),
        lambda: album.merge("cup", "pen"),
        lambda: album.merge("cup", "cup"),
        lambda: album.add_picture("pen", content(9)),
        lambda: album.delete_pictures("key", [picture]),
        lambda: album.path("cup", f"../cup/{picture}"),
    ):
        with pytest.raises(UserError):
            change()
    assert album.changes == []


def test_merging_keeps_every_picture(album: Album) -> None:
    pictures = set(map(str, tree(album.folder).values()))
    clash = album.classes()["cup"][0]
    (album.folder / "key" / clash).write_bytes(content(8))
    pictures.add(str(content(8)))
    album.merge("key", "cup")
    assert set(album.classes()) == {"cup", "empty"}
    assert len(album.classes()["cup"]) == 4
    assert set(map(str, tree(album.folder).values())) == pictures
    album.undo()
    assert (album.folder / "key" / clash).read_bytes() == content(8)


def test_pictures_of_a_burst_are_undone_together(album: Album) -> None:
    before = tree(album.folder)
    for seed in range(10, 13):
        album.add_picture("cup", content(seed), burst="1")
    album.add_picture("cup", content(13), burst="2")
    whats = [change.what for change in album.changes]
    assert whats == ["adding 3 pictures to cup", "adding 1 picture to cup"]
    album.undo()
    assert len(album.classes()["cup"]) == 5
    album.undo()
    assert tree(album.folder) == before
    with pytest.raises(UserError, match="nothing to undo"):
        album.undo()


ACTIONS = ("add class", "rename", "delete class", "merge", "add", "delete")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 99), st.integers(0, 99))))
def test_undo_restores_every_state(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    album = open_album(tmp_path_factory.mktemp("album"))
    states = [tree(album.folder)]
    for action, first, second in steps:
        classes = album.classes()
        names = [*classes, "nothing"]
        label, other = names[first % len(names)], names[second % len(names)]
        pictures = [*classes.get(label, []), "nothing"]
        try:
            if action == "add class":
                album.add_class(f"class {first % 5}")
            elif action == "rename":
                album.rename_class(label, f"class {second % 5}")
            elif action == "delete class":
                album.delete_class(label)
            elif action == "merge":
                album.merge(label, other)
            elif action == "add":
                album.add_picture(label, content(second % 4, "PNG"))
            else:
                album.delete_pictures(label, [pictures[second % len(pictures)]])
        except UserError:
            assert tree(album.folder) == states[-1]
        if len(album.changes) == len(states):
            states.append(tree(album.folder))
    for state in reversed(states[:-1]):
        album.undo()
        assert tree(album.folder) == state
    assert album.changes == []


def test_a_change_that_fails_half_way_is_taken_back(album: Album) -> None:
    before = tree(album.folder)
    album.merge("cup", "key")
    (album.folder / "cup").mkdir()
    (album.folder / "cup" / "new.txt").write_text("from another program")
    with pytest.raises(UserError, match="the new name is taken"):
        album.undo()
    (album.folder / "cup" / "new.txt").unlink()
    (album.folder / "cup").rmdir()
    assert len(album.classes()["key"]) == 3
    assert sorted(map(str, before.values())) == sorted(
        [*map(str, tree(album.folder).values()), "None"]
    )
    album.undo()
    assert tree(album.folder) == before


def test_a_merge_keeps_files_that_are_no_pictures(album: Album) -> None:
    for name in ("clip.mov", ".notes"):
        (album.folder / "cup" / name).write_text("from cup")
    (album.folder / "key" / "clip.mov").write_text("from key")
    before = tree(album.folder)
    album.merge("cup", "key")
    album = open_album(album.folder)
    assert tree(album.folder) == {
        name: value for name, value in before.items() if name.startswith(("key", "empty"))
    } | {
        f"key/{'_' * (name == 'cup/clip.mov')}{name[4:]}": value
        for name, value in before.items()
        if name.startswith("cup/")
    }


def test_adding_a_class_is_not_undone_once_it_holds_files(album: Album) -> None:
    album.add_class("pen")
    (album.folder / "pen" / "1.jpg").write_bytes(content(9))
    with pytest.raises(UserError, match="pen holds files that another program put there"):
        album.undo()
    assert album.classes()["pen"] == ["1.jpg"]
    (album.folder / "pen" / "1.jpg").unlink()
    (album.folder / "pen" / ".DS_Store").write_text("")
    album.undo()
    assert "pen" not in album.classes()


def test_a_change_whose_files_are_gone_makes_room_for_the_one_before(album: Album) -> None:
    before = tree(album.folder)
    album.add_picture("key", content(8))
    album.add_class("pen")
    (album.folder / "pen").rmdir()
    with pytest.raises(UserError, match="so this cannot be undone: adding the class pen"):
        album.undo()
    album.undo()
    assert tree(album.folder) == before


def test_files_that_are_not_used_are_known(album: Album) -> None:
    for name in ("cup/IMG_1.heic", "cup/.hidden", "key/clip.mov", "list.txt"):
        (album.folder / name).write_text("")
    assert album.contents().unused == [
        ("cup/IMG_1.heic", "HEIC is not supported: convert it to JPEG"),
        ("key/clip.mov", "not a picture by its name"),
    ]


def test_what_was_deleted_is_gone_when_the_album_is_opened_again(album: Album) -> None:
    album.delete_class("cup")
    left = tree(album.folder)
    assert any((album.folder / STATE).rglob("*.jpg"))
    again = open_album(album.folder)
    assert not any((album.folder / STATE).rglob("*.jpg"))
    assert (tree(album.folder), again.changes) == (left, [])


def test_folders_that_are_no_albums_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "loose.png")
    with pytest.raises(UserError, match=r"do not fit: loose\.png"):
        open_album(tmp_path)
    (tmp_path / "loose.png").unlink()
    (tmp_path / "train" / "cup").mkdir(parents=True)
    with pytest.raises(UserError, match="do not fit: train/cup"):
        open_album(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot create the folder"):
        open_album(tmp_path / "file")
