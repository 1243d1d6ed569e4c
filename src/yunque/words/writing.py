"""Numbers, durations and foreign text, written for a reader of either language.

English: `12,345.6`. Spanish: `12 345,6`, with a no-break space from five digits on (RAE,
Ortografía 2010). A minus is the sign of that name, no hyphen. Units are SI: 1 GB is 10^9 bytes.
Standard library only.
"""

from __future__ import annotations

import math
import unicodedata

MINUS = "\u2212"
NO_BREAK_SPACE = "\u00a0"
REPLACEMENT = "\ufffd"
JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them; they cannot reorder text.


def number(value: float | None, lang: str, places: int = 0) -> str:
    """A number with its thousands grouped; "-" for None, and nan or inf as they are."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:,.{places}f}".replace("-", MINUS)
    if lang == "en":
        return text
    whole, point, rest = text.partition(".")
    few = len(whole.lstrip(MINUS).replace(",", "")) < 5
    return whole.replace(",", "" if few else NO_BREAK_SPACE) + ("," if point else "") + rest


def scientific(value: float | None, lang: str) -> str:
    """Two significant digits and the power of ten: `9.8e-04`."""
    if value is None or not math.isfinite(value):
        return number(value, lang)
    text = f"{value:.1e}".replace(".", "." if lang == "en" else ",")
    return MINUS + text[1:] if text.startswith("-") else text


def about(value: float, lang: str) -> str:
    """A count as one says about how many: three digits that count, zeros for the rest."""
    digits = len(str(abs(round(value))))
    return number(round(value, min(0, 3 - digits)), lang)


def percent(fraction: float | None, lang: str, places: int = 0) -> str:
    """A proportion in percent: `12%` in English, `12 %` in Spanish; never a false 0 or 100."""
    if fraction is None or not math.isfinite(fraction):
        return number(fraction, lang)
    space = "" if lang == "en" else NO_BREAK_SPACE
    step = 10.0**-places
    value = 100 * fraction
    if 0 < value < step / 2:
        return f"<{number(step, lang, places)}{space}%"
    if 100 - step / 2 <= value < 100:
        return f">{number(100 - step, lang, places)}{space}%"
    return f"{number(value, lang, places)}{space}%"


def perplexity(loss: float | None, lang: str) -> str:
    """exp(loss), the loss in nats per token: one decimal, none from 1,000 on."""
    if loss is None or math.isnan(loss):
        return number(loss, lang)
    value = math.exp(loss) if loss < 700 else math.inf  # exp overflows a float above 709
    return number(value, lang, 1 if value < 1000 else 0)


def duration(seconds: float | None, short: bool = False) -> str:
    """The two largest units: `3 min 12 s`, or `3m 12s` where short; the same in both languages."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    total = max(0, round(seconds))
    minutes, s = divmod(total, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    parts = [(d, "d", "d"), (h, "h", "h"), (m, "min", "m"), (s, "s", "s")]
    first = next((i for i, (n, _, _) in enumerate(parts) if n), len(parts) - 1)
    space = "" if short else " "
    return " ".join(f"{n}{space}{b if short else a}" for n, a, b in parts[first : first + 2])


def data_size(num_bytes: float, lang: str) -> str:
    """Bytes in the unit that gives a number from 1 to 1000: `812 bytes`, `3.4 kB`, `12.1 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{number(num_bytes / size, lang, 1)} {unit}"
    return f"{number(num_bytes, lang)} {'byte' if round(num_bytes) == 1 else 'bytes'}"


def gigabytes(num_bytes: float | None, lang: str) -> str:
    """Memory in GB of 10^9 bytes, in MB below 1 GB."""
    if num_bytes is None or not math.isfinite(num_bytes):
        return "-"
    if num_bytes < 0.9995e9:
        return f"{number(num_bytes / 1e6, lang)} MB"
    return f"{number(num_bytes / 1e9, lang, 1)} GB"


def visible(text: str, newlines: bool = False) -> str:
    """Foreign text that can neither steer a terminal nor reorder what stands beside it.

    Control characters become their pictures (escape: ␛), invisible format characters (among
    them the bidirectional overrides) and lone surrogates the replacement character.

    Args:
        newlines: keep line ends; else they are shown as ↵.
    """
    return "".join(_visible_character(c, newlines) for c in text.replace("\r\n", "\n"))


def marked(text: str) -> str:
    """A token with its spaces, tabs and line ends shown as · → ↵."""
    return visible(text.replace("\t", "→")).replace(" ", "·")


def painted_text(text: str) -> str:
    """A token as it stands in a painted text: each line end is marked and kept, tabs are marked."""
    return visible(text.replace("\t", "→"), newlines=True).replace("\n", "↵\n")


def _visible_character(c: str, newlines: bool) -> str:
    if " " <= c <= "~":
        return c
    if c in "\n\u2028\u2029":
        return "\n" if newlines else "↵"
    kind = unicodedata.category(c)
    if kind == "Cc":
        if c == "\x7f":
            return "␡"
        return chr(0x2400 + ord(c)) if c < " " else REPLACEMENT
    if kind == "Cs" or (kind == "Cf" and c not in JOINERS):
        return REPLACEMENT
    return c
