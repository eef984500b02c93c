"""The web page as a browser shows it, and the endpoint as a program asks it."""

import asyncio
import gc
import http.client
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, Request, expect
from support.making import Train

from hundredfold import Dataset, Predictor, load_sample
from hundredfold.app.endpoint import MOST_BYTES
from hundredfold.app.serve import make_app
from hundredfold.app.subject import Subject, make_subject
from hundredfold.cli.main import main
from hundredfold.figures.explanation import heat_picture
from hundredfold.pictures.prepare import to_image
from hundredfold.support.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio, about itself


@pytest.fixture(autouse=True)
def tidied() -> Iterator[None]:
    """Loops that Gradio makes and leaves are gone before another test's warnings count."""
    yield
    asyncio.set_event_loop(None)
    gc.collect()


@pytest.fixture
def subject(trained: Train, tiny: Dataset) -> Subject:
    """A small model with its data."""
    return make_subject("<b>tiny</b>", Predictor.load(trained()), tiny)


@pytest.fixture
def client(subject: Subject, tmp_path: Path) -> Iterator[TestClient]:
    """What asks its app."""
    with TestClient(make_app(subject, tmp_path, "Pictures.lan"), "http://127.0.0.1") as asking:
        yield asking


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_endpoint_answers_as_the_predictor_does(
    client: TestClient, subject: Subject, tiny: Dataset
) -> None:
    for image in tiny.test.images[:3]:
        want = subject.predictor(image)
        found = client.post("/api/predict?top=2", content=png(image)).json()
        assert [s["name"] for s in found["classes"]] == [s.name for s in want.classes[:2]]
        assert [s["probability"] for s in found["classes"]] == [
            pytest.approx(s.probability) for s in want.classes[:2]
        ]
        assert len(found["superclasses"]) == 2
    assert len(client.post("/api/predict", content=png(tiny.test.images[0])).json()["classes"]) == 5


def test_what_it_cannot_answer_it_refuses_in_words(client: TestClient, tiny: Dataset) -> None:
    picture = png(tiny.test.images[0])
    for content, query, status, words in (
        (b"", "", 400, "The file cannot be read as a picture"),
        (picture[:200], "", 400, "The file cannot be read as a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "", 400, "not in a supported format"),
        (bytes(MOST_BYTES + 1), "", 413, "at most 20 MiB"),
        (picture, "?top=0", 422, "top is 0, but must be at least 1"),
    ):
        answer = client.post("/api/predict" + query, content=content)
        assert answer.status_code == status
        assert words in answer.json()["error"]
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, "/api/predict")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.json() == {"error": "Send a picture's bytes by POST."}
    answer = client.post("/api/classify", content=picture)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
    answer = client.post("/api/predict?top=x", content=picture)
    assert (answer.status_code, answer.json()) == (422, {"error": "top must be a whole number."})


def test_a_training_picture_is_likest_itself(subject: Subject, tiny: Dataset) -> None:
    found = subject.explain(png(tiny.train.images[17]))
    assert found.like
    assert found.like.index[0] == 17
    assert found.like.similarity[0].item() == pytest.approx(1, abs=1e-5)
    assert found.prediction.label == subject.predict(png(tiny.train.images[17])).label
    labels = [label for _, label in subject.examples()]
    assert labels == sorted(labels)
    assert len(labels) == 20
    assert set(labels) == set("abcdef")
    alone = make_subject("alone", subject.predictor, None)
    assert alone.explain(png(tiny.train.images[17])).like is None
    assert alone.examples() == []


def test_a_request_names_no_file_and_no_address(client: TestClient, tiny: Dataset) -> None:
    Path("private.png").write_bytes(png(tiny.test.images[0]))
    config = client.get("/config").json()
    show = next(d["id"] for d in config["dependencies"] if len(d["outputs"]) == 6 and d["inputs"])
    for path in (str(Path("private.png").resolve()), "/etc/hostname", "https://127.0.0.1:9/a.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [file], "fn_index": show, "session_hash": "x"}
        assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data?session_hash=x") as events:
            said = "".join(events.iter_text())
        assert '"success":false' in said
        assert "private" not in said
        assert "gradio" not in said
        assert '"success":true' not in said


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *((name, True) for name in ("localhost", "127.0.0.1:7860", "192.168.1.5", "[::1]:7860")),
        *((name, True) for name in ("PICTURES.lan:80", socket.gethostname())),
        *(
            (name, False)
            for name in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example")
        ),
        *((name, False) for name in ("localhost.evil.example", "[::1", "", "evil@localhost, x")),
    ],
)
def test_only_names_of_this_machine_are_answered(
    client: TestClient, host: str, *, answered: bool
) -> None:
    for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x"):
        status = client.head(path, headers={"host": host}).status_code
        assert (status == 403) != answered


def test_no_page_of_another_server_is_answered(client: TestClient, tiny: Dataset) -> None:
    picture, host = png(tiny.test.images[0]), {"host": "localhost:7860"}
    for origin, status in (
        ("http://localhost:7860", 200),
        ("https://localhost:7860", 200),  # behind a proxy that encrypts
        ("http://localhost:8000", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ):
        answer = client.post("/api/predict", content=picture, headers=host | {"origin": origin})
        assert answer.status_code == status
        asked = {"access-control-request-method": "POST", "origin": origin}
        allowed = client.options("/gradio_api/upload", headers=host | asked).headers
        assert ("access-control-allow-origin" in allowed) == (status == 200)


def test_each_answer_tells_browsers_to_be_careful(client: TestClient) -> None:
    for answer in (
        client.get("/"),
        client.get("/config"),
        client.get("/nowhere"),
        client.get("/gradio_api/file=/etc/hostname"),
        client.get("/api/predict"),
        client.post("/api/predict", content=b"no picture"),
        client.get("/", headers={"host": "evil.example"}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "/etc" not in answer.text.replace("not allowed: /etc/hostname", "")


def test_asked_to_end_it_leaves_no_upload_and_waits_for_no_open_page(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "hundredfold", "app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    ) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline().split()[1]).netloc
        held, upload = (http.client.HTTPConnection(address) for _ in range(2))
        held.request("GET", "/gradio_api/heartbeat/x")
        assert held.getresponse().readline() == b"data: ALIVE\n"
        kind = 'Content-Disposition: form-data; name="files"; filename="a.png"'
        body = f"--x\r\n{kind}\r\n\r\nA\r\n--x--".encode()
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        upload.request("POST", "/gradio_api/upload", body, form)
        assert upload.getresponse().status == 200
        assert list(temporary.rglob("a.png"))
        process.terminate()
        assert process.wait(60) == 143
        for connection in (held, upload):
            connection.close()
    assert not list(temporary.iterdir())


def test_many_ask_at_once(subject: Subject, tiny: Dataset) -> None:
    pictures = [png(image) for image in tiny.train.images[:24]]
    alone = [subject.explain(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(subject.explain, pictures))
    for one, other in zip(alone, together, strict=True):
        assert one.prediction == other.prediction
        assert one.heat.equal(other.heat)
        assert one.like and other.like and one.like.index.equal(other.like.index)


def test_the_map_is_grey_where_nothing_matters() -> None:
    image = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    heat = torch.zeros(16, 16)
    plain = np.asarray(heat_picture(image, heat, 64)).astype(int)
    assert np.abs(plain - 100).max() <= 1  # no colour of the scale is quite without colour
    heat[:8], heat[8:] = 2.0, -1.0
    shown = heat_picture(image, heat, 64)
    top, bottom = (np.asarray(shown)[y, 32].astype(int) for y in (4, 60))
    assert top[0] - top[2] > bottom[2] - bottom[0] > 20  # orange, and a weaker blue


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the model that comes with the package, in an empty folder."""
    command = [sys.executable, "-m", "hundredfold", "app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path_factory.mktemp("empty")
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def open_app(browser: Browser, address: str, width: int = 1280) -> tuple[Page, list[str]]:
    """Open the page; return it and, filling up, whatever it asks of other hosts."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    outside: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            outside.append(request.url)

    page.on("request", note)
    page.goto(address)
    expect(page.get_by_role("heading", name="strong")).to_be_visible(timeout=30_000)
    return page, outside


@pytest.mark.long
def test_a_browser_gets_an_answer(browser: Browser, served: str, tmp_path: Path) -> None:
    sample = load_sample()
    to_image(sample.test.images[0]).save("one.png")
    Path("bad.png").write_text("no picture")
    want = Predictor.load("strong")("one.png")
    page, outside = open_app(browser, served)
    upload = page.locator("input[type=file]").first
    upload.set_input_files("one.png")
    expect(page.get_by_role("heading", name=want.label)).to_be_visible(timeout=30_000)
    assert want.superclasses
    expect(page.get_by_role("heading", name=want.superclasses[0].name)).to_be_visible()
    assert f"{want.probability:.0%}" in page.inner_text("body")
    expect(page.locator(".pixels img")).to_have_count(20 + 6)
    page.get_by_label("Remove Image").click()
    expect(page.get_by_role("heading", name=want.label)).not_to_be_visible(timeout=30_000)
    page.locator("input[type=file]").first.set_input_files("bad.png")
    words = page.get_by_text("The file cannot be read as a picture")
    expect(words).to_be_visible(timeout=30_000)
    page.get_by_role("tab", name="Several").click()
    page.locator("input[type=file][multiple]").set_input_files(["one.png", "bad.png"])
    expect(page.get_by_role("gridcell", name=want.label).first).to_be_visible(timeout=30_000)
    assert outside == []


def test_an_example_fits_a_phone(browser: Browser, served: str) -> None:
    page, outside = open_app(browser, served, width=390)
    expect(page.locator(".pixels img")).to_have_count(20)
    page.locator(".pixels img").nth(3).click()
    expect(page.get_by_text("What speaks for")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert outside == []


def test_what_the_command_refuses(
    trained: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["app", "--port", str(taken.getsockname()[1])]) == 2
        assert "Cannot listen at 127.0.0.1" in capsys.readouterr().err
    assert main(["app", "--port", "70000"]) == 2
    assert main(["app", "nowhere"]) == 2
    monkeypatch.setattr("hundredfold.cli.app._serve", lambda *_: None)
    assert main(["app", str(trained().path), "--port", "0"]) == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Without examples and likenesses: There is no file or folder tiny" in told
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "hundredfold.app.page")
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[app\]'"):
        make_app(make_subject("strong", Predictor.load("strong"), None), Path())
