"""Yunque: train language models on the machine you have, and know whether it worked.

The verbs are functions too; each is imported when first used:

    yunque.prepare(sources, out)      yunque.pretrain(sources, out, **recipe)
    yunque.finetune(model, sources, out, **recipe)
    yunque.resume(run)                yunque.report(log)
    yunque.load(model)                a model with generate, evaluate and explain
    yunque.convert(model, out)        the model in an open format, certified
    yunque.plan(recipe)               memory, time and disk before anything runs
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yunque.assemble.convert import convert
    from yunque.assemble.models import load
    from yunque.assemble.planning import plan
    from yunque.assemble.runs import finetune, pretrain, resume
    from yunque.assemble.sources import prepare
    from yunque.reports.report import report

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "convert",
    "finetune",
    "load",
    "plan",
    "prepare",
    "pretrain",
    "report",
    "resume",
]

_HOMES = {
    "convert": "yunque.assemble.convert",
    "finetune": "yunque.assemble.runs",
    "load": "yunque.assemble.models",
    "plan": "yunque.assemble.planning",
    "prepare": "yunque.assemble.sources",
    "pretrain": "yunque.assemble.runs",
    "report": "yunque.reports.report",
    "resume": "yunque.assemble.runs",
}


def __getattr__(name: str) -> Any:
    """Import a verb when it is first named."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'yunque' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
