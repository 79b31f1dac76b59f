"""Sentences of a made language, in the place of Multi30k's."""

from lsr_core.data import Translation, translation

NAME = "multi30k-de-en-short"
NOUNS = {"hund": "dog", "mann": "man", "frau": "woman", "ball": "ball", "kind": "child"}
VERBS = {"sieht": "sees", "sucht": "seeks", "hat": "has"}


def made_pairs():
    """A hundred and fifty sentences of a made language, with more words than the short ones may have in two."""
    pairs = [(f"der {a} {v} den {b} .", f"the {c} {w} the {d} .") for a, c in NOUNS.items() for v, w in VERBS.items()
             for b, d in NOUNS.items()]  # fmt: skip
    return [*pairs, *pairs[::-1]]


def write(pairs):
    folder = Translation(NAME, 0, "").folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(translation.PARTS):
        some = pairs if number == 0 else pairs[number::7][:12]
        for side, language in enumerate(("de", "en")):
            (folder / f"{part}.{language}").write_text("".join(pair[side] + "\n" for pair in some), encoding="utf-8")
