"""Prepare every file of a folder with every tokenizer that is named; print a table of what came.

    python bench/prepare.py DATA --tokenizers char byte bpe:4096 PATH …

Files that cannot be read are listed with their error: a wrong encoding, columns of no known shape
or a template that is none are found out here. MB/s is that of a whole preparation, with counting
and training the tokenizer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from yunque.config import DataConfig
from yunque.data.checks import check_data
from yunque.data.prepare import prepare
from yunque.data.sources import find_sources
from yunque.errors import YunqueError


def main() -> None:
    """Prepare each file with each tokenizer, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizers", nargs="+", default=["char", "byte", "bpe:4096"])
    parser.add_argument("--columns", default="", help="for files without column names")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    print("| file | tokenizer | records | tokens | bytes per token | MB/s | warnings |")
    print("|---|---|---|---|---|---|---|")
    for source in find_sources(options.sources):
        for spec in options.tokenizers:
            label = Path(spec).name
            with tempfile.TemporaryDirectory() as folder:
                try:
                    config = DataConfig(tokenizer=spec, columns=options.columns)
                    facts = prepare([source.name], config, Path(folder) / "out").facts
                except YunqueError as error:
                    sentence = str(error).replace(str(source.path), "").replace("|", "\\|")
                    print(f"| {Path(source.name).name} | {label} | | | | | {sentence[:110]} |")
                    continue
            found = [doubt.key for part in check_data(facts, 0) for doubt in part]
            tokens = sum(facts["tokens"].values())
            print(
                f"| {Path(source.name).name} | {label} | {facts['documents']:,} | {tokens:,} "
                f"| {facts['bytes_per_token']:.2f} | {facts['megabytes_per_second']:.1f} "
                f"| {', '.join(key.removeprefix('data.') for key in found) or '–'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
