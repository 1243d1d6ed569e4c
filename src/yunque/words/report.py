"""Sentences of the report room."""

WORDS: dict[str, tuple[str, str]] = {}
