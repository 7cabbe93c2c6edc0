"""A page as a tree of what a person reads; that it parses at all shows that every tag is closed and every value escaped."""

import re
from xml.etree import ElementTree as ET

# What would load or run something.
ACTIVE = re.compile(r"https?:|//[a-z]|\bsrc=|@import|url\((?!#)|<(script|link|img|iframe)|\bon[a-z]+=")


class Page:
    """A page's HTML and its tree."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.root = ET.fromstring(html)  # noqa: S314 - our own page

    def texts(self, path: str) -> list[str]:
        return [said(element) for element in self.root.iterfind(path)]

    def part(self, heading: str) -> str:
        """What is said under a heading, in the first section that has it."""
        return next(said(part) for part in self.root.iter("section") if part.findtext("h3") == heading)

    def require_passive(self) -> None:
        """Fail if the page loads or runs anything, or may."""
        assert not ACTIVE.search(self.html)
        assert all(link.get("href", "").startswith("#") for link in self.root.iter("a"))
        policy = self.root.find(".//meta[@http-equiv='Content-Security-Policy']")
        assert policy is not None
        assert policy.get("content") == "default-src 'none'; style-src 'unsafe-inline'"


def said(element: ET.Element | None) -> str:
    """An element's words, a chart's tooltips left out."""
    assert element is not None
    return " ".join(_raw(element).split())


def _raw(element: ET.Element) -> str:
    inside = "" if element.tag == "g" else (element.text or "") + "".join(map(_raw, element))
    return inside + " " * (element.tag in {"td", "th"}) + (element.tail or "")
