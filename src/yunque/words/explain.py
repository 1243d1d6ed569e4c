"""Sentences of the explain room."""

WORDS: dict[str, tuple[str, str]] = {}
