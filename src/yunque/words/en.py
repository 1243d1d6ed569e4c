"""English. Keys are `room.sentence`; keep them in the order of es.py."""

WORDS: dict[str, str] = {
    "device.cpu": "the processor",
}
