"""The rules for each document by itself: width, phrases, length of sentences."""

import re

from markdown import CODE_SPAN, plain, sentences

# Columns of a line of prose. Tables and code may be wider.
WIDTH = 100
# Words of a sentence.
WORDS = 40

FRACTION = r"fifth|tenth|quarter|third|sixth|eighth|twelfth|twentieth"

# Phrases that the documents do not use, with what to write instead.
BANNED = [
    (r"\bdoors?\b", "REST port, gRPC port or protocol"),
    (r"\b(does|do|did) not hold\b|\bwhat holds\b", "valid or invalid"),
    (r"\b(to|be|can be) had\b", "available"),
    (r"\b(is|are|was|were) told\b", "reported, or told by a named subject"),
    (r"\bc(o|a)mes? by\b|\bcame by\b", "found"),
    (r"\btak(e|es|en) back\b|\btook back\b", "rolled back or deleted"),
    (r"\bstands?\b(?! (for|alone))", "exists or is current"),
    (r"\blook(s|ed)? at\b|\bto look\b|\ba look\b", "check"),
    (r"\bin earnest\b", "in production"),
    (r"\bshut\b(?! down)", "closed"),
    (r"\bso much\b|\bas many\b(?! .* as )", "the number"),
    (rf"\b(a|one|two|three|four|five|seven|nine) ({FRACTION})s?\b(?! party)", "a number with a unit"),
    (r"\bhalf as much\b|\bthree times over\b", "a number with a unit"),
    (r"\bvouch(es)? for\b", "verify, or certificate authority"),
    (r"\bwhoever\b|\bwhosoever\b", "a noun"),
    (r"\bof their own making\b|\bat hand\b|\bby and by\b|\bhung up on\b", "plain words"),
]
# Words that begin a clause which takes the place of a noun. A question may begin with them.
CLAUSE = re.compile(r"^(what|who|whose|whom)\b", re.IGNORECASE)


def width(document):
    """Lines of prose that are too wide."""
    for number, line in document.prose_lines:
        # A link or a code span that does not fit into a line is alone in it.
        if len(line) > WIDTH and " " in CODE_SPAN.sub("code", line).strip():
            yield number, f"the line has {len(line)} columns; wrap prose at {WIDTH}"


def phrases(document):
    """Banned phrases, and clauses in the place of nouns."""
    for block in document.blocks:
        words = plain(block.text)
        for pattern, instead in BANNED:
            found = re.search(pattern, words, re.IGNORECASE)
            if found:
                yield block.line, f'the phrase "{found.group()}" is banned; write {instead}'
        if block.kind == "heading":
            continue
        for sentence in sentences(block.text):
            if CLAUSE.match(sentence.lstrip("*_\"'(")) and not sentence.rstrip("*_\"')").endswith("?"):
                yield block.line, f'a sentence begins with a clause in place of a noun: "{sentence[:40]}"'


def lengths(document):
    """Sentences that are too long."""
    for block in document.blocks:
        for sentence in sentences(block.text):
            count = len(sentence.split())
            if count > WORDS:
                yield block.line, f'a sentence has {count} words; split it at {WORDS}: "{sentence[:40]}"'
