"""The glossary explains every technical term of the lessons, and the lessons use its words.

A missing term is found in three ways, each of which needs no list of the terms to come:

1. Every word of a lesson's prose that is no part of a glossary name must be a plain word of
   `glossary/plain_words.txt`. That list has a few thousand everyday words, so most edits pass.
   Everyday words to which the field gives a sense of its own (attention, token, kernel) are
   left out on purpose. Hyphenated words count as one word, because terms hide in compounds;
   words with two capitals (AUC, ViT) must match letter by letter.
2. Every phrase of up to four words in italics or bold must be a glossary name or stand in
   `glossary/stressed_phrases.txt`: that is how lessons introduce a term, and it catches terms
   made of plain words (model card, early stopping), which the first way cannot see.
3. Every abbreviation in capitals in a docstring must be a glossary name or a plain word.

A list of terms kept here would find only what its author had thought of, and counting pairs of
words finds mostly chance. All texts are read as text: importing nothing, this takes under 1 s.
"""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "glossary.md"
LISTS = Path(__file__).parent / "glossary"
LESSONS = sorted((ROOT / "notebooks" / "src").glob("[0-9]*.py"))
CODE = sorted(path for top in ("tlcourse", "studies") for path in (ROOT / top).rglob("*.py"))
WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\+(?!\w))?(?:[-_'][A-Za-z0-9]+)*")
ENTRY = re.compile(r"^(?!#)(\S.*)\n: (.+(?:\n  .+)*)\n", flags=re.M)
ENDINGS = (
    *(("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("ing", "")),
    *(("ing", "e"), ("ier", "y"), ("er", ""), ("er", "e"), ("iest", "y"), ("est", "")),
    *(("est", "e"), ("ily", "y"), ("ly", "")),
)
# Names that the package and the lessons have given up, each for a word of the field.
OLD_WORDS = """
    answers dealt way judge feeding boundary views releasing movement settings making observe
    families likeness partitions orders attempts claims named keeping outcomes judging look tiles
    points machinery
"""
LONGEST_PHRASE = 4


@cache
def forms(word):
    """Return what `word` may be listed as: itself, and it without the endings of inflection."""
    word = re.sub(r"'s?$", "", word)
    if sum(letter.isupper() for letter in word) < 2:
        word = word.lower()
    stems = [word]
    for whole in {word, word.removesuffix("s")}:
        for ending, instead in ENDINGS:
            stem = whole.removesuffix(ending)
            if stem != whole and len(stem) > 1:
                stems.append(stem + instead)
                if stem[-1] == stem[-2] and not instead:
                    stems.append(stem[:-1])
    return tuple(stems)


def key(phrase):
    return tuple(forms(word)[0] for word in WORD.findall(phrase))


def entries():
    """Return names (the term first) and definition of each entry, in the order of the page."""
    found = ENTRY.findall(PAGE.read_text("utf-8"))
    return [(names.split(", "), " ".join(text.split())) for names, text in found]


def listed(name):
    lines = (LISTS / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def without_code(text):
    """Drop code, formulas, addresses and comments, which no glossary explains."""
    text = re.sub(r"^    .*$|<!--.*?-->", "", text, flags=re.M)
    return re.sub(r"`+[^`]*`+|\$[^$]*\$|\]\([^)]*\)|https?:\S+", " … ", text)


@cache
def prose(lesson):
    """Return the paragraphs of a lesson's Markdown; titles of other people's texts left out."""
    source = lesson.read_text("utf-8")
    cells = re.findall(r"^# %% \[markdown\].*\n((?:#.*\n)*)", source, flags=re.M)
    text = "\n\n".join(re.sub(r"^# ?", "", cell, flags=re.M) for cell in cells)
    text = re.sub(r"^## Further reading$.*?(?=^#|\Z)", "", text, flags=re.M | re.S)
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", without_code(text))]


def whole_prose(lesson):
    return "\n".join(prose(lesson))


@cache
def docstrings():
    """Return the docstrings as one text, with code in it, since code names terms as well."""
    return "\n\n".join(
        text for path in CODE for text in re.findall(r'"""(.*?)"""', path.read_text("utf-8"), re.S)
    )


class Names:
    """The names of a glossary, to be found in running text."""

    def __init__(self, names):
        self.by_first = defaultdict(dict)
        for name in names:
            whole = key(name)
            for variant in (whole, ("-".join(whole),), ("_".join(whole),)):
                self.by_first[variant[0]][variant] = name

    def at(self, words, start):
        """Return the names that begin at a word: length in words by name."""
        found = {}
        for first in forms(words[start]):
            for variant, name in self.by_first.get(first, {}).items():
                there = words[start + 1 : start + len(variant)]
                if len(there) == len(variant) - 1 and all(
                    part in forms(word) for part, word in zip(variant[1:], there, strict=True)
                ):
                    found[name] = len(variant)
        return found

    def left_over(self, text):
        """Yield the words of a text that belong to no name."""
        words = WORD.findall(text)
        start = 0
        while start < len(words):
            length = max(self.at(words, start).values(), default=0)
            if not length:
                yield words[start]
            start += max(length, 1)

    def in_text(self, text):
        """Return the names that occur in a text, those inside longer names included."""
        words = WORD.findall(text)
        return {name for start in range(len(words)) for name in self.at(words, start)}

    def is_name(self, phrase):
        words = WORD.findall(phrase)
        return bool(words) and len(words) in self.at(words, 0).values()


def unknown_words(text, names, plain):
    """Return the words that are neither part of a name nor plain, in order."""
    return [word for word in names.left_over(text) if plain.isdisjoint(forms(word))]


def unknown_stresses(text, names, stressed):
    """Return the short phrases in italics or bold that are neither name nor known stress."""
    phrases = re.findall(r"(?<![*\w])(\*{1,2})([^*]+)\1(?![*\w])", text)
    short = [phrase for _, phrase in phrases if 0 < len(key(phrase)) <= LONGEST_PHRASE]
    return [p for p in short if not names.is_name(p) and key(p) not in stressed]


@pytest.fixture(scope="module")
def names():
    return Names(name for all_names, _ in entries() for name in all_names)


@pytest.fixture(scope="module")
def plain():
    return set(listed("plain_words.txt"))


@pytest.fixture(scope="module")
def stressed():
    return {key(phrase) for phrase in listed("stressed_phrases.txt")}


def test_a_new_term_would_be_found():
    names, plain = Names(["linear probe", "CKA"]), {"the", "one", "and", "air", "hold", "near"}
    text = "The linear probes and CKA hold; the kernels, the air-near one, AIR and the probe."
    assert unknown_words(text, names, plain) == ["kernels", "air-near", "AIR", "probe"]
    text = "The **linear probe** and the *air hold*, *not so*; **a whole sentence in bold type.**"
    assert unknown_stresses(text, names, {("not", "so")}) == ["air hold"]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_word_of_a_lesson_is_plain_or_in_the_glossary(lesson, names, plain):
    unknown = {
        word: part[:70] for part in prose(lesson) for word in unknown_words(part, names, plain)
    }
    assert not unknown, (
        f"{lesson.name} uses words that a reader may not know (word: its paragraph). For each: a "
        "term of the field gets an entry in docs/glossary.md (or, another word for one that is "
        "there, joins its names); an everyday word or a person's name gets a line in "
        "tests/glossary/plain_words.txt; any other word is better replaced by a plain one."
    )


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_phrase_set_off_in_a_lesson_is_in_the_glossary(lesson, names, stressed):
    unknown = {p for part in prose(lesson) for p in unknown_stresses(part, names, stressed)}
    assert not unknown, (
        f"{lesson.name} sets these in italics or bold. For each: one that introduces a term gets "
        "an entry in docs/glossary.md; one that is only stressed, or names something of this "
        "lesson alone, gets a line in tests/glossary/stressed_phrases.txt."
    )


def test_every_abbreviation_of_a_docstring_is_in_the_glossary(names, plain):
    text = re.sub(r"^\s*>>>.*?(?:^\s*$|\Z)", "", docstrings(), flags=re.M | re.S)
    capitals = r"(?<![\w-])[A-Z]{2,}\d*(?:-[A-Z0-9]+)*\b"
    found = set(re.findall(capitals, re.sub(r"`[^`]*`|\S*_\S*", " ", text)))
    unknown = [word for word in sorted(found) if unknown_words(word, names, plain)]
    assert not unknown, (
        "docstrings use these abbreviations: give each an entry in docs/glossary.md, or a line in "
        "tests/glossary/plain_words.txt if every reader knows it (CPU, JSON)"
    )


def test_entries_are_sorted_unique_and_under_their_letter():
    text = PAGE.read_text("utf-8")
    terms = [all_names[0] for all_names, _ in entries()]
    assert len(terms) > 100
    rest = ENTRY.sub("", text[text.index("\n## ") :])
    misshapen = re.sub(r"^## \w$|^\[\d\d\]: \S+$", "", rest, flags=re.M).strip()
    assert not misshapen, "these lines are no entry: a line of names, then ': ' and the definition"
    assert terms == sorted(terms, key=str.casefold), "sort the entries of docs/glossary.md"
    every = [key(name) for all_names, _ in entries() for name in all_names]
    assert len(every) == len(set(every)), {n for n in every if every.count(n) > 1}
    letters = re.findall(r"^## (\w)$", text, flags=re.M)
    assert letters == sorted({term[0].upper() for term in terms})
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        for first in re.findall(r"^(\w).*\n: ", section, flags=re.M):
            assert first.upper() == section[0], f"{first} stands under {section[0]}"


def test_definitions_are_one_or_two_sentences():
    for (term, *_), text in entries():
        assert text.endswith("."), term
        assert len(re.findall(r"[.!?](?=\s|$)", text)) <= 2, f"{term}: at most two sentences"
        assert len(text.split()) <= 60, f"{term}: at most 60 words"


def test_no_name_is_an_old_word():
    old = {name for all_names, _ in entries() for name in all_names} & set(OLD_WORDS.split())
    assert not old, f"{old}: the course has another word for it; see OLD_WORDS in this test"


def test_every_term_is_used(names):
    # Further reading included: titles need not be explained, but may be.
    texts = [lesson.read_text("utf-8").replace("\n# ", " ") for lesson in LESSONS]
    used = names.in_text("\n".join([*texts, docstrings()]))
    unused = [all_names[0] for all_names, _ in entries() if used.isdisjoint(all_names)]
    assert not unused, (
        "no lesson and no docstring uses these any more: remove the entry from docs/glossary.md, "
        "or add the words that are used now to its names"
    )


def test_links_lead_to_lessons_that_use_the_term(names):
    targets = dict(re.findall(r"^\[(\d\d)\]: (\S+)$", PAGE.read_text("utf-8"), flags=re.M))
    used = {}
    for number, target in targets.items():
        assert (PAGE.parent / target).resolve().is_file(), f"[{number}] leads to no file: {target}"
        source = ROOT / "notebooks" / "src" / f"{Path(target).stem}.py"
        used[number] = names.in_text(whole_prose(source))
    for all_names, text in entries():
        for shown, number in re.findall(r"\[lesson (\d\d)\]\[(\d\d)\]", text):
            assert shown == number, f"{all_names[0]}: lesson {shown} is linked to {number}"
            assert not used.get(number, set()).isdisjoint(all_names), (
                f"{all_names[0]}: lesson {number} does not use it; link one that does, or none"
            )


def test_a_word_is_plain_or_a_term_and_the_lists_are_sorted(plain):
    for name in ("plain_words.txt", "stressed_phrases.txt"):
        lines = listed(name)
        assert lines == sorted(set(lines), key=lambda line: (line.casefold(), line)), (
            f"sort the lines of tests/glossary/{name}, each once"
        )
    both = {name for all_names, _ in entries() for name in all_names} & plain
    assert not both, f"{both}: in the glossary and in plain_words.txt; take it out of the latter"
