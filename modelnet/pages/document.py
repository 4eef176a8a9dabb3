"""Render pages: one file each that needs no network, no server and no JavaScript; every value is escaped."""

import io
import re
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from modelnet.plots.palette import COLORS, FULL
from pipeline.text import counted


class Curve(NamedTuple):
    """A figure with its title, and a text that says the same."""

    title: str
    svg: Markup
    alt: str


class Fact(NamedTuple):
    """A number at the head of a page, with its label and an explanation."""

    label: str
    value: str
    detail: str = ""


class Picture(NamedTuple):
    """An image as a page shows it.

    Attributes:
        source: a data: URL, or empty without a picture.
        file: its name.
        true: its class; empty where that is said elsewhere.
        predicted: the class that it was taken for, if any.
        detail: a line below.
    """

    source: str
    file: str
    true: str = ""
    predicted: str = ""
    detail: str = ""


def render_page(template: str, **values: Any) -> bytes:
    """Return a page in UTF-8. The same values give the same bytes."""
    return _environment().get_template(template).render(values).encode("utf-8", "backslashreplace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and classes can be anything
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"anchor": _anchor, "headings": _headings}
    style = environment.get_template("page.css.jinja").render(colors=COLORS, full=FULL)
    environment.globals |= {"style": Markup(style), "counted": counted}
    return environment


def _anchor(text: str) -> str:
    """Return the name of a heading in links: "Is it better?" -> "is-it-better"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _headings(body: Markup) -> list[tuple[str, Markup]]:
    """Return name and text of each heading of a rendered page, for its list of contents."""
    return [(name, Markup(text)) for name, text in re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', body)]


def data_url(jpeg: bytes | None) -> str:
    """Return a picture as an address that holds all of it; "" without one."""
    return "" if jpeg is None else f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


def jpeg_of(pixels_CHW: NDArray[np.uint8], side: int, quality: int = 85) -> bytes:
    """Return a picture, (3, H, W) uint8, as a JPEG of at most `side` pixels a side."""
    picture: Any = Image.fromarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)))
    picture.thumbnail((side, side))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=quality)
    return jpeg.getvalue()
