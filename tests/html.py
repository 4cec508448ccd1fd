"""HTML as tests read it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """A page read strictly: tags that close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def text(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if not tags or tag in tags]

    @property
    def whole(self) -> str:
        return " ".join(self.text())

    @property
    def absent(self) -> list[str]:
        return [text for text in self.text("p") if text.startswith("Not here: ")]
