"""The house: which room may import which, read from the sources themselves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src" / "yunque"

GROUND = {"config", "errors", "words", "yunque"}
"""Every room may use these: standard library (and the TOML library) only."""

ALLOWED: dict[str, set[str]] = {
    "config": {"errors"},
    "errors": set(),
    "batch": set(),
    "words": set(),
    "files": {"errors"},
    "hub": {"errors", "files"},
    "runlog": {"errors", "files"},
    "heap": set(),
    "runtime": GROUND,
    "data": GROUND | {"batch", "files", "hub"},
    "model": GROUND,
    "adapt": GROUND | {"files", "runtime"},
    "weights": GROUND | {"files", "model"},
    "generate": GROUND | {"model"},
    "forecast": GROUND | {"files"},
    "evaluate": GROUND | {"batch", "model"},
    "exam": GROUND | {"marking"},
    "marking": {"errors"},
    "train": GROUND | {"batch", "runtime", "files", "runlog"},
    "reports": GROUND | {"exam", "files", "runlog"},
    "screen": GROUND | {"runlog"},
    "doctor": GROUND | {"files"},
    "assemble": GROUND
    | {
        "adapt",
        "batch",
        "data",
        "evaluate",
        "doctor",
        "exam",
        "files",
        "forecast",
        "generate",
        "hub",
        "marking",
        "model",
        "reports",
        "runlog",
        "runtime",
        "screen",
        "train",
        "weights",
    },
    "cli": GROUND | {"heap", "verbs"},
    "__main__": {"cli"},
    "verbs": GROUND | {"assemble", "doctor", "files", "reports", "screen"},
}
"""room → rooms that it may import; docs/architecture.md draws the same arrows (a test reads it)."""

STANDARD_LIBRARY_ONLY = {"config", "errors", "words", "files", "runlog"}
HEAVY = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "accelerate", "rich"}
HEAVY_OPTIONAL = {"transformers", "datasets", "bitsandbytes", "peft", "plotly"}
NO_TORCH = {"forecast", "reports", "screen", "cli", *STANDARD_LIBRARY_ONLY}


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCES).parts[0]
    return first.removesuffix(".py") if first != "__init__.py" else "yunque"


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, whether at the top level and at run time) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "yunque":
                names = [f"yunque.{alias.name}" for alias in node.names]
            else:
                names = [node.module]
            found += [(name, node.lineno, id(node) in top) for name in names]
    return found


def own_rooms() -> list[tuple[str, str, str]]:
    """(room, imported room, place) for every import of ours."""
    arrows = []
    for path in sorted(SOURCES.rglob("*.py")):
        room = room_of(path)
        for module, line, _ in imports(path):
            if module.startswith("yunque."):
                target = module.split(".")[1]
                known = (SOURCES / target).is_dir() or (SOURCES / f"{target}.py").is_file()
                arrows.append((room, target if known else "yunque", f"{path.name}:{line}"))
    return arrows


def page() -> str:
    return (SOURCES.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_module_stands_on_the_page_under_its_room() -> None:
    told: dict[str, str] = {}
    room = ""
    for line in page().split("```")[1].splitlines():
        if re.match(r"  \S", line):
            room = line.split("/")[0].strip() if re.match(r"  \w+/", line) else ""
        told[room] = told.get(room, "") + line + "\n"
    modules = [path.relative_to(SOURCES) for path in sorted(SOURCES.rglob("*.py"))]
    for module in modules:
        *above, name = module.parts
        named = re.search(rf"(?<!\w){re.escape(name)}", told.get("".join(above), ""))
        assert named or name == "__init__.py", f"{module} is not on the page"
    names = {path.name for path in modules}
    assert set(re.findall(r"\b\w+\.py\b", page().split("```")[1])) <= names


def test_the_table_of_the_page_is_this_table() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]*\|$", page(), re.MULTILINE)
    told = {
        room: set(imports.split(", ")) - {"–"}
        for rooms, imports in rows
        for room in rooms.replace("`", "").split(", ")
        if room != "room" and not room.startswith("---")
    }
    assert told == {room: targets - GROUND for room, targets in ALLOWED.items()}


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path) for path in SOURCES.rglob("*.py")} - {"yunque"}
    assert rooms == set(ALLOWED)


def test_rooms_import_only_what_the_table_allows() -> None:
    wrong = [
        f"{place}: {room} imports {target}"
        for room, target, place in own_rooms()
        if room not in ("yunque", target) and target not in ALLOWED[room]
    ]
    assert wrong == []


def test_the_table_holds_no_arrow_that_nobody_uses() -> None:
    used = {(room, target) for room, target, _ in own_rooms()}
    unused = [
        f"{room} → {target}"
        for room, targets in ALLOWED.items()
        for target in sorted(targets - GROUND)
        if (room, target) not in used
    ]
    assert unused == []


def test_no_heavy_import_where_none_is_allowed() -> None:
    wrong = []
    for path in sorted(SOURCES.rglob("*.py")):
        room = room_of(path)
        for module, line, top in imports(path):
            package = module.split(".")[0]
            if package in HEAVY and room in STANDARD_LIBRARY_ONLY:
                wrong.append(f"{path.name}:{line}: {room} imports {package}")
            if package == "torch" and room in NO_TORCH:
                wrong.append(f"{path.name}:{line}: {room} imports torch")
            if package in HEAVY_OPTIONAL and top:
                wrong.append(f"{path.name}:{line}: {package} at the top of a module")
    assert wrong == []


def test_only_heap_runtime_and_words_read_environment_variables() -> None:
    wrong = []
    for path in sorted(SOURCES.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        reads = "os.environ" in text or "getenv" in text
        if reads and room_of(path) not in ("heap", "runtime", "words"):
            wrong.append(path.name)
    assert wrong == []


def test_nothing_unpickles_or_runs_foreign_code() -> None:
    wrong = []
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("eval", "exec", "torch.load", "torch.save") or "pickle" in called:
                    wrong.append(f"{path.name}:{node.lineno}: {called}")
            if isinstance(node, ast.Import) and any("pickle" in a.name for a in node.names):
                wrong.append(f"{path.name}:{node.lineno}: import pickle")
    assert wrong == []
