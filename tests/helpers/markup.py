"""Rules of accessible HTML, checked on the parsed page: what axe and the WCAG ask that can be seen without a browser."""

import html.parser
import itertools
import re

VOID = {"meta", "input", "br", "img", "link", "hr", "path", "use", "rect", "circle"}
CONTROLS = {"select", "input", "textarea"}


class Node:
    """An element with its attributes, children and text."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    def all(self, *tags):
        for child in self.children:
            if isinstance(child, Node):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    @property
    def text(self):
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return re.sub(r"\s+", " ", "".join(parts)).strip()

    def inside(self, *tags):
        return self.parent is not None and (self.parent.tag in tags or self.parent.inside(*tags))


class Tree(html.parser.HTMLParser):
    """The page as nodes."""

    def __init__(self, source):
        super().__init__()
        self.root = self.node = Node("", {}, None)
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        made = Node(tag, dict(attrs), self.node)
        self.node.children.append(made)
        if tag not in VOID:
            self.node = made

    def handle_startendtag(self, tag, attrs):
        self.node.children.append(Node(tag, dict(attrs), self.node))

    def handle_endtag(self, tag):
        if tag not in VOID:
            self.node = self.node.parent

    def handle_data(self, data):
        self.node.children.append(data)


def problems(source):
    """What a screen reader or a keyboard would stumble over, one line each."""
    root = Tree(source).root
    ids = {node.attributes["id"]: node for node in root.all() if "id" in node.attributes}
    return [*_document(root), *_headings(root), *_images(root, ids), *_tables(root), *_controls(root), *_focus(root, ids)]


def _document(root):
    (page,) = root.all("html")
    if not page.attributes.get("lang"):
        yield "html has no lang"
    if not next(root.all("title")).text:
        yield "the title is empty"
    for tag in ("main", "header", "footer"):
        if sum(not node.inside("main", "article") or tag == "main" for node in root.all(tag)) != 1:
            yield f"there is not one {tag} of the page"
    if any(not node.attributes.get("aria-label") for node in root.all("nav")):
        yield "a nav has no label"
    viewport = [node for node in root.all("meta") if node.attributes.get("name") == "viewport"]
    if not viewport or re.search(r"user-scalable=no|maximum-scale", viewport[0].attributes["content"]):
        yield "the page cannot be enlarged"


def _headings(root):
    levels = [(int(node.tag[1]), node.text) for node in root.all("h1", "h2", "h3", "h4", "h5", "h6")]
    if [level for level, _ in levels].count(1) != 1 or levels[0][0] != 1:
        yield "there is not one h1, at the top"
    for (before, _), (level, text) in itertools.pairwise(levels):
        if level > before + 1:
            yield f"the heading {text!r} skips a level"
    yield from (f"an h{level} is empty" for level, text in levels if not text)


def _named(node, ids):
    labels = [ids[name].text for name in node.attributes.get("aria-labelledby", "").split() if name in ids]
    return (node.attributes.get("aria-label") or " ".join(labels)).strip()


def _images(root, ids):
    for node in root.all("img"):
        if node.attributes.get("alt") is None:
            yield f"img {node.attributes.get('src')} has no alt"
    for node in root.all("svg"):
        if node.attributes.get("role") != "img" or not _named(node, ids):
            yield "a drawing has no role or name"
    for node in root.all("figure"):
        if not any(child.text for child in node.all("figcaption")):
            yield "a figure has no caption"


def _tables(root):
    for table in root.all("table"):
        if not any(caption.text for caption in table.all("caption")):
            yield "a table has no caption"
        for head in table.all("thead"):
            if any(cell.attributes.get("scope") != "col" or not cell.text for cell in head.all("th", "td")):
                yield "a column has no header with scope"
        for body in table.all("tbody"):
            for row in body.all("tr"):
                first = next(row.all("th", "td"))
                if (first.tag, first.attributes.get("scope")) != ("th", "row"):
                    yield f"the row {row.text[:40]!r} has no header with scope"


def _controls(root):
    targets = {node.attributes["for"] for node in root.all("label") if "for" in node.attributes}
    for node in root.all(*CONTROLS):
        known = node.inside("label") or node.attributes.get("id") in targets or node.attributes.get("aria-label")
        if not known and node.attributes.get("type") != "hidden":
            yield f"the control {node.attributes.get('name')} has no label"
    for node in root.all("button", "a", "summary", "option"):
        if not node.text:
            yield f"a {node.tag} has no text"


def _focus(root, ids):
    for node in root.all():
        if int(node.attributes.get("tabindex", 0)) > 0:
            yield f"{node.tag} has a tabindex above 0"
        if node.attributes.get("role") == "region" and not _named(node, ids):
            yield "a region has no name"
        if node.attributes.get("aria-hidden") == "true" and any(
            child.tag in {"a", "button", *CONTROLS} for child in node.all()
        ):
            yield "something that takes the focus is hidden from screen readers"
    skip = next(root.all("a"), None)
    if skip is None or skip.attributes.get("href", "")[1:] not in ids:
        yield "the first link does not skip to the content"


def luminance(color):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """Contrast ratio of two colors, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
