"""Sentences of the screen room."""

WORDS: dict[str, tuple[str, str]] = {}
