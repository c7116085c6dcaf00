"""The parts of a Markdown document that the checks read: prose, links, anchors, code."""

import dataclasses
import re

CODE_SPAN = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"!?\[((?:[^\[\]`]|`[^`]*`)*)\]\(([^()\s]+)\)")
LIST_MARK = re.compile(r"^\s*(?:[-*]|\d+\.) +")
# The end of a sentence: the mark, closing quotes or brackets, white space, and a sign of a new beginning.
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+(?=[\"'(\[*_`]*[A-Z0-9`])")


@dataclasses.dataclass
class Block:
    """Prose: a paragraph, an item of a list, a heading or a cell of a table. `line` counts from 1."""

    kind: str
    line: int
    text: str


@dataclasses.dataclass
class Code:
    """A fenced block of code."""

    language: str
    line: int
    text: str


class Document:
    """One Markdown file."""

    def __init__(self, text):
        self.lines = text.split("\n")
        self.blocks = []
        self.code = []
        self.prose_lines = []
        self._read()

    def _read(self):
        paragraph = None
        fence = None
        for number, line in enumerate(self.lines, 1):
            stripped = line.strip()
            if stripped.startswith("```"):
                paragraph = None
                if fence is None:
                    fence = Code(stripped[3:].strip(), number, "")
                else:
                    self.code.append(fence)
                    fence = None
            elif fence is not None:
                fence.text += line + "\n"
            elif not stripped or stripped.startswith("<!--"):
                paragraph = None
            elif stripped.startswith("#"):
                paragraph = None
                self.blocks.append(Block("heading", number, stripped.lstrip("#").strip()))
            elif stripped.startswith("|"):
                paragraph = None
                for cell in self._cells(stripped):
                    self.blocks.append(Block("cell", number, cell))
            else:
                self.prose_lines.append((number, line))
                if paragraph is None or LIST_MARK.match(line):
                    paragraph = Block("paragraph", number, LIST_MARK.sub("", line).strip())
                    self.blocks.append(paragraph)
                else:
                    paragraph.text += " " + stripped

    @staticmethod
    def _cells(row):
        bare = CODE_SPAN.sub(lambda span: span.group().replace("|", "\0"), row)
        for cell in bare.strip("|").split("|"):
            cell = cell.replace("\0", "|").strip()
            if cell and not re.fullmatch(r":?-+:?", cell):
                yield cell

    def anchors(self):
        """The anchors of the headings, as GitHub and mdBook make them."""
        seen = {}
        anchors = set()
        for block in self.blocks:
            if block.kind != "heading":
                continue
            text = LINK.sub(r"\1", block.text).replace("`", "")
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = seen.get(anchor, 0)
            seen[anchor] = count + 1
            anchors.add(f"{anchor}-{count}" if count else anchor)
        return anchors

    def links(self):
        """Each link's line and target."""
        for block in self.blocks:
            for link in LINK.finditer(CODE_SPAN.sub("`code`", block.text)):
                yield block.line, link.group(2)

    def spans(self):
        """Each code span's line and text."""
        for block in self.blocks:
            for span in CODE_SPAN.finditer(block.text):
                yield block.line, span.group(2).strip()


class Comments:
    """The comments of a manifest or a configuration, and the texts of alerts: blocks, as of a document."""

    COMMENT = re.compile(r"^\s*# ?(.*)$")
    TEXT = re.compile(r"^\s*(?:summary|description): (.*)$")

    def __init__(self, text):
        self.blocks = []
        paragraph = None
        for number, line in enumerate(text.split("\n"), 1):
            comment, alert = self.COMMENT.match(line), self.TEXT.match(line)
            # Deeper indentation is code or a table.
            if comment and comment.group(1) and not comment.group(1).startswith(" "):
                if paragraph is None:
                    paragraph = Block("paragraph", number, comment.group(1))
                    self.blocks.append(paragraph)
                else:
                    paragraph.text += " " + comment.group(1)
            else:
                paragraph = None
            if alert:
                # The names of labels are not prose.
                self.blocks.append(Block("paragraph", number, re.sub(r"\{\{.*?\}\}", "`value`", alert.group(1))))


def plain(text):
    """The words of a block: links without targets, one word for each code span, no emphasis."""
    text = CODE_SPAN.sub("`code`", text)
    return LINK.sub(r"\1", text).replace("**", "")


def sentences(text):
    """The sentences of a block's words."""
    return [sentence for sentence in SENTENCE_END.split(plain(text)) if sentence.strip()]
