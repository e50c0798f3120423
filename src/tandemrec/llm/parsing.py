"""What a language model's answer says: an order of candidates, or a number."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

NEAR = 0.85
"""Least similarity (Ratcliff/Obershelp) of a misspelt title."""

CLEAR = 0.05
"""By how much it must be nearer than every other candidate."""

CUT = 4
"""Least letters of a title that was cut off."""

ARTICLES = ("the", "a", "an", "le", "la", "les", "il", "el", "das", "der", "die")
YEAR = re.compile(r"\s*[(\[]\s*((?:1[89]|20)\d\d)\s*[)\]]?\s*$")
SWAPPED = re.compile(rf"^(.+?),\s+({'|'.join(ARTICLES)})\b(.*)$", re.IGNORECASE)
NUMBERED = re.compile(r"(?:^|(?<=[\s,;]))(?:#\s*\d{1,3}[.):\-]?|\(?\d{1,3}[.):])\s+(?=\S)")
LETTER = r"\(?[a-z](?:\)|\.(?=\s)(?!\s*[a-z]\.))"
"""Before a name: "a)", "b. ", but not the beginning of "E.T."."""
BULLET = re.compile(
    rf"^\s*(?:[-*•–—>+]+|#+|\(?\d{{1,3}}[.):\]]|{LETTER}|#\d{{1,3}}[.):]?|rank\s*\d{{1,3}}\s*[:.)-])\s*", re.I
)
LISTED = re.compile(r"[\"”»]\s*[;,]\s*[\"“«]")
"""Between two names in quotes."""
QUOTED = re.compile(r"[\"“”«»]([^\"“”«»]{2,})[\"“”«»]")
QUOTES = "\"'“”‘’«»`*_ \t"
MARKS = QUOTES + ".,;!"
NUMBER = re.compile(r"(?<![\d.,])[-+]?\d+(?:[.,]\d+)?")
OF_MOST = re.compile(r"(?<=\d)\s{0,9}(?:/|out of|von|of)\s{0,9}\d+(?:[.,]0)?\b", re.IGNORECASE)
SCALE = re.compile(
    r"(?:\b(?:scale|skala)\s+(?:of|from|von)|\bfrom|\bbetween|\bvon)\s+([\d.,]+)\s*(?:to|and|-|–|bis|und)\s*([\d.,]+)",
    re.IGNORECASE,
)
NUMERAL = r"(?:\d{1,2}|ii|iii|iv|vi{0,3}|ix)"
SEQUEL = re.compile(NUMERAL + r"\b(?!\s+(?:\d|of\b|out\b|stars?\b|points?\b))")
"""What makes "Alien" another title when it follows."""
RUNNING_SEQUEL = re.compile(NUMERAL + r" (?:(?:1[89]|20)\d\d |$)")
"""The same in running text, where a number may also be that of the next title."""
THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.IGNORECASE | re.DOTALL)
BEGUN_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.IGNORECASE | re.DOTALL)
TALK = tuple("here sure based rank answer these this note hope because please therefore thank output response".split())
WORDED = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
UNITS = ("star", "stars", "point", "points", "out", "of")


@dataclass(frozen=True)
class ParsedRanking:
    """The candidates an answer names.

    Attributes:
        order: their places in the list of candidates, best first, each once.
        duplicates: names that repeat a candidate.
        inventions: names that are no candidate.
    """

    order: tuple[int, ...]
    duplicates: int = 0
    inventions: int = 0

    @property
    def failed(self) -> bool:
        """Whether the answer names no candidate at all."""
        return not self.order


def parse_ranking(answer: str, titles: Sequence[str]) -> ParsedRanking:
    """Read a ranking of candidates in whatever form a model wrote it.

    Understood are lists by lines, numbers, bullets, quotes, semicolons, arrows, bars, commas and JSON; another case,
    accents, entities, moved articles ("Matrix, The"), missing or added years, comments behind a title, misspellings, a
    title that is cut off, words around the list. Two candidates of one title are told apart by their years, or else
    named one after the other. Thoughts between `<think>` and `</think>` are no part of the answer.

    Args:
        answer: the generated text.
        titles: of the candidates.
    """
    forms, answer = _Forms(titles), _without_thoughts(answer)
    names, found = _found(forms, _entries(answer, _pieces))
    if LISTED.search(answer):
        # Marks of inches in a title, or a title of one letter, make quotes pair up wrongly; what parts them does not.
        listed = _found(forms, _entries(answer, _listed))
        if _named(listed[1]) >= _named(found):
            names, found = listed
    if _named(found) <= 1:
        searched = forms.search(answer)
        if len(searched) > _named(found):
            return _counted([*searched], 0)
    # Words around a list ("Here is my ranking:") and numbers name nothing and are no invention.
    strange = sum(item is None and not _is_talk(_tidy(name)) for name, item in zip(names, found, strict=True))
    return _counted([item for item in found if item is not None], strange)


def _found(forms: _Forms, pieces: Iterable[str]) -> tuple[list[str], list[int | None]]:
    """The pieces of an answer that could be names, and the candidate each means."""
    names = [name for name in pieces if _plain(name)]
    forms.named.clear()
    return names, [forms.find(name, last=place + 1 == len(names)) for place, name in enumerate(names)]


def _named(found: Sequence[int | None]) -> int:
    return sum(item is not None for item in found)


def parse_rating(answer: str, low: float, high: float) -> float | None:
    """The number an answer gives, if it lies within [low, high]: that of a first line which is nothing else, the last
    one behind a colon, or the first of all.

    "4/5" and "4 out of 5" are 4; "on a scale of 1 to 5" and "between 1 and 5" say the range only; a number in words
    counts ("one" alone or of stars, since "this one" is none); None where there is none in range. Thoughts between
    `<think>` and `</think>` are no part of the answer.
    """
    answer = _without_thoughts(answer)
    text = SCALE.sub(lambda range_: "" if _is_scale(range_, low, high) else range_[0], OF_MOST.sub("", answer))
    # A language model that was only trained to go on with texts writes the next question behind its answer.
    first = text.strip().partition("\n")[0].strip(MARKS)
    for part in (first if NUMBER.fullmatch(first) else "", text.rpartition(":")[2] if ":" in text else "", text):
        for match in NUMBER.finditer(part):
            value = float(match.group().replace(",", "."))
            if low <= value <= high:
                return value
    words = re.findall(r"[a-z]+", answer.lower())
    meant = [word for word, after in pairwise([*words, ""]) if word != "one" or after in ("", *UNITS)]
    return next((float(WORDED[word]) for word in meant if low <= WORDED.get(word, low - 1) <= high), None)


def _is_scale(found: re.Match[str], low: float, high: float) -> bool:
    """Whether "between 1 and 5" names the range of ratings rather than a doubt; what is called a scale always does."""
    ends = [float(number.strip(".,").replace(",", ".") or "nan") for number in found.groups()]
    return found[0][0] in "sS" or (ends[0] <= max(low, 1) and ends[1] == high)


def _without_thoughts(answer: str) -> str:
    """What a reasoning model says beside its thoughts, cut off or begun in the prompt as they may be; single blanks."""
    said = BEGUN_THOUGHT.sub("", THOUGHT.sub("\n", answer))
    return re.sub(r"[^\S\n]+", " ", said)


class _Forms:
    """Normal forms of the candidates' titles: with their year and without."""

    def __init__(self, titles: Sequence[str]) -> None:
        self.titles = titles
        self.years = [_year(title) for title in titles]
        self.full = [_plain(title) for title in titles]
        self.bare = [_plain(_without_year(title)) or full for title, full in zip(titles, self.full, strict=True)]
        self.named: set[int] = set()
        self.matchers: dict[str, SequenceMatcher[str]] = {}

    def find(self, name: str, *, last: bool) -> int | None:
        """The candidate that a name means; the last one may be cut off."""
        light = _plain(name.strip(MARKS))
        exact = [i for i, form in enumerate(self.full) if form == light and i not in self.named]
        if exact:  # before anything that looks like a bullet is taken away
            self.named.add(exact[0])
            return exact[0]
        name = _tidy(name)
        year = _year(name)
        for text in _readings(name):
            found = self._match(text, year, last=last)
            if found is not None:
                self.named.add(found)
                return found
        return None

    def _match(self, text: str, year: str | None, *, last: bool) -> int | None:
        full, bare = _plain(text), _plain(_without_year(text))
        if not bare:
            return None
        exact = [i for i, form in enumerate(self.full) if form == full]
        same = exact or [i for i, form in enumerate(self.bare) if bare in (form, self.full[i])]
        if not same:
            same = self._surrounded(bare, year)
        if not same:
            same = self._begun(bare, last=last)
        if not same:
            same = self._near(bare)
        of_year = [i for i in same if year is not None and self.years[i] == year]
        return next((i for i in of_year or same if i not in self.named), same[0] if same else None)

    def _surrounded(self, bare: str, year: str | None) -> list[int]:
        """The longest title that the name starts with, a comment behind it; or a long one somewhere in it.

        Not where a number or another year make it the title of a sequel, which is no candidate.
        """
        able = [i for i, form in enumerate(self.bare) if form and year in (None, self.years[i] or year)]
        starts = [i for i in able if bare.startswith(self.bare[i] + " ") and len(self.bare[i]) >= CUT]
        inside = [i for i in able if f" {self.bare[i]} " in f" {bare} " and len(self.bare[i].split()) > 1]
        several = starts or inside
        longest = max((len(self.bare[i]) for i in several), default=0)
        return [
            i
            for i in several
            if len(self.bare[i]) == longest and not SEQUEL.match(bare.partition(self.bare[i])[2].lstrip())
        ]

    def _begun(self, bare: str, *, last: bool) -> list[int]:
        """The title that a name is the beginning of, if there is only one: cut off, or without its subtitle."""
        if len(bare) < CUT:
            return []
        if not last:
            several = [i for i, form in enumerate(self.bare) if form.startswith(bare + " ")]
        else:
            several = [i for i, form in enumerate(self.bare) if form.startswith(bare)]
        return several if len({self.bare[i] for i in several}) == 1 else []

    def _near(self, bare: str) -> list[int]:
        """The candidate of the most similar title, if it is similar and clearly the nearest."""
        numbers = re.findall(r"\d+", bare)
        able = {form for form in self.bare if re.findall(r"\d+", form) == numbers}
        scores = sorted(((self._similarity(bare, form), form) for form in able), reverse=True)
        if scores and scores[0][0] >= NEAR and (len(scores) == 1 or scores[0][0] - scores[1][0] >= CLEAR):
            return [i for i, form in enumerate(self.bare) if form == scores[0][1]]
        return []

    def _similarity(self, bare: str, form: str) -> float:
        """Of a name and a title; 0 where quick bounds of it show that it is too small to count."""
        least = NEAR - CLEAR
        if 2 * min(len(bare), len(form)) < least * (len(bare) + len(form)):
            return 0.0
        if form not in self.matchers:
            self.matchers[form] = SequenceMatcher(None, "", form)
        matcher = self.matchers[form]
        matcher.set_seq1(bare)
        return matcher.ratio() if matcher.quick_ratio() >= least else 0.0

    def search(self, answer: str) -> list[int]:
        """Candidates whose titles occur somewhere in running text, in the order of their first occurrence."""
        found: list[tuple[int, int, int]] = []
        lines = [f" {_plain(line)} " for line in answer.splitlines()]
        for i in sorted(filter(self.bare.__getitem__, range(len(self.bare))), key=lambda i: -len(self.bare[i])):
            name = f" {self.bare[i]} "
            for number, line in enumerate(lines):
                at = line.find(name)
                if at >= 0 and not RUNNING_SEQUEL.match(line, at + len(name)):
                    found.append((number, at, i))
                    # What a longer title has taken is no occurrence of a shorter one.
                    lines[number] = line[:at] + " " + "\0" * (len(name) - 2) + " " + line[at + len(name) :]
                    break
        return [i for *_, i in sorted(found)]


def _entries(answer: str, parted: Callable[[str], Iterable[str]]) -> list[str]:
    """The pieces of an answer that could be names, its lines parted in one of two ways."""
    text = html.unescape(answer).replace("\\n", "\n").replace('\\"', '"')
    text = re.sub(r"```\w*|</?s>|<\|[^|]*\|>|</?(?:li|ol|ul|p|br)\s*/?>", "\n", text)
    text = re.sub(r" ?(?:->|=>|→|≻| > | \| ) ?", "\n", text)
    lines = [line for line in text.splitlines() if line.strip()]
    return [piece for line in lines for piece in parted(line) if _tidy(piece)]


def _listed(line: str) -> Iterator[str]:
    """Names of one line, each in quotes, by what stands between two of them, whatever they say themselves."""
    yield from LISTED.split(line)


def _pieces(line: str) -> Iterator[str]:
    """Names of one line: between quotes, semicolons or numbers where it has several of them, else the line itself."""
    quoted = QUOTED.findall(line)
    numbers = list(NUMBERED.finditer(line))
    if len(quoted) > 1 or (quoted and len(line.split(quoted[0], maxsplit=1)[0]) > 3 and ";" not in line):
        yield from quoted
        rest = QUOTED.split(line)[-1]
        if '"' in rest:
            yield rest.split('"', 1)[1]  # the last title was cut off inside its quotes
    elif len(numbers) > 1:
        bounds = [match.start() for match in numbers] + [len(line)]
        yield line[: bounds[0]]
        yield from (line[start:stop] for start, stop in pairwise(bounds))
    elif ";" in line:
        yield from line.split(";")
    else:
        yield line


def _tidy(piece: str) -> str:
    """Without bullets, numbers, brackets and quotes around it."""
    previous = None
    text = piece.strip()
    while text != previous:
        previous = text
        text = text.strip("[]{}|,").strip(QUOTES).rstrip(",;:.")
        if not re.fullmatch(r"\(?\d+[.):]?", text):
            text = BULLET.sub("", text, count=1)
        text = text.strip()
    return text


def _readings(name: str) -> Iterator[str]:
    """A name, then what stands before and behind a mark that often parts a title from a comment."""
    yield name
    for mark in (" - ", " – ", " — ", ": ", " ("):
        head, found, tail = name.partition(mark)
        if found:
            yield _tidy(head)
            yield _tidy(name.rpartition(mark)[2] if mark == ": " else tail)


def _is_talk(name: str) -> bool:
    """Words around a list, or a number, rather than a name in it."""
    text = name.lower()
    return (
        text.startswith((*TALK, "i ", "my ", "the user", "the rank"))
        or len(text.split()) > 14
        or not any(c.isalpha() for c in text)
    )


def _plain(text: str) -> str:
    """Lower case, without accents, punctuation and entities, articles moved to the front."""
    text = html.unescape(text)
    year = YEAR.search(text)
    head = text[: year.start()] if year else text
    swapped = SWAPPED.match(head)
    if swapped:
        head = f"{swapped[2]} {swapped[1]}{swapped[3]}"
    text = f"{head} {year[1]}" if year else head
    folded = unicodedata.normalize("NFKD", text.replace("&", " and ").replace("'", "").replace("’", ""))
    letters = "".join(c if c.isalnum() else " " for c in folded.casefold() if not unicodedata.combining(c))
    words = letters.split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ARTICLES[:3] else words)


def _year(title: str) -> str | None:
    found = YEAR.search(html.unescape(title))
    return found[1] if found else None


def _without_year(title: str) -> str:
    return YEAR.sub("", html.unescape(title))


def _counted(items: Sequence[int], strange: int) -> ParsedRanking:
    order = tuple(dict.fromkeys(items))
    return ParsedRanking(order, len(items) - len(order), strange)
