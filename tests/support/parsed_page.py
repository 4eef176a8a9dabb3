"""A page as a browser reads it: its elements and its text."""

import re
from html.parser import HTMLParser


class ParsedPage(HTMLParser):
    """The elements of a page, and its text as a reader has it."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.bytes = page
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(page.decode())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style" and self.elements[-1][1].get("class") != "close":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def check_safe(self) -> None:
        """Check that no name became markup, and that nothing outside the page is loaded."""
        assert {tag for tag, _ in self.elements} & {
            "script",
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
        } == set()
        for tag, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
            assert {"srcset", "action", "data"} & attributes.keys() == set()
            assert attributes.get("src", "data:image/jpeg;").startswith("data:image/jpeg;")
            assert all(
                value.startswith(("#", "data:image/jpeg;")) for k, value in attributes.items() if k.endswith("href")
            )
        assert all(url.startswith(b"#") for url in re.findall(rb"url\(([^)]*)\)", self.bytes))
        assert b"@import" not in self.bytes
        assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", self.bytes)
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", self.bytes.decode())
        (policy,) = [m["content"] for m in self.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
