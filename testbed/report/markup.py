"""HTML from values: whatever is not markup already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML and stays as it is."""

    __slots__ = ()


def escape(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Markup:
    return Markup(between.join(escape(part) for part in parts))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """``element("p", text, class_="note")``; an attribute loses a last underscore, others become hyphens."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{told}>{join(children)}</{name}>")


def section(title: str, *children: object, note: str = "") -> Markup:
    heading = element("h2", title)
    return element("section", heading, *([element("p", note, class_="note")] if note else []), *children)


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], *, num_text: int = 1) -> Markup:
    """The first `num_text` columns are text, the others figures. A wide table scrolls within its frame."""
    styles = ["text" if index < num_text else "figure" for index in range(len(header))]
    head = join(element("th", name, scope="col", class_=style) for name, style in zip(header, styles, strict=True))
    body = join(element("tr", _first(row[0]), *_cells(row[1:], styles[1:])) for row in rows)
    inner = element("table", element("caption", caption), element("thead", element("tr", head)), element("tbody", body))
    return element("div", inner, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _first(cell: object) -> Markup:
    return element("th", cell, scope="row", class_="text")


def _cells(row: Sequence[object], styles: Sequence[str]) -> list[Markup]:
    return [element("td", cell, class_=style) for cell, style in zip(row, styles, strict=True)]


def facts(pairs: Iterable[tuple[object, object]]) -> Markup:
    """Names and what they are, as a definition list."""
    return element("dl", *(element("div", element("dt", name), element("dd", told)) for name, told in pairs))


def figure(title: str, image: Markup, *below: object) -> Markup:
    return element("figure", element("figcaption", title), image, *below)
