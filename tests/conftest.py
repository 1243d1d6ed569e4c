"""Test settings: quiet, single-threaded arithmetic, no network."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# What is kept of this machine between runs (forecast/store.py) is not the tests' to change.
os.environ["HOME"] = tempfile.mkdtemp(prefix="yunque-tests-")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))
