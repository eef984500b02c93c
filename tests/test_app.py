"""The web page as a browser shows it, and the endpoint as a program asks it."""

import http.client
import io
import os
import re
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect
from support.making import Train

from hundredfold import Dataset, Predictor, load_sample
from hundredfold.app.endpoint import MOST_BYTES
from hundredfold.app.page import page_policy
from hundredfold.app.serve import make_app
from hundredfold.app.served_model import ServedModel, make_served_model
from hundredfold.cli.main import main
from hundredfold.evaluation.explain import captioned
from hundredfold.figures.explanation import heat_picture
from hundredfold.pictures.prepare import to_image
from hundredfold.support.errors import UserError


@pytest.fixture
def served(trained: Train, tiny: Dataset) -> ServedModel:
    """A small model with its data."""
    return make_served_model("<b>tiny</b>", Predictor.load(trained()), tiny)


@pytest.fixture
def client(served: ServedModel) -> Iterator[TestClient]:
    """A client of the small model's app."""
    with TestClient(make_app(served, "Pictures.lan"), "http://127.0.0.1") as test_client:
        yield test_client


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG")
    return buffer.getvalue()


def picture_at(address: str) -> Any:
    """Return the pixels of a PNG that a data address holds."""
    kind, content = address.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(b64decode(content))))


def test_predict_answers_as_the_predictor_does(
    client: TestClient, served: ServedModel, tiny: Dataset
) -> None:
    for image in tiny.test.images[:3]:
        want = served.predictor(image)
        found = client.post("/api/predict?top=2", content=png(image)).json()
        assert [s["name"] for s in found["classes"]] == [s.name for s in want.classes[:2]]
        assert [s["probability"] for s in found["classes"]] == [
            pytest.approx(s.probability) for s in want.classes[:2]
        ]
        assert len(found["superclasses"]) == 2
    assert len(client.post("/api/predict", content=png(tiny.test.images[0])).json()["classes"]) == 5


def test_explain_answers_with_the_heat_map_and_similar_pictures(
    client: TestClient, served: ServedModel, tiny: Dataset
) -> None:
    content = png(tiny.train.images[17])
    found = client.post("/api/explain?top=2", content=content).json()
    want = served.explain(content)
    assert list(found) == ["classes", "superclasses", "heat_map", "similar"]
    for level in ("classes", "superclasses"):
        assert [s["name"] for s in found[level]] == [
            s.name for s in getattr(want.prediction, level)[:2]
        ]
    heat_map = np.asarray(heat_picture(want.image, want.heat, 320))
    assert np.array_equal(picture_at(found["heat_map"]), heat_map)
    assert want.similar
    similar = captioned(want.similar, tiny.train, tiny.classes)
    assert [s["caption"] for s in found["similar"]] == [caption for _, caption in similar]
    for answer, (image, _) in zip(found["similar"], similar, strict=True):
        assert np.array_equal(picture_at(answer["picture"]), image.permute(1, 2, 0).numpy())
    alone = make_served_model("alone", served.predictor, None)
    with TestClient(make_app(alone), "http://127.0.0.1") as other:
        answer = other.post("/api/explain", content=content).json()
    assert list(answer) == ["classes", "superclasses", "heat_map"]


@pytest.mark.parametrize("path", ["/api/predict", "/api/explain"])
def test_errors_are_sentences_in_json(client: TestClient, tiny: Dataset, path: str) -> None:
    picture = png(tiny.test.images[0])
    for content, query, status, words in (
        (b"", "", 400, "The file cannot be read as a picture"),
        (picture[:200], "", 400, "The file cannot be read as a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "", 400, "in no format read here"),
        (bytes(MOST_BYTES + 1), "", 413, "at most 20 MiB"),
        (picture, "?top=0", 422, "top is 0, but must be at least 1"),
    ):
        answer = client.post(path + query, content=content)
        assert answer.status_code == status
        assert words in answer.json()["error"]
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.json() == {"error": "Ask this address by POST."}
    answer = client.post("/api/classify", content=picture)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
    answer = client.post(f"{path}?top=x", content=picture)
    assert (answer.status_code, answer.json()) == (422, {"error": "top must be a whole number."})


def test_a_fault_of_the_program_is_admitted_without_details(
    served: ServedModel, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServedModel, "predict", lambda *_: 1 / 0)
    app = make_app(served)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as asking:
        answer = asking.post("/api/predict", content=png(tiny.test.images[0]))
    assert answer.status_code == 500
    assert answer.json() == {"error": "The program is at fault. Its terminal shows the details."}


def test_a_training_picture_is_most_similar_to_itself(served: ServedModel, tiny: Dataset) -> None:
    found = served.explain(png(tiny.train.images[17]))
    assert found.similar
    assert found.similar.index[0] == 17
    assert found.similar.similarity[0].item() == pytest.approx(1, abs=1e-5)
    assert found.prediction.label == served.predict(png(tiny.train.images[17])).label
    alone = make_served_model("alone", served.predictor, None)
    assert alone.explain(png(tiny.train.images[17])).similar is None


def test_examples_are_test_pictures_spread_over_the_classes(
    client: TestClient, served: ServedModel, tiny: Dataset
) -> None:
    examples = served.examples()
    labels = [label for _, label in examples]
    assert labels == sorted(labels)
    assert len(labels) == 20
    assert set(labels) == set("abcdef")
    known = {image.permute(1, 2, 0).numpy().tobytes() for image in tiny.test.images}
    for number, (content, _) in enumerate(examples):
        assert client.get(f"/examples/{number}.png").content == content
        assert np.asarray(Image.open(io.BytesIO(content))).tobytes() in known
    assert client.get("/examples/20.png").status_code == 404
    assert make_served_model("alone", served.predictor, None).examples() == []


def test_no_request_reads_a_file_of_this_machine(client: TestClient) -> None:
    for path in (
        "/examples/../page.py",
        "/examples/..%2fpage.py",
        "/page.py",
        "/page.html",
        "//etc/hostname",
        "/examples/%2fetc%2fhostname",
        "/examples/-1.png",
    ):
        answer = client.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_the_page_shows_names_as_they_are(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>hundredfold: &lt;b&gt;tiny&lt;/b&gt;</title>" in page.text
    assert "Knows 6 classes in 2 superclasses, and no others" in page.text
    assert "<b>tiny" not in page.text


def test_the_browser_may_run_only_the_script_of_the_page(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy == page_policy(page.text)
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""\s(style|on\w+)=["']|<script>|javascript:""", page.text)
    script = client.get("/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert not re.search(r"innerHTML|\beval\b|https?:", script.text)


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
    for path in ("/", "/page.js", "/examples/0.png", "/api/predict", "/nowhere"):
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
        preflight = {"access-control-request-method": "POST", "origin": origin}
        allowed = client.options("/api/predict", headers=host | preflight).headers
        assert "access-control-allow-origin" not in allowed


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    for answer in (
        client.get("/"),
        client.get("/page.js"),
        client.get("/examples/0.png"),
        client.get("/nowhere"),
        client.get("/api/predict"),
        client.post("/api/predict", content=b"no picture"),
        client.get("/", headers={"host": "evil.example"}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy


def test_asked_to_end_it_leaves_no_file_and_waits_for_no_open_page(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "hundredfold", "app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    ) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline().split()[1]).netloc
        held, upload = (http.client.HTTPConnection(address) for _ in range(2))
        held.request("GET", "/")
        assert held.getresponse().read().startswith(b"<!doctype html>")
        upload.putrequest("POST", "/api/explain")
        upload.putheader("Content-Length", "1000000")
        upload.endheaders(b"the beginning of a picture")
        process.terminate()
        assert process.wait(60) == 143
        for connection in (held, upload):
            connection.close()
    assert not list(temporary.iterdir())


def test_answers_in_many_threads_are_those_in_one(served: ServedModel, tiny: Dataset) -> None:
    pictures = [png(image) for image in tiny.train.images[:24]]
    alone = [served.explain(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(served.explain, pictures))
    for one, other in zip(alone, together, strict=True):
        assert one.prediction == other.prediction
        assert one.heat.equal(other.heat)
        assert one.similar and other.similar
        assert one.similar.index.equal(other.similar.index)


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
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the bundled model, started in an empty folder."""
    command = [sys.executable, "-m", "hundredfold", "app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path_factory.mktemp("empty")
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


@pytest.fixture
def pictures() -> list[Path]:
    """Two pictures of the sample, and a file that is not a picture."""
    for number in (0, 1):
        to_image(load_sample().test.images[number]).save(f"{number}.png")
    Path("bad.png").write_text("no picture")
    return [Path("0.png"), Path("1.png"), Path("bad.png")]


def open_app(browser: Browser, address: str, width: int = 1280) -> tuple[Page, list[str]]:
    """Open the page; return it, and a list that fills with whatever should not happen.

    Those are requests to other servers, and errors of the script and of its policy.
    """
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(30_000)
    problems: list[str] = []

    def check_request(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(request.url)

    def check_message(message: ConsoleMessage) -> None:
        if "Policy" in message.text:
            problems.append(message.text)

    page.on("request", check_request)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", check_message)
    page.goto(address)
    expect(page.get_by_role("heading", name="strong", exact=True)).to_be_visible()
    expect(page.get_by_text("Knows 100 classes in 20 superclasses, and no others")).to_be_visible()
    return page, problems


def expect_answer(page: Page, label: str) -> None:
    """Wait until the first class is shown."""
    expect(page.locator("#classes li").first).to_contain_text(label, timeout=30_000)


@pytest.mark.long
def test_a_browser_shows_an_answer_and_its_reasons(
    browser: Browser, address: str, pictures: list[Path]
) -> None:
    want = Predictor.load("strong")("0.png")
    page, problems = open_app(browser, address)
    page.locator("#file").set_input_files(pictures[0])
    expect_answer(page, want.label)
    for level, scores in (("classes", want.classes), ("superclasses", want.superclasses)):
        shown = page.locator(f"#{level} li").all_inner_texts()
        assert [text.split() for text in shown] == [
            [score.name, f"{score.probability:.1%}"] for score in scores[:5]
        ]
    bar = page.locator("#classes .bar span").first
    assert bar.evaluate("bar => bar.offsetWidth / bar.parentNode.offsetWidth") == pytest.approx(
        want.probability, abs=0.02
    )
    expect(page.get_by_text(f"What speaks for {want.label} (orange)")).to_be_visible()
    expect(page.locator("#similar img")).to_have_count(6)
    expect(page.locator("#examples img")).to_have_count(20)
    assert page.evaluate("[...document.images].every(i => i.hidden || i.naturalWidth > 0)")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the heat map").click()
    download.value.save_as("map.png")
    with Image.open("map.png") as heat_map:
        assert heat_map.size == (320, 320)
    page.get_by_role("button", name="Remove the picture").click()
    for hidden in ("#answer", "#reasons", "#picture"):
        expect(page.locator(hidden)).to_be_hidden()
    assert problems == []


def test_a_browser_shows_errors_in_words(
    browser: Browser, address: str, pictures: list[Path]
) -> None:
    page, problems = open_app(browser, address)
    error, answer = page.get_by_role("alert"), page.locator("#answer")
    page.locator("#file").set_input_files(pictures[2])
    expect(error).to_contain_text("The file cannot be read as a picture", timeout=30_000)
    expect(answer).to_be_hidden()
    Path("large.png").write_bytes(bytes(MOST_BYTES + 1))
    page.locator("#file").set_input_files("large.png")
    expect(error).to_have_text("A picture may have at most 20 MiB.")
    page.route("**/api/explain", lambda route: route.abort())
    page.locator("#file").set_input_files(pictures[0])
    expect(error).to_contain_text("The server does not answer")
    page.unroute("**/api/explain")
    page.route("**/api/explain", lambda route: route.fulfill(status=503, body="Unavailable"))
    page.locator("#file").set_input_files(pictures[0])
    expect(error).to_have_text("The server is busy (status 503). Try again.")
    page.unroute("**/api/explain")
    page.locator("#file").set_input_files(pictures[0])
    expect(answer).to_be_visible(timeout=30_000)
    expect(error).to_be_hidden()
    assert problems == []


def test_several_pictures_have_a_row_each(
    browser: Browser, address: str, pictures: list[Path]
) -> None:
    page, problems = open_app(browser, address)
    page.get_by_role("tab", name="One picture").press("ArrowRight")
    expect(page.locator("#one")).to_be_hidden()
    page.locator("#files").set_input_files(pictures)
    expect(page.get_by_role("status")).to_have_text("3 of 3 pictures done.", timeout=30_000)
    rows = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    for row, path in zip(rows, pictures[:2], strict=False):
        want = Predictor.load("strong")(path)
        best = (want.classes[0], want.superclasses[0])
        assert row == [path.name, *(t for s in best for t in (s.name, f"{s.probability:.1%}"))]
    assert rows[2][0] == "bad.png"
    assert "The file cannot be read as a picture" in rows[2][1]
    page.locator("#files").set_input_files([pictures[2]] * 103)
    left = page.get_by_text("The other 3 were left out: choose at most 100 at once.")
    expect(left).to_be_visible(timeout=60_000)
    expect(page.locator("tbody tr")).to_have_count(100)
    assert problems == []


def test_pictures_are_dropped_and_pasted(
    browser: Browser, address: str, pictures: list[Path]
) -> None:
    page, problems = open_app(browser, address)
    script = """([kind, contents]) => {
      const transfer = new DataTransfer();
      for (const content of contents)
        transfer.items.add(new File([new Uint8Array(content)], "a.png", {type: "image/png"}));
      const event = kind === "drop" ? new DragEvent(kind, {dataTransfer: transfer, bubbles: true})
        : new ClipboardEvent(kind, {clipboardData: transfer, bubbles: true});
      document.body.dispatchEvent(event);
    }"""
    contents = [list(path.read_bytes()) for path in pictures[:2]]
    for kind, number in (("drop", 0), ("paste", 1)):
        page.evaluate(script, [kind, contents[number : number + 1]])
        expect_answer(page, Predictor.load("strong")(pictures[number]).label)
        page.get_by_role("button", name="Remove the picture").click()
        page.evaluate("document.getElementById('classes').replaceChildren()")
    page.evaluate(script, ["drop", contents])
    expect(page.get_by_role("status")).to_have_text("2 of 2 pictures done.", timeout=30_000)
    assert problems == []


def test_the_webcam_takes_a_picture(browser: Browser, address: str) -> None:
    page, problems = open_app(browser, address)
    page.get_by_role("button", name="Use the webcam").click()
    expect(page.get_by_role("alert")).to_contain_text("The webcam cannot be used: ")
    page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = async () => {
        const canvas = document.createElement("canvas");
        canvas.getContext("2d").fillRect(0, 0, 300, 150);
        const stream = canvas.captureStream();
        window.track = stream.getTracks()[0];
        return stream;
      };
    }""")
    for button in ("Cancel", "Take the picture"):
        page.get_by_role("button", name="Use the webcam").click()
        page.get_by_role("button", name=button).click()
        expect(page.locator("#video")).to_be_hidden()
        assert page.evaluate("window.track.readyState") == "ended"
    expect(page.locator("#classes li")).to_have_count(5, timeout=30_000)
    assert problems == []


def test_an_example_fits_a_phone(browser: Browser, address: str) -> None:
    page, problems = open_app(browser, address, width=390)
    expect(page.locator("#examples img")).to_have_count(20)
    page.locator("#examples button").nth(3).press("Enter")
    expect(page.get_by_text("What speaks for")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_dark_on_light_or_light_on_dark(
    browser: Browser, address: str, scheme: Any
) -> None:
    page, _ = open_app(browser, address)
    page.emulate_media(color_scheme=scheme)
    colours = page.evaluate("""() => {
      const style = getComputedStyle(document.body);
      return [style.color, style.backgroundColor];
    }""")
    text, ground = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
    assert (text < ground) == (scheme == "light")
    assert abs(text - ground) > 450


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
    assert "Without examples and similar training pictures: There is no file or folder" in told
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "hundredfold.app.endpoint")
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[app\]'"):
        make_app(make_served_model("strong", Predictor.load("strong"), None))
