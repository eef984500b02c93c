"""The teaching page in a browser."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from support.browsing import open_watched
from support.oblong import noise

pytestmark = pytest.mark.long
CAMERA = """
() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [320, 240];
  const pen = canvas.getContext("2d");
  window.scene = "warm";
  const draw = () => {
    pen.fillStyle = window.scene === "warm" ? "rgb(230 90 40)" : "rgb(20 60 90)";
    pen.fillRect(0, 0, 320, 240);
    pen.fillStyle = window.scene === "warm" ? "yellow" : "cyan";
    for (let i = 0; i < 6; i++) {
      const [x, y, size] = [0, 0, 0].map(() => Math.random() * 150);
      if (window.scene === "warm") pen.fillRect(x + 50, y, size, size);
      else pen.beginPath(), pen.arc(x + 90, y + 40, size / 2, 0, 7), pen.fill();
    }
    setTimeout(draw, 250); // slower than pictures are recorded, as in dim light
  };
  draw();
  navigator.mediaDevices.getUserMedia = async () => canvas.captureStream();
}
"""


def serve(folder: Path) -> Iterator[str]:
    """Start a server, and yield its address."""
    command = [sys.executable, "-m", "hundredfold", "teach", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server with an empty folder."""
    yield from serve(tmp_path / "photos")


def open_page(browser: Browser, address: str, width: int = 1280) -> tuple[Page, list[str]]:
    """Open the page as `open_watched` does."""
    page, problems = open_watched(browser, address, width)
    expect(page.locator("#folder")).to_contain_text("photos")
    return page, problems


def card(page: Page, label: str) -> Locator:
    return page.get_by_role("region", name=label, exact=True)


def add_class(page: Page, label: str) -> None:
    """Name a class with the keyboard alone."""
    page.get_by_label("Name of a new class").fill(label)
    page.keyboard.press("Enter")
    expect(card(page, label)).to_be_visible()


def test_two_scenes_of_the_webcam_are_told_apart(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    page, problems = open_page(browser, address)
    page.evaluate(CAMERA)
    train = page.locator("#train")
    expect(train).to_be_disabled()
    for label in ("warm", "cold"):
        add_class(page, label)
        page.evaluate("scene => { window.scene = scene; }", label)
        page.wait_for_timeout(500)  # until the webcam shows it
        record = page.get_by_role("button", name=f"Hold to record {label}")
        record.focus()
        page.keyboard.down("Space")
        expect(card(page, label).locator("img").nth(11)).to_be_attached()
        page.keyboard.up("Space")
    expect(page.locator("#accuracy")).to_contain_text(
        "are recognised by a model that has not seen them"
    )
    train.click()
    expect(page.locator("#model")).to_contain_text("probe-")
    first = page.locator("#answer li").first
    for label in ("warm", "cold", "warm"):
        page.evaluate("scene => { window.scene = scene; }", label)
        expect(first).to_contain_text(label)
    assert len(list((tmp_path / "photos" / "warm").glob("webcam-*.jpg"))) >= 12
    page.get_by_role("button", name="Turn the webcam off").click()
    expect(page.locator("#video")).to_be_hidden()
    assert problems == []

    for other in serve(tmp_path / "photos"):
        page, problems = open_page(browser, other, width=380)
        expect(page.locator("#model")).to_contain_text("probe-")
        picture = max((tmp_path / "photos" / "cold").glob("*.jpg"))
        page.locator("#test").set_input_files(picture)
        expect(page.locator("#answer li").first).to_contain_text("cold")
        with page.expect_request("**/api/predict"):  # the new model classifies it again
            page.locator("#train").click()
        expect(page.locator("#answer li").first).to_contain_text("cold")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert problems == []


def test_files_and_folders_are_added_and_undone(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for label in ("a", "b"):
        (source / label).mkdir(parents=True)
        for number in range(100):
            noise(40, 40, "RGB", number + 1000 * ord(label)).save(source / label / f"{number}.png")
    (source / "b" / "notes.txt").write_text("not a picture")
    (source / "bad.png").write_text("no picture")
    page, problems = open_page(browser, address)
    page.locator("#folders").set_input_files(source / "a")
    expect(card(page, "a").get_by_text("100 pictures")).to_be_visible()
    page.locator("#folders").set_input_files(source / "b")
    expect(card(page, "b").get_by_text("100 pictures")).to_be_visible()
    undo, error = page.locator("#undo"), page.get_by_role("alert")
    expect(undo).to_have_text("Undo adding 100 pictures to b")

    files = card(page, "a").locator("input[type=file]")
    files.set_input_files(source / "bad.png")
    expect(error).to_contain_text("bad.png: The file cannot be read as a picture")
    card(page, "a").get_by_role("button", name="Delete the picture").first.press("Enter")
    expect(card(page, "a").get_by_text("99 pictures")).to_be_visible()
    expect(error).to_be_hidden()
    expect(card(page, "a").get_by_role("button", name="Delete the picture").first).to_be_focused()
    page.keyboard.press("Control+z")
    expect(card(page, "a").get_by_text("100 pictures")).to_be_visible()

    card(page, "b").get_by_label("Name of the class").fill("beta")
    page.keyboard.press("Enter")
    expect(card(page, "beta").get_by_label("Name of the class")).to_be_focused()
    card(page, "a").get_by_role("combobox").select_option("beta")
    card(page, "a").get_by_role("button", name="Merge a into beta").click()
    expect(card(page, "beta").get_by_text("200 pictures")).to_be_visible()
    expect(card(page, "a")).to_have_count(0)
    undo.click()
    expect(card(page, "a").get_by_text("100 pictures")).to_be_visible()
    assert problems == []


def test_a_webcam_that_is_refused_is_a_sentence(browser: Browser, address: str) -> None:
    page, problems = open_page(browser, address)
    add_class(page, "cup")
    page.get_by_role("button", name="Hold to record cup").click()
    expect(page.get_by_role("alert")).to_contain_text("The webcam cannot be used: ")
    expect(card(page, "cup").get_by_text("0 pictures")).to_be_visible()
    page.get_by_label("Name of a new class").fill("../up")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("cannot be the name of a folder")
    assert problems == []


DROP = """([folders, target]) => {
  const entries = folders.map(([name, bytes]) => {
    const file = new File([new Uint8Array(bytes)], "1.png", { type: "image/png" });
    const entry = { isFile: true, file: (give) => give(file) };
    let given = false;
    const readEntries = (give) => { give(given ? [] : [entry]); given = true; };
    return name ? { isDirectory: true, name, createReader: () => ({ readEntries }) } : entry;
  });
  const items = entries.map((each) => ({ webkitGetAsEntry: () => each }));
  const event = new Event("drop", { bubbles: true, cancelable: true });
  Object.defineProperty(event, "dataTransfer", { value: { items } });
  document.querySelector(target).dispatchEvent(event);
}"""
"""Drop a folder of one picture for each pair of a name and the content of a file.

Without a name, the file itself is dropped.
"""


def png(seed: int) -> list[int]:
    """Return the bytes of a picture file."""
    noise(40, 40, "RGB", seed).save(buffer := io.BytesIO(), "PNG")
    return list(buffer.getvalue())


def test_dropped_folders_become_classes(browser: Browser, address: str) -> None:
    page, _ = open_page(browser, address)
    page.evaluate(DROP, [[["cup", png(1)]], "body"])
    expect(card(page, "cup").get_by_text("1 picture")).to_be_visible()
    page.evaluate(DROP, [[["", png(2)]], ".class"])
    expect(card(page, "cup").get_by_text("2 pictures")).to_be_visible()
    page.evaluate(DROP, [[["", png(2)]], "h1"])
    expect(page.get_by_role("alert")).to_have_text("Drop pictures on a class, or drop folders.")


def test_a_refused_folder_does_not_stop_the_others(browser: Browser, address: str) -> None:
    page, problems = open_page(browser, address)
    decomposed = "cafe\N{COMBINING ACUTE ACCENT}  bar"
    folders = [["x" * 61, png(1)], [decomposed, png(2)], [decomposed, png(3)], ["key", png(4)]]
    page.evaluate(DROP, [folders, "body"])
    expect(card(page, "key").get_by_text("1 picture")).to_be_visible()
    expect(card(page, "caf\N{LATIN SMALL LETTER E WITH ACUTE} bar")).to_contain_text("2 pictures")
    expect(page.get_by_role("alert")).to_have_text(
        "The name of a class must have 1 to 60 characters."
    )
    page.evaluate(DROP, [[[decomposed, png(5)]], "body"])
    expect(card(page, "caf\N{LATIN SMALL LETTER E WITH ACUTE} bar")).to_contain_text("3 pictures")
    assert problems == []


def test_what_another_program_did_is_said(browser: Browser, address: str, tmp_path: Path) -> None:
    page, _ = open_page(browser, address)
    add_class(page, "cup")
    said, folder = page.locator("#problems"), tmp_path / "photos"
    noise(40, 40, "RGB", 1).save(folder / "loose.png")
    expect(said).to_contain_text("These do not fit: loose.png.")
    (folder / "loose.png").unlink()
    expect(said).to_be_empty()
    (folder / "cup" / "1.heic").write_bytes(b"")
    (folder / "cup" / "2.jpg").symlink_to("nowhere")
    expect(said).to_contain_text("1 file is not used: cup/1.heic (HEIC is not supported")
    expect(said).to_contain_text("2.jpg")
    asked = "To train a model, add pictures to at least two classes."
    expect(page.locator("#status")).to_have_text(asked)
