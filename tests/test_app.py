"""The JSON endpoint of the app and its guard."""

import io
import re
import socket
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from support.making import Train

from hundredfold import Dataset, Predictor
from hundredfold.app.page import page_policy
from hundredfold.app.protocol import MOST_BYTES
from hundredfold.app.serve import make_app
from hundredfold.app.served_model import ServedModel, make_served_model
from hundredfold.evaluation.explain import caption_similar
from hundredfold.figures.explanation import heat_picture
from hundredfold.pictures.load import to_image


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


def test_predict_answers_like_the_predictor(
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


def test_explain_adds_the_heat_map_and_similar_training_pictures(
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
    similar = caption_similar(want.similar, tiny.train, tiny.classes)
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
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "", 400, "not in a supported format"),
        (bytes(MOST_BYTES + 1), "", 413, "at most 20 MiB"),
        (picture, "?top=0", 422, "top is 0, but must be at least 1"),
    ):
        answer = client.post(path + query, content=content)
        assert answer.status_code == status
        assert words in answer.json()["error"]
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.json() == {"error": "This address accepts only POST."}
    answer = client.post("/api/classify", content=picture)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
    answer = client.post(f"{path}?top=x", content=picture)
    assert (answer.status_code, answer.json()) == (422, {"error": "top must be a whole number."})


def test_a_bug_gives_status_500_without_details(
    served: ServedModel, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServedModel, "predict", lambda *_: 1 / 0)
    app = make_app(served)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as test_client:
        answer = test_client.post("/api/predict", content=png(tiny.test.images[0]))
    assert answer.status_code == 500
    sentence = "The server failed to process the request. Its terminal shows the details."
    assert answer.json() == {"error": sentence}


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


def test_other_addresses_have_status_404(client: TestClient) -> None:
    for path in (
        "/examples/../page.py",
        "/examples/..%2fpage.py",
        "/page.py",
        "/page.html",
        "//etc/hostname",
        "/examples/%2fetc%2fhostname",
        "/examples/-1.png",
        f"/examples/{'1' * 5000}.png",
        "/openapi.json",
        "/docs",
    ):
        answer = client.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_the_page_shows_names_as_they_are(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>hundredfold: &lt;b&gt;tiny&lt;/b&gt;</title>" in page.text
    assert "This model knows 6 classes in 2 superclasses. It answers with one of them" in page.text
    assert "<b>tiny" not in page.text


def test_a_model_of_coarse_labels_has_no_superclasses(trained: Train, tiny: Dataset) -> None:
    coarse = tiny.with_labels("coarse")
    served = make_served_model("coarse", Predictor.load(trained(labels="coarse")), coarse)
    with TestClient(make_app(served), "http://127.0.0.1") as test_client:
        page = test_client.get("/").text
        answer = test_client.post("/api/explain", content=png(tiny.test.images[0])).json()
    assert "This model knows 2 classes. It answers with one of them" in page
    assert "uperclass" not in page.replace('data-superclasses=""', "")
    assert list(answer) == ["classes", "heat_map", "similar"]
    assert {score["name"] for score in answer["classes"]} == {"low", "high"}
    assert all(s["caption"].startswith(("low, ", "high, ")) for s in answer["similar"])


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
def test_the_app_answers_only_to_names_of_this_machine(
    client: TestClient, host: str, *, answered: bool
) -> None:
    for path in ("/", "/page.js", "/examples/0.png", "/api/predict", "/nowhere"):
        status = client.head(path, headers={"host": host}).status_code
        assert (status == 403) != answered


def test_the_app_refuses_pages_of_other_servers(client: TestClient, tiny: Dataset) -> None:
    picture, host = png(tiny.test.images[0]), {"host": "localhost:7860"}
    for origin, status in (
        ("http://localhost:7860", 200),
        ("https://localhost:7860", 200),  # behind a proxy that encrypts
        ("http://localhost:8000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
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
        client.get("/", headers={"origin": "http://["}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy


def test_many_threads_get_the_same_answers_as_one(served: ServedModel, tiny: Dataset) -> None:
    pictures = [png(image) for image in tiny.train.images[:24]]
    alone = [served.explain(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(served.explain, pictures))
    for one, other in zip(alone, together, strict=True):
        assert one.prediction == other.prediction
        assert one.heat.equal(other.heat)
        assert one.similar and other.similar
        assert one.similar.index.equal(other.similar.index)


def test_the_heat_map_is_grey_where_nothing_matters() -> None:
    image = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    heat = torch.zeros(16, 16)
    plain = np.asarray(heat_picture(image, heat, 64)).astype(int)
    assert np.abs(plain - 100).max() <= 1  # no colour of the scale is quite without colour
    heat[:8], heat[8:] = 2.0, -1.0
    shown = heat_picture(image, heat, 64)
    top, bottom = (np.asarray(shown)[y, 32].astype(int) for y in (4, 60))
    assert top[0] - top[2] > bottom[2] - bottom[0] > 20  # orange, and a weaker blue
