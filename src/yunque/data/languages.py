"""TEXT → LANGUAGE, roughly: by the share of words that only one of six languages uses.

Good enough to tell that a file mixes two languages, not more: no claim is made for short texts or
for other languages.
"""

from __future__ import annotations

import re

WORDS = {
    "es": "el los las una y en que de con por para no se lo como pero su al del es más está qué",
    "en": "the and of to in is that it was for with as his he on be at by not this are have from",
    "fr": "le les des et est une dans que pour qui ne pas sur au avec il elle nous vous je du",
    "de": "der die das und ist nicht ein eine mit von zu den dem sich auf für im auch wie ich",
    "pt": "o os as um uma e do da dos das em no na que não com para por mais mas ao foi são",
    "it": "il gli una e di che non per con del della dei sono nel alla come più ma si lo",
}
LEAST_HITS = 12  # words of one language in a sample
CLEAR = 2.0  # times the words of the next language
SAMPLE_CHARACTERS = 1_000  # longer than most quotations, so that these raise nothing
LEAST_SAMPLES = 2  # of a language that a file is said to hold
DENSE = 64  # samples that follow one another, before every second stretch is passed over

_ALL = {language: frozenset(words.split()) for language, words in WORDS.items()}
_OWN = {
    language: words - frozenset().union(*(w for name, w in _ALL.items() if name != language))
    for language, words in _ALL.items()
}
_LETTERS = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str | None:
    """ "es", "en", "fr", "de", "pt", "it", or None where it is not clear."""
    words = _LETTERS.findall(text.lower())
    hits = sorted(
        ((sum(word in own for word in words), language) for language, own in _OWN.items()),
        reverse=True,
    )
    (most, language), (next_most, _) = hits[:2]
    return language if most >= LEAST_HITS and most >= CLEAR * next_most else None


class LanguageSurvey:
    """The languages of one file, from samples spread over it: all of a short file, and of a long
    one ever fewer, each of which then stands for the stretches that were passed over.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}  # language → stretches of SAMPLE_CHARACTERS
        self._held = ""
        self._samples = self._skip = 0

    def update(self, text: str) -> None:
        """Look at the stretches of a text that follows what came before."""
        text = self._held + text if self._held else text
        whole = len(text) - len(text) % SAMPLE_CHARACTERS
        for start in range(0, whole, SAMPLE_CHARACTERS):
            if self._skip:
                self._skip -= 1
            else:
                self._look(text[start : start + SAMPLE_CHARACTERS])
        self._held = text[whole:]

    def _look(self, sample: str) -> None:
        self._samples += 1
        self._skip = self._samples // DENSE
        language = language_of(sample)
        if language:
            self.counts[language] = self.counts.get(language, 0) + 1 + self._skip

    def mixed(self) -> list[str]:
        """The languages that make up at least a tenth of the text each, where two or more do."""
        least = max(LEAST_SAMPLES, sum(self.counts.values()) / 10)
        found = [name for name, count in self.counts.items() if count >= least]
        return sorted(found) if len(found) > 1 else []
