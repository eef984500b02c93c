"""Teaching a model by its server's addresses."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.oblong import noise

from hundredfold import Predictor, Run, evaluate
from hundredfold.cli.main import main
from hundredfold.teach.album import open_album
from hundredfold.teach.serve import make_teach_app
from hundredfold.teach.teacher import Teacher

pytestmark = pytest.mark.long
COLOURS = {"warm": (220, 90, 40), "cold": (30, 80, 210)}
PATIENCE = 120.0


def picture(label: str, seed: int) -> bytes:
    """Return a JPEG file: patches of noise, tinted by the class."""
    image = noise(6, 6, "RGB", seed).resize((160, 160))
    tint = image.point(lambda value: value // 3)
    tint.paste(COLOURS[label], (20, 20, 90 + seed % 50, 120))
    tint.save(buffer := io.BytesIO(), "JPEG", quality=95)
    return buffer.getvalue()


def open_teacher(folder: Path) -> tuple[Teacher, TestClient]:
    teacher = Teacher(open_album(folder), "runs", "cpu")
    client = TestClient(make_teach_app(teacher), "http://127.0.0.1")
    return teacher, client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server with an empty folder."""
    teacher, test_client = open_teacher(tmp_path / "photos")
    with teacher.learning(), test_client:
        yield test_client


def wait(client: TestClient, done: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the first state that fulfils a condition."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        state: dict[str, Any] = client.get("/api/state").json()
        if done(state):
            return state
        time.sleep(0.1)
    raise AssertionError(f"Still waiting after {PATIENCE:.0f} s: {state}")


def post(client: TestClient, path: str, body: bytes = b"", status: int = 200, **query: str) -> Any:
    answer = client.post(path, params=query, content=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def show(client: TestClient, label: str, seeds: range) -> None:
    """Show pictures of a class to the page."""
    for seed in seeds:
        post(client, "/api/pictures", picture(label, seed), label=label, name=f"{seed}.jpg")


def test_two_classes_are_learned_and_kept(client: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for label in COLOURS:
        post(client, "/api/classes", name=label)
        show(client, label, range(14))
    state = wait(client, lambda state: state["is_checked"] and not state["waiting"])
    assert [each["name"] for each in state["classes"]] == ["cold", "warm"]
    assert [len(each["pictures"]) for each in state["classes"]] == [14, 14]
    assert (state["accuracy"], state["model"]) == (1.0, None)
    assert 14 < state["judged"] <= 28
    assert "Train one first" in post(client, "/api/predict", picture("warm", 1), 400)["error"]

    assert post(client, "/api/train")["is_training"]
    assert "already" in post(client, "/api/train", status=400)["error"]
    state = wait(client, lambda state: not state["is_training"])
    assert state["error"] == ""
    assert state["model"]["is_current"]
    for seed in range(50, 55):
        for label in COLOURS:
            assert post(client, "/api/predict", picture(label, seed))["classes"][0]["name"] == label

    run = Run(state["model"]["run"])
    assert run.config().name == "probe"
    assert evaluate(run)["test"] == run.metrics()["test"]
    want = Predictor.load(run)(picture("cold", 60))
    assert post(client, "/api/predict", picture("cold", 60)) == want.as_json()

    post(client, "/api/pictures", picture("warm", 70), label="warm")
    assert not client.get("/api/state").json()["model"]["is_current"]
    assert post(client, "/api/undo")["model"]["is_current"]

    with open_teacher(folder)[1] as again:
        reopened = again.get("/api/state").json()
        assert reopened["model"] == state["model"]
        assert reopened["classes"][0]["pictures"] == state["classes"][0]["pictures"]
        assert reopened["undo"] is None
        answer = post(again, "/api/predict", picture("cold", 60))
        assert answer == want.as_json()


def test_changes_are_shown_at_once(client: TestClient) -> None:
    for label in COLOURS:
        post(client, "/api/classes", name=label)
    state = post(client, "/api/pictures", picture("cold", 1), label="cold", burst="b")
    state = post(client, "/api/pictures", picture("cold", 2), label="cold", burst="b")
    assert state["undo"] == "adding 2 pictures to cold"
    (cold, _), name = state["classes"], state["classes"][0]["pictures"][0]
    thumbnail = client.get("/thumbnail", params={"label": "cold", "picture": name})
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert post(client, "/api/pictures/delete", label="cold", picture=name)["undo"]
    assert post(client, "/api/undo")["classes"][0]["pictures"] == cold["pictures"]
    post(client, "/api/classes/rename", label="cold", name="blue")
    state = post(client, "/api/classes/merge", label="blue", into="warm")
    assert [(each["name"], len(each["pictures"])) for each in state["classes"]] == [("warm", 2)]
    assert post(client, "/api/classes/delete", label="warm")["classes"] == []


def test_mistakes_are_sentences(client: TestClient) -> None:
    post(client, "/api/classes", name="cold")
    show(client, "cold", range(1))
    for path, body, status, query, words in (
        ("/api/pictures", b"no picture", 400, {"label": "cold"}, "cannot be read as a picture"),
        ("/api/pictures", picture("cold", 0), 400, {"label": "cold"}, "in cold already"),
        ("/api/pictures", picture("cold", 1), 400, {"label": "warm"}, "There is no class warm"),
        ("/api/pictures", bytes(20 * 2**20 + 1), 413, {"label": "cold"}, "at most 20 MiB"),
        ("/api/pictures", b"", 422, {}, "A parameter is missing"),
        ("/api/classes", b"", 400, {"name": "../up"}, "cannot be the name of a folder"),
        ("/api/classes/rename", b"", 400, {"label": "x", "name": "y"}, "There is no class x"),
        ("/api/train", b"", 400, {}, "at least two classes with pictures"),
        ("/api/nothing", b"", 404, {}, "nothing at this address"),
    ):
        assert words in post(client, path, body, status, **query)["error"]
    for path in ("/thumbnail?label=cold&picture=../../x", "/thumbnail?label=..&picture=x"):
        assert client.get(path).status_code == 400
    assert client.get("/api/state", headers={"Host": "elsewhere.com"}).status_code == 403
    answer = client.post("/api/undo", headers={"Origin": "http://elsewhere.com"})
    assert answer.status_code == 403
    assert len(client.get("/api/state").json()["classes"][0]["pictures"]) == 1


def test_files_of_other_programs_are_noticed(client: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "cold"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(picture("cold", 1))
    (folder / "broken.jpg").write_bytes(picture("cold", 2)[:300])
    state = wait(client, lambda state: state["is_checked"])
    assert state["classes"][0]["pictures"] == ["1.jpg", "broken.jpg"]
    assert "broken.jpg cannot be read as a picture" in state["unusable"][0]
    (folder / "broken.jpg").write_bytes(picture("cold", 2))
    state = wait(client, lambda state: not state["unusable"])
    assert state["accuracy"] is None


def test_a_changed_file_is_checked_again(client: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "cold"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.jpg").write_bytes(picture("cold", 1))

    def warns_of_copies(state: dict[str, Any]) -> bool:
        return any("near duplicate" in note for note in state["classes"][0]["notes"])

    wait(client, lambda state: state["is_checked"] and warns_of_copies(state))
    (folder / "1.jpg").write_bytes(picture("cold", 2))
    wait(client, lambda state: state["is_checked"] and not warns_of_copies(state))


def test_a_training_that_fails_says_why(client: TestClient) -> None:
    for label in COLOURS:
        post(client, "/api/classes", name=label)
        show(client, label, range(1))
    post(client, "/api/train")
    state = wait(client, lambda state: not state["is_training"])
    assert "At least one class needs two pictures that are not copies" in state["error"]
    assert state["model"] is None


def test_the_command_refuses_other_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1.jpg").write_bytes(picture("cold", 1))
    assert main(["teach", str(tmp_path), "--port", "0"]) == 2
    assert "one folder for each class" in capsys.readouterr().err
