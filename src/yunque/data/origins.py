"""Training tokens ↔ lines of the sources: where a stretch of tokens was read.

`train.origins.bin` has three numbers (uint64, little-endian) for every block of tokens: its first
token; source << LINE_BITS | the line where its document begins; the line ends of that document
before the block. Inside a block of plain text the line ends are counted in its decoded tokens: a
block is 65,536 characters or little more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yunque.data.batches import TokenFile
from yunque.data.documents import LINE_BITS
from yunque.data.tokenizer import Tokenizer
from yunque.errors import StorageError
from yunque.files import storage_error


def origin_bytes(first: int, code: int, breaks: int) -> bytes:
    """The three numbers of one block."""
    return np.array([first, code, breaks], dtype="<u8").tobytes()


class Origins:
    """The blocks of the training tokens and where they were read.

    Args:
        path: `train.origins.bin`.
        sources: the ledger's sources, in order: `name` and `kind` of each.

    Raises:
        StorageError: the file cannot be read, or is not one.
    """

    def __init__(
        self,
        path: Path,
        sources: Sequence[Mapping[str, Any]],
        tokens: TokenFile,
        tokenizer: Tokenizer,
    ) -> None:
        try:
            stored = np.fromfile(path, dtype="<u8")
        except OSError as error:
            raise storage_error(error, path, "read") from None
        if not len(stored) or len(stored) % 3 or stored[0] != 0:
            raise StorageError(f"{path}: {8 * len(stored)} bytes, not blocks; prepare it again.")
        self._blocks = stored.reshape(-1, 3).astype(np.int64)
        self.sources, self.tokens, self.tokenizer = sources, tokens, tokenizer

    def line(self, token: int) -> str:
        """`file:line` of a token: of a record its line, of a text the line that holds the token."""
        at = int(np.searchsorted(self._blocks[:, 0], token, side="right")) - 1
        first, code, breaks = self._blocks[at].tolist()
        source, line = self.sources[code >> LINE_BITS], code & ((1 << LINE_BITS) - 1)
        if source["kind"] == "text":
            before = self.tokenizer.decode(self.tokens.read(first, token - first).tolist())
            line += breaks + before.count("\n")
        return f"{source['name']}:{line}"
