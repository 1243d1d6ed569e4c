"""Sentences of the data room."""

WORDS: dict[str, tuple[str, str]] = {}
