"""Sentences of the doctor room."""

WORDS: dict[str, tuple[str, str]] = {}
