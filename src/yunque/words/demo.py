"""Sentences of the demo room."""

WORDS: dict[str, tuple[str, str]] = {}
