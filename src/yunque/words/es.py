"""Español. Las claves son las de en.py y van en el mismo orden."""

WORDS: dict[str, str] = {
    "device.cpu": "el procesador",
}
