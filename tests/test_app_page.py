"""The page of the app in a browser."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from support.browsing import open_watched

from hundredfold import Predictor, load_sample
from hundredfold.app.protocol import MOST_BYTES
from hundredfold.pictures.load import to_image

pytestmark = pytest.mark.long  # all or none: the tests share a server


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
    """Open the page as `open_watched` does."""
    page, problems = open_watched(browser, address, width)
    page.set_default_timeout(30_000)
    expect(page.get_by_role("heading", name="strong", exact=True)).to_be_visible()
    expect(page.get_by_text("This model knows 100 classes in 20 superclasses.")).to_be_visible()
    return page, problems


def expect_answer(page: Page, label: str) -> None:
    """Wait until the first class is shown."""
    expect(page.locator("#classes li").first).to_contain_text(label, timeout=30_000)


def test_the_page_shows_an_answer_and_its_reasons(
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
    expect(page.get_by_text(f"Parts that support {want.label} (orange)")).to_be_visible()
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


def test_the_page_shows_errors_as_sentences(
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
    page.route("**/api/explain", lambda route: route.fulfill(status=200, body='{"classes": ['))
    page.locator("#file").set_input_files(pictures[0])
    expect(error).to_have_text("The answer was cut off. Try again.")
    page.unroute("**/api/explain")
    page.locator("#file").set_input_files(pictures[0])
    expect(answer).to_be_visible(timeout=30_000)
    expect(error).to_be_hidden()
    assert problems == []


def test_several_pictures_fill_a_table(
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


def test_pictures_can_be_dropped_and_pasted(
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
    page.evaluate("() => { HTMLCanvasElement.prototype.toBlob = (give) => give(null); }")
    page.get_by_role("button", name="Use the webcam").click()
    page.get_by_role("button", name="Take the picture").click()
    expect(page.get_by_role("alert")).to_have_text("The webcam sent no picture. Try again.")
    assert problems == []


def test_the_webcam_gives_way_to_a_picture_or_another_tab(
    browser: Browser, address: str, pictures: list[Path]
) -> None:
    page, problems = open_app(browser, address)
    page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = () => new Promise((resolve, reject) => {
        window.deny = () => reject(new Error("denied"));
        window.allow = () => {
          const canvas = document.createElement("canvas");
          canvas.getContext("2d").fillRect(0, 0, 300, 150);
          const stream = canvas.captureStream();
          window.track = stream.getTracks()[0];
          resolve(stream);
        };
      });
    }""")
    webcam = page.get_by_role("button", name="Use the webcam")
    error, video = page.get_by_role("alert"), page.locator("#video")

    webcam.click()
    page.locator("#file").set_input_files(pictures[0])
    page.evaluate("window.deny()")
    expect_answer(page, Predictor.load("strong")(pictures[0]).label)
    expect(error).to_be_hidden()

    webcam.click()
    page.get_by_role("tab", name="One picture").press("ArrowRight")
    page.evaluate("window.allow()")
    assert page.evaluate("window.track.readyState") == "ended"
    page.get_by_role("tab", name="Several pictures").press("ArrowLeft")
    expect(video).to_be_hidden()

    webcam.click()
    page.evaluate("""() => {
      window.allow();
      const played = new Promise((resolve) => { window.start = resolve; });
      document.getElementById("video").play = () => played;
    }""")
    page.locator("#file").set_input_files(pictures[1])
    page.evaluate("window.start()")
    expect_answer(page, Predictor.load("strong")(pictures[1]).label)
    expect(video).to_be_hidden()
    assert page.evaluate("window.track.readyState") == "ended"
    assert problems == []


def test_the_last_example_clicked_is_shown(browser: Browser, address: str) -> None:
    page, problems = open_app(browser, address)
    examples = page.locator("#examples button")
    page.route("**/examples/3.png", lambda _: None)  # never answered
    with page.expect_request("**/examples/3.png"):
        examples.nth(3).click()
    with page.expect_event("requestfailed"):
        examples.nth(4).click()
    expect(page.locator("#answer")).to_be_visible(timeout=30_000)
    page.route("**/examples/5.png", lambda route: route.abort())
    examples.nth(5).click()
    expect(page.get_by_role("alert")).to_contain_text("The example cannot be loaded")
    expect(page.locator("#picture")).to_be_hidden()
    assert problems == []


def test_an_example_fits_the_width_of_a_phone(browser: Browser, address: str) -> None:
    page, problems = open_app(browser, address, width=390)
    expect(page.locator("#examples img")).to_have_count(20)
    page.locator("#examples button").nth(3).press("Enter")
    expect(page.get_by_text("Parts that support")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_light_or_dark_as_the_system(
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
