"""View all pages (page.py and the others) in headless Chromium: on a phone, on a desk, and printed."""

import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelnet import TrainOptions, show_batch, show_cache, show_run, train
from modelnet.pages.collect import gather
from modelnet.pages.page import render
from pipeline import build_cache
from tests.support.made_runs import ANSWERS, BAD_FILE, HOSTILE, make_run, many_classes
from tests.support.photos import save_jpeg

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "chromium is not installed: no browser looks at the report"
pytestmark = [pytest.mark.long, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

WIDTHS = (320, 400, 1000, 1200)
MEASURE = """
onload = () => {
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, images = [...page.images];
    return {
      name: frame.name, width: frame.clientWidth, wide: page.documentElement.scrollWidth, title: page.title,
      scripts: page.scripts.length, images: images.length, drawn: images.filter(i => i.naturalWidth > 0).length,
      nameless: images.filter(i => !i.alt).length, text: page.body.innerText,
      cut: [...page.querySelectorAll("h1, p, dd, li, figcaption")]
        .filter(e => e.scrollWidth > e.clientWidth + 1).length,
      scrolled: [...page.querySelectorAll(".wrapped")].map(e => e.parentElement)
        .filter(e => e.scrollWidth > e.clientWidth).length,
      curves: [...page.querySelectorAll(".curves svg")].map(e => [e.clientWidth, e.clientHeight]),
    };
  }));
};
"""

Browse = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """Start the browser with these flags on a file; it can reach no network, and its console is on stderr."""
    profile = tmp_path_factory.mktemp("profile")

    def run(page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *flags)
        flags += (f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr")
        command = [str(CHROMIUM), *flags, "--virtual-time-budget=10000", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)

    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write pages: of a real run with names of any kind, of seeds, of two groups, of a thousand classes."""
    place = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(place)
        monkeypatch.setattr("modelnet.training.loop.loss_curves", lambda *_: b"")
        folder = HOSTILE.replace("/", "")
        for seed, class_id in enumerate(("snake", folder) * 3):
            save_jpeg(place / "photos" / class_id / f'{seed} "quoted" <i>{"long" * 20}.jpg', 70, 60, seed)
        build_cache("photos", "photos.h5", size=64, workers=1)
        options = TrainOptions(Path("photos.h5"), val=Path("photos.h5"), epochs=2, name="real", threads=1, device="cpu")
        runs = {
            "real": [train(options).run],
            "seeds": [make_run(f"seed-{i}", [0.7, 0.3 + i / 10], ANSWERS, seed=i) for i in range(3)],
            "thousand": [many_classes()],
        }
        other = make_run("other-" + "x" * 60, [0.7, 0.4], ANSWERS, ((1, "p" * 90, 6), (2, "snake", 2)), lr=0.02)
        runs["groups"] = [*runs["seeds"], other]
        for name, paths in runs.items():
            (place / f"{name}.html").write_bytes(render(gather(paths)))
        shown = {"cache": show_cache("photos.h5"), "batch": show_batch(options), "network": show_run(runs["real"][0])}
        for name, page in shown.items():
            (place / f"{name}.html").write_bytes(page)
    return {name: place / f"{name}.html" for name in (*runs, *shown)}


@pytest.fixture(scope="module")
def seen(pages: dict[str, Path], browse: Browse) -> list[dict[str, Any]]:
    """What the browser makes of each page at each width, from a page of frames around them."""
    frames = [
        f'<iframe name="{name}" src="{path.name}" style="width:{width}px;height:800px;border:0"></iframe>'
        for name, path in pages.items()
        for width in WIDTHS
    ]
    around = pages["real"].parent / "around.html"
    around.write_text(f"<!doctype html><pre id=found></pre>{''.join(frames)}<script>{MEASURE}</script>")
    done = browse(around, "--allow-file-access-from-files", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr  # where it would complain of what the page may not load
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    measured: list[dict[str, Any]] = json.loads(html.unescape(found))
    assert len(measured) == len(pages) * len(WIDTHS)
    return measured


def test_no_page_is_wider_than_the_screen(seen: list[dict[str, Any]]) -> None:
    assert [(one["name"], one["width"], one["wide"]) for one in seen if one["wide"] > one["width"]] == []
    assert [(one["name"], one["width"], one["cut"]) for one in seen if one["cut"]] == []


def test_the_table_of_groups_fits_on_a_desk(seen: list[dict[str, Any]]) -> None:
    groups = {one["width"]: one["scrolled"] for one in seen if one["name"] == "groups"}
    assert (groups[320], groups[1000], groups[1200]) == (1, 0, 0)  # one there is: on a phone it scrolls


def test_curves_are_as_wide_as_there_is_room_for(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        figures = {"cache": 2, "batch": 0, "network": 0}.get(one["name"], 4)
        assert len(one["curves"]) >= figures
        for width, height in one["curves"][-figures:] if figures else []:
            assert (0.85 if one["width"] < 500 else 0.35) * one["width"] < width < one["width"]
            assert 0.5 < height / width < 0.9


def test_pictures_are_drawn_and_have_a_text(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert one["images"] == one["drawn"] and one["nameless"] == 0
        assert (one["images"] > 0) == (one["name"] in ("real", "cache", "batch", "network"))


def test_nothing_in_a_name_runs(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert one["scripts"] == 0 and one["title"] != "owned"
    texts = {one["name"]: one["text"] for one in seen}
    for name in ("real", "cache", "batch", "network"):
        assert HOSTILE.replace("/", "") in texts[name]
    assert "Mistakes" in texts["real"]
    assert repr(BAD_FILE) in texts["seeds"] and "2 of 3 starts" not in texts["groups"]


def test_a_page_that_asks_for_the_network_would_be_noticed(pages: dict[str, Path], browse: Browse) -> None:
    asking = pages["real"].parent / "asking.html"
    asking.write_bytes(pages["real"].read_bytes().replace(b"<main>", b'<main><img src="http://example.com/x.png">'))
    assert "Content Security Policy" in browse(asking, "--dump-dom").stderr


@pytest.mark.parametrize("width", [400, 1200])
def test_a_screenshot_shows_the_page(width: int, pages: dict[str, Path], browse: Browse, tmp_path: Path) -> None:
    browse(pages["real"], f"--window-size={width},1200", "--hide-scrollbars", f"--screenshot={tmp_path / 's.png'}")
    pixels = np.asarray(Image.open(io.BytesIO((tmp_path / "s.png").read_bytes())).convert("RGB"))
    assert pixels.shape == (1200, width, 3)
    rows = (pixels != pixels[0, 0]).any(2).any(1)
    assert rows[:600].mean() > 0.4  # lines of text, facts and curves down the page


def test_a_printed_page_has_its_pictures_and_few_sheets(pages: dict[str, Path], browse: Browse, tmp_path: Path) -> None:
    browse(pages["real"], "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'r.pdf'}")
    pdf = (tmp_path / "r.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Subtype /Image") >= pages["real"].read_bytes().count(b"<img ") > 0
    assert 1 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 4
