"""Hostile artefacts and secrets: nothing runs, nothing outside changes, nothing is told."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL, assert_same_run, rows, without_pages, write_text

from yunque.assemble.models import load
from yunque.assemble.runs import pretrain, resume
from yunque.data.chat_template import ChatTemplate
from yunque.errors import YunqueError
from yunque.reports.report import report, write
from yunque.train import checkpoint, loop
from yunque.train import step as steps
from yunque.weights.folder import open_folder

Say = Callable[[str], None]
Case = tuple[str, Callable[[Path], Callable[[], Any]]]
"""Name, and what lays the artefact out in a folder and returns what a user would then do."""
CALLS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn"),
    *("pickle.find_class", "marshal.loads", "socket.connect", "socket.getaddrinfo"),
)
seen: list[str] = []
watched: list[Path] = []


def hook(event: str, details: tuple[Any, ...]) -> None:
    if not watched:
        return
    home = str(watched[0])
    if event == "marshal.loads" and "importlib" in sys._getframe(1).f_code.co_filename:
        return  # Python opens a module that it has compiled before
    if event in CALLS:
        seen.append(f"{event} {details}"[:200])
    elif event in ("exec", "compile"):
        source = details[0] if event == "exec" else details[1]
        if home in str(getattr(source, "co_filename", source)):
            seen.append(f"{event} of a file of the artefact")
    elif event == "import" and home in str(details[1]):
        seen.append(f"import of {details[1]}")
    elif event == "ctypes.dlopen" and home in str(details[0]):
        seen.append(f"dlopen of {details[0]}")


@contextmanager
def audited(folder: Path) -> Iterator[None]:
    """Note what the block runs; what has not ended after 30 seconds hangs."""
    if not getattr(sys, "yunque_audited", False):
        sys.addaudithook(hook)  # for ever: a hook cannot be taken off, only left without work
        sys.yunque_audited = True  # type: ignore[attr-defined]

    def late(*_: Any) -> None:
        raise TimeoutError("30 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    watched.append(folder)
    try:
        yield
    finally:
        watched.clear()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Payload:
    """Opened by pickle, leaves a canary."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def tree(folder: Path) -> str:
    """One hash of all names, links and bytes below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(os.fsencode(str(path.relative_to(folder))))
        if path.is_symlink():
            digest.update(os.fsencode(os.readlink(path)))
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def pickles(model: Path, canary: Path) -> Iterator[Case]:
    payloads = {
        "system": Payload(os.system, f"touch {canary}"),
        "exec": Payload(exec, f"open({str(canary)!r}, 'w')"),
        "popen": Payload(subprocess.Popen, ["touch", str(canary)]),
    }
    alone = ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl")
    inside = ("model.safetensors", "tokenizer.json", "config.json", "generation_config.json")
    for kind, payload in payloads.items():
        content = pickle.dumps(payload)
        for name in (*alone, *inside, "training_args.bin", "optimizer.pt"):

            def lay(folder: Path, name: str = name, content: bytes = content) -> Any:
                shutil.copytree(model, folder / "model")
                if name in alone:
                    (folder / "model" / "model.safetensors").unlink()
                (folder / "model" / name).write_bytes(content)
                return lambda: load(folder / "model", device="cpu")

            yield f"pickle {kind} {name}", lay


def code(model: Path, canary: Path) -> Iterator[Case]:
    evil = f"open({str(canary)!r}, 'w')\n"
    settings: list[tuple[str, dict[str, Any]]] = [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}),
        ("config.json", {"auto_map": {"AutoConfig": "modeling_evil.Evil"}, "model_type": "evil"}),
        ("config.json", {"model_type": "evil", "architectures": ["Evil"]}),
        ("config.json", {"model_type": "../evil"}),
        ("config.json", {"architectures": ["modeling_evil.Evil"]}),
        ("config.json", {"trust_remote_code": True, "model_type": "evil"}),
        ("config.json", {"model_file": "modeling_evil.py", "custom_pipelines": {"x": "evil"}}),
        ("config.json", {"_attn_implementation": "evil/kernel", "model_type": "gpt_neox"}),
        ("config.json", {"quantization_config": {"quant_method": "modeling_evil"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling_evil.Evil", None]}}),
        ("tokenizer_config.json", {"tokenizer_class": "modeling_evil.Evil"}),
        ("generation_config.json", {"custom_generate": "modeling_evil.py"}),
    ]
    for name, values in settings:

        def lay(folder: Path, name: str = name, values: dict[str, Any] = values) -> Any:
            there = Path(shutil.copytree(model, folder / "model"))
            for file in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
                (there / file).write_text(evil, encoding="utf-8")
            path = there / name
            old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            path.write_text(json.dumps({**old, **values}), encoding="utf-8")
            return lambda: load(there, device="cpu")

        yield f"code {name} {sorted(values)}", lay
    for name in ("sitecustomize.py", "torch.py", "transformers.py", "conftest.py", "yunque.py"):

        def beside(folder: Path, name: str = name) -> Any:
            there = Path(shutil.copytree(model, folder / "model"))
            (there / name).write_text(evil, encoding="utf-8")
            return lambda: load(there, device="cpu")

        yield f"code beside {name}", beside


def names(model: Path, run: Path, outside: Path) -> Iterator[Case]:
    secret = outside / "secret.safetensors"
    for target in ("model.safetensors", "config.json", "tokenizer.json"):
        for kind in ("link", "fifo", "device", "loop", "folder"):

            def lay(folder: Path, target: str = target, kind: str = kind) -> Any:
                there = Path(shutil.copytree(model, folder / "model"))
                (there / target).unlink()
                make: dict[str, Callable[[Path], Any]] = {
                    "link": lambda path: path.symlink_to(secret),
                    "fifo": os.mkfifo,
                    "device": lambda path: path.symlink_to("/dev/zero"),
                    "loop": lambda path: path.symlink_to(path.name),
                    "folder": Path.mkdir,
                }
                make[kind](there / target)
                return lambda: load(there, device="cpu")

            yield f"{kind} as {target}", lay
    for name in (
        "../secret.safetensors",
        str(secret),
        "a\0b.safetensors",
        "..\\secret.safetensors",
    ):

        def index(folder: Path, name: str = name) -> Any:
            there = Path(shutil.copytree(model, folder / "model"))
            (there / "model.safetensors").unlink()
            content = json.dumps({"weight_map": {"x": name}})
            (there / "model.safetensors.index.json").write_text(content, encoding="utf-8")
            return lambda: open_folder(there)

        yield f"index names {name!r}", index
    for name in ("log.jsonl", ".lock", "checkpoints", "best", "last", "environment.json"):
        for kind in ("link", "hard link") if name in ("log.jsonl", ".lock") else ("link",):

            def linked(folder: Path, name: str = name, kind: str = kind) -> Any:
                there = Path(shutil.copytree(run, folder / "run"))
                place, home = there / name, outside / f"{kind} {name}"
                if place.is_dir():
                    shutil.rmtree(place)
                    place.symlink_to(home)
                else:
                    place.unlink(missing_ok=True)
                    (place.symlink_to if kind == "link" else place.hardlink_to)(home)
                return lambda: resume(there)

            yield f"{kind} {name} of a run", linked
    for name in ("../../x", "/etc/passwd", "state.json/../../x"):

        def manifest(folder: Path, name: str = name) -> Any:
            there = Path(shutil.copytree(run, folder / "run"))
            newest = sorted((there / "checkpoints").iterdir())[-1]
            values = json.loads((newest / "manifest.json").read_text(encoding="utf-8"))
            values.pop("sha256")
            values["files"][name] = values["files"].pop("state.json")
            (newest / "manifest.json").write_bytes(checkpoint.sealed(values))
            return lambda: checkpoint.verify(newest)

        yield f"manifest names {name!r}", manifest
    for kind in ("fifo", "device", "loop"):

        def data(folder: Path, kind: str = kind) -> Any:
            path = folder / "data.jsonl"
            if kind == "fifo":
                os.mkfifo(path)
            else:
                path.symlink_to("/dev/zero" if kind == "device" else path.name)
            return lambda: pretrain(str(path), folder / "out", **SMALL)

        yield f"{kind} as data", data


def templates(canary: Path) -> Iterator[Case]:
    sources = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
        "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ joiner.__init__.__globals__.os.system('touch CANARY') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ messages|attr('__class__') }}",
        "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
        "{{ raise_exception.__globals__['os'].system('touch CANARY') }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ '%s'|format(messages.append.__self__.__class__) }}",
        "{% for x in range(10 ** 9) %}{{ x }}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
        "{% extends '/etc/passwd' %}",
        "{{ config.items() }}{{ request.application.__globals__ }}",
        "{{ messages[0].update({'content': 'x'}) }}{{ messages.clear() }}",
    ]
    for source in sources:

        def lay(folder: Path, source: str = source) -> Any:
            text = source.replace("CANARY", str(canary))
            return lambda: ChatTemplate(text).run([{"role": "user", "content": "hola"}])

        yield f"template {source[:50]}", lay


MARKS = (
    "<script>evil()</script>",
    "</script><script>evil()</script>",
    "<img src=x onerror=evil()>",
    "javascript:evil()",
    "\x1b]0;evil\x07\x1b[2J",
    "\u202egnp.exe",
    '=HYPERLINK("http://evil")',
)


def reports(run: Path) -> Iterator[Case]:
    for mark in MARKS:

        def lay(folder: Path, mark: str = mark) -> Any:
            there = Path(shutil.copytree(run, folder / "run"))
            rows = [json.loads(line) for line in (there / "log.jsonl").read_text().splitlines()]
            for row in rows:
                for key in ("run", "prompt", "text", "tokenizer", "optimizer", "path", "reason"):
                    if key in row:
                        row[key] = mark
                row[mark] = mark
            row = {"event": "warning", "step": 1, "epoch": 0.0, "tokens_seen": 0, "seconds": 1.0}
            rows.append({**row, "id": mark, "text": mark})
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (there / "log.jsonl").write_text(text, encoding="utf-8")

            def told() -> None:
                made = report(there)
                for path in write(made, there):
                    if path.suffix in (".html", ".md"):
                        shown = path.read_text(encoding="utf-8")
                        assert "<script>evil" not in shown
                        assert "<img src=x" not in shown
                        assert "\x1b" not in shown

            return told

        yield f"report {mark[:20]!r}", lay


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its model."""
    folder = tmp_path_factory.mktemp("made")
    with without_pages():
        pretrain(str(write_text(folder)), folder / "run", **{**SMALL, "steps": 4})
    return folder / "run", folder / "run" / "last"


def test_f20_f24_hostile_artefacts(made: tuple[Path, Path], tmp_path: Path, figures: Say) -> None:
    run, model = made
    outside, canary = tmp_path / "outside", tmp_path / "outside" / "canary"
    outside.mkdir()
    shutil.copy(model / "model.safetensors", outside / "secret.safetensors")
    for name in ("log.jsonl", ".lock", "environment.json"):
        for kind in ("link", "hard link"):
            (outside / f"{kind} {name}").write_bytes((run / "log.jsonl").read_bytes())
    for name in ("checkpoints", "best", "last"):
        shutil.copytree(run / name, outside / f"link {name}")
    before = tree(outside)
    # The first picture lets matplotlib ask the system for its fonts.
    write(report(run), Path(shutil.copytree(run, tmp_path / "drawn")))
    cases = [
        *pickles(model, canary),
        *code(model, canary),
        *names(model, run, outside),
        *templates(canary),
        *reports(run),
    ]
    ends = {"refused": 0, "opened": 0}
    for number, (name, lay) in enumerate(cases):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        act = lay(folder)
        seen.clear()
        try:
            with audited(folder), without_pages():
                act()
            ends["opened"] += 1
        except YunqueError:
            ends["refused"] += 1
        except Exception as error:
            pytest.fail(f"{name}: {type(error).__name__}: {error}")
        assert not seen, f"{name}: {seen}"
        assert not canary.exists(), name
        assert tree(outside) == before, name
        shutil.rmtree(folder)
    assert len(cases) >= 100
    figures(
        f"F20-24  {len(cases)} hostile artefacts: {ends}, 0 executions, 0 bytes outside the target"
    )


SECRET = "CANARY-0a1b2c3d4e5f"
ADDRESS = f"https://user:{SECRET}@host.example/data"
VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"),
    *("OPENAI_API_KEY", "GITHUB_TOKEN", "DATABASE_URL", "PGPASSWORD", "NETRC_PASSWORD"),
    *("COMET_API_KEY", "AZURE_CLIENT_SECRET", "GOOGLE_API_KEY", "PIP_INDEX_URL", "MY_SECRET"),
)


def test_f25_secrets_stay_secret(
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    figures: Say,
) -> None:
    model, text = made[1], str(write_text(tmp_path))
    talks = tmp_path / "talks.jsonl"
    talks.write_text('{"prompt": "hola", "completion": "¿qué tal?"}\n' * 9, encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'sources = ["{ADDRESS}"]\n', encoding="utf-8")
    out = str(tmp_path / "out")
    lines: list[list[str]] = [
        ["pretrain", ADDRESS, "--out", out],
        ["pretrain", text, "--out", out, "--tokenizer", ADDRESS],
        ["pretrain", text, "--out", out, "--recipe", ADDRESS],
        ["pretrain", "--out", out, "--recipe", str(recipe)],
        ["pretrain", text, ADDRESS, "--out", out, "--json"],
        ["finetune", ADDRESS, str(talks), "--out", out],
        ["finetune", str(model), ADDRESS, "--out", out],
        ["finetune", str(model), str(talks), "--out", out, "--exam", ADDRESS],
        ["resume", ADDRESS],
        ["resume", str(made[0]), "--set", f"exam={ADDRESS}"],
        ["resume", str(made[0]), "--set", ADDRESS],
        ["generate", ADDRESS, "--prompt", "hola"],
        ["evaluate", str(model), ADDRESS],
        ["report", ADDRESS],
        ["prepare", ADDRESS, "--out", out],
        ["pretrain", f"{ADDRESS}?X-Amz-Signature={SECRET}&token={SECRET}", "--out", out],
    ]
    from yunque.cli import main

    for line in lines:
        assert main(line) != 0, line
        told = "".join(capfd.readouterr())
        assert "yunque" in told
        assert SECRET not in told, line
    texts = [f"401: Authorization: Bearer {SECRET}", f"GET {ADDRESS}?key={SECRET} failed"]
    for told in texts:
        assert SECRET not in str(YunqueError(told))
    for name in VARIABLES:
        monkeypatch.setenv(name, ADDRESS if name.endswith("URL") else SECRET)
    with without_pages():
        options = [
            f"--{key.replace('_', '-')}={value}"
            for key, value in (
                ("steps", 2),
                ("context_length", 16),
                ("num_layers", 1),
                ("num_heads", 2),
                ("hidden_size", 16),
                ("batch_size", 2),
                ("tokenizer", "char"),
                ("threads", 1),
            )
        ]
        assert main(["pretrain", text, "--out", str(tmp_path / "run"), *options]) == 0
    assert SECRET not in "".join(capfd.readouterr())
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 8
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
    count = len(lines) + len(texts) + len(VARIABLES)
    assert count >= 30
    figures(f"F25  {count} secrets in addresses, messages and the environment: 0 told or written")


NOBODY = 65534


def as_somebody_else(words: list[str], out: Path) -> int:
    """Exit code of the command in a fork that is not root: root is let into a read-only folder."""
    from yunque.cli import main

    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stderr = out.open("w", encoding="utf-8", buffering=1)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with without_pages():
                code = main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.name != "posix", reason="users and rights as POSIX has them")
def test_f26_read_only_folders_as_somebody_else(
    made: tuple[Path, Path], tmp_path: Path, figures: Say
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        home = Path(name)
        home.chmod(0o755)
        write_text(home)
        closed, run = home / "closed", home / "run"
        closed.mkdir(mode=0o555)
        shutil.copytree(made[0], run)
        before = tree(run)
        run.chmod(0o555)
        text = str(home / "text.txt")
        words = {
            "closed": ["pretrain", text, "--out", str(closed / "run"), "--steps", "2"],
            "a file": ["pretrain", text, "--out", str(home / "text.txt" / "run"), "--steps", "2"],
            "a run of another": ["resume", str(run)],
            "prepared": ["prepare", text, "--out", str(closed / "tokens")],
        }
        for kind, line in words.items():
            code = as_somebody_else([*line, "--quiet"], tmp_path / "told")
            told = (tmp_path / "told").read_text(encoding="utf-8")
            assert code == 74, (kind, told)
            assert str(home) in told, kind
            assert "Traceback" not in told
        assert not any(closed.iterdir())
        run.chmod(0o755)
        assert tree(run) == before
        figures(f"F26  {len(words)} places that another user cannot write: exit code 74, no change")


@pytest.mark.skipif(os.name != "posix", reason="users and rights as POSIX has them")
@pytest.mark.parametrize(
    ("mode", "last"),
    [(0o555, "The last checkpoint is that of step 4"), (0, "Its checkpoints cannot be looked at")],
    ids=["read-only", "closed"],
)
def test_f26_a_run_folder_that_is_closed_in_mid_run(
    mode: int, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training goes on without three checkpoints, then ends; nothing of the run is lost."""
    import tempfile

    update = steps.update
    options = {key: value for key, value in SMALL.items() if key != "early_stopping"}
    options |= {"eval_every": 100}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o777)
        run, text = home / "run", str(write_text(home))
        folders = (run / checkpoint.FOLDER, run)

        def closing(step: int, *others: Any, **named: Any) -> Any:
            if step == 5:
                for folder in folders:
                    folder.chmod(mode)
            return update(step, *others, **named)

        monkeypatch.setattr(loop, "update", closing)
        flags = [w for k, v in options.items() for w in ("--" + k.replace("_", "-"), str(v))]
        words = ["pretrain", text, "--out", str(run), *flags, "--quiet"]
        code = as_somebody_else(words, tmp_path / "told")
        told = (tmp_path / "told").read_text(encoding="utf-8")
        assert code == 74, told
        assert "Traceback" not in told
        assert "Permission denied. Check the permissions of the folder" in told
        assert last in told
        assert f": `yunque resume {run}`" in told
        assert rows(run, "step")[-1]["step"] == 10
        assert [row["step"] for row in rows(run, "warning") if row["id"] == "not_saved"] == [6, 8]
        monkeypatch.undo()
        for folder in reversed(folders):
            folder.chmod(0o755)
        with without_pages():
            resume(run)
            pretrain(text, tmp_path / "whole", **options)
        assert assert_same_run(tmp_path / "whole", run) == 12


@pytest.mark.parametrize(
    "name",
    ["con espacios y 'comillas'", "línea\nnueva", "-guion", "%s{x}$HOME", "ñ" * 127, "a" * 255],
)
def test_f26_odd_names(name: str, made: tuple[Path, Path], tmp_path: Path) -> None:
    with without_pages():
        run = Path(shutil.copytree(made[0], tmp_path / name))
        assert resume(run).steps == 4
    assert checkpoint.newest_valid(run)[0] is not None


@pytest.mark.parametrize("name", ["a" * 256, "a/" * 2100, "a\0b"])
def test_f26_names_that_no_disk_takes(name: str, tmp_path: Path) -> None:
    text = str(write_text(tmp_path))
    with pytest.raises(YunqueError):
        pretrain(text, f"{tmp_path}/{name}", **SMALL)
