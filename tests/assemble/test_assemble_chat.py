"""A chat: the model is given what the template says, turns leave whole, nothing said is lost."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from yunque import cli
from yunque.assemble import models
from yunque.assemble.chat import Chat, Talk, Turn, new_chat, write_transcript
from yunque.assemble.models import Model, load
from yunque.assemble.sources import prepare
from yunque.config import AdaptConfig, GenerateConfig, ModelConfig
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.conversations import Message
from yunque.data.tokenizer import train_tokenizer
from yunque.errors import InputError
from yunque.generate.decode import Generation
from yunque.model.decoder import Decoder
from yunque.screen.chat import ChatConsole
from yunque.weights.folder import save_folder

CONTEXT = 64
END, USER, ASSISTANT = 256, 257, 258  # of the byte vocabulary with the default template
TURNS = (Turn("¿2 + 2?", "4"), Turn("¿y 3 más?", "7"), Turn("thanks", "you are welcome"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(folder: Path, template: str | None = DEFAULT_CHAT_TEMPLATE) -> Path:
    """A random model of bytes."""
    tokens = CHAT_TOKENS if template else ()
    tokenizer = train_tokenizer("byte", lambda: iter(()), "<|endoftext|>", tokens, template)
    shape = ModelConfig(context_length=CONTEXT, num_layers=1, num_heads=2, hidden_size=16)
    model = Decoder(shape.resolved(tokenizer.vocab_size), seed=1)
    save_folder(model, folder, tokenizer.save, {"eos_token_id": tokenizer.separator_id})
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load(saved(tmp_path / "model"), device="cpu")


def letters(messages: Any) -> list[int]:
    """An encoding whose length is the number of letters."""
    return [0] * sum(len(message.content) for message in messages)


class Terminal(io.StringIO):
    """Lines that somebody types; an exception among them is raised in its turn."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        super().__init__()
        self.lines = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self, *_: Any) -> str:
        line = self.lines.pop(0) if self.lines else ""
        if isinstance(line, str):
            return line and line + "\n"
        raise line


def talk(
    model: Model, lines: io.StringIO, chat: Chat | None = None, save: str = "", lang: str = "en"
) -> tuple[Talk, int, str, str]:
    """(the talk at its end, exit code, the answers, what Yunque said)."""
    answers, notes = io.StringIO(), io.StringIO()
    going = Talk(model, chat or Chat(), ChatConsole(lines, answers, notes), save=save, lang=lang)
    code = going.run()
    return going, code, answers.getvalue(), notes.getvalue()


def scripted(model: Model, monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[list[int]]:
    """Let the model answer with these texts, in turn; the prompts that it was given."""
    left, prompts = list(texts), []

    def continued(ids: Any, settings: GenerateConfig, on_text: Any) -> Generation:
        prompts.append(list(ids))
        text = left.pop(0)
        for piece in text:
            on_text(piece)
        return Generation([[1]], ["end"], 1.0, 1.0, False, [text])

    monkeypatch.setattr(model, "continued", continued)
    return prompts


# What the model is given


@pytest.mark.parametrize("system", ["", "Sé breve."])
def test_the_ids_are_those_of_apply_chat_template(model: Model, system: str) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(model.folder)
    chat = Chat(system=system, turns=TURNS)
    made = chat.prompt("¿y ñ?", model.chat_ids, 1000)
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    for turn in TURNS:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append({"role": "user", "content": "¿y ñ?"})
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True)
    assert made.ids == list(expected["input_ids"])
    assert made.dropped == 0
    assert made.ids.count(USER) == 4


def test_turns_leave_whole_and_exactly_at_the_boundary() -> None:
    turns = tuple(Turn("q" * 6, "a" * 4) for _ in range(5))
    chat = Chat("s" * 7, GenerateConfig(max_new_tokens=20), turns)
    whole = 7 + 50 + 3 + 20  # system, turns, question, room for the answer
    for context, dropped in ((whole, 0), (whole - 1, 1), (whole - 10, 1), (whole - 11, 2)):
        made = chat.prompt("???", letters, context)
        assert made.dropped == dropped, context
        assert len(made.ids) == 7 + 10 * (5 - dropped) + 3
        assert made.settings.max_new_tokens == 20
    # Half of the context at most is kept free: 22 of 45 tokens, so that 23 are for the prompt.
    made = replace(chat, settings=GenerateConfig(max_new_tokens=500)).prompt("???", letters, 45)
    assert (made.dropped, len(made.ids), made.settings.max_new_tokens) == (4, 20, 25)


def test_the_oldest_turns_leave_and_the_system_prompt_stays(model: Model) -> None:
    chat = Chat("Sé breve.", GenerateConfig(max_new_tokens=10), TURNS)
    assert chat.prompt("why", model.chat_ids, CONTEXT).dropped == 1  # 54 + 10 tokens
    chat = replace(chat, settings=GenerateConfig(max_new_tokens=11))
    made = chat.prompt("why", model.chat_ids, CONTEXT)
    kept = [Message("system", "Sé breve.")]
    kept += [Message("user", "thanks"), Message("assistant", "you are welcome")]
    assert made.ids == model.chat_ids([*kept, Message("user", "why")])
    assert made.dropped == 2
    assert chat.turns == TURNS


def test_a_question_without_its_history_may_fill_the_context_but_one_token() -> None:
    chat = Chat("sys", turns=TURNS)
    made = chat.prompt("q" * 96, letters, 100)
    assert (made.dropped, len(made.ids), made.settings.max_new_tokens) == (3, 99, 1)
    with pytest.raises(InputError, match="question are 100 tokens, and the model's context is 100"):
        chat.prompt("q" * 97, letters, 100)


def test_a_question_asked_again_draws_another_answer() -> None:
    chat = Chat(settings=GenerateConfig(seed=5))
    assert chat.prompt("a", letters, 99).settings.seed == 5
    assert chat.answered("a", "b").undo().prompt("a", letters, 99).settings.seed == 6


# Commands


def test_commands_change_the_chat(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = scripted(model, monkeypatch, "one", "two", "three", "four")
    lines = Terminal(
        "a", "b", "/undo", "/temperature 0,25", "c", "/RESET", "d", "/temperature", "/help", "/quit"
    )
    going, code, answers, notes = talk(model, lines, Chat("S"))
    assert code == 0
    assert answers == "one\ntwo\nthree\nfour\n"
    assert going.chat.turns == (Turn("d", "four"),)
    assert going.chat.ended == ((Turn("a", "one"), Turn("c", "three")),)
    assert going.chat.settings.temperature == 0.25
    system, asked = Message("system", "S"), Message("user", "d")
    assert prompts[3] == model.chat_ids([system, asked])
    past = [Message("user", "a"), Message("assistant", "one")]
    assert prompts[2] == model.chat_ids([system, *past, Message("user", "c")])
    assert "Taken back: b\n" in notes
    assert notes.count("The temperature is 0.25.\n") == 2
    assert "  /save FILE " in notes


def test_what_cannot_be_done_is_told_and_changes_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(model, monkeypatch, "one", "two")
    cases = [
        ("/udno", "unknown command '/udno'. Did you mean '/undo'?"),
        ("/temperature hot", "temperature: expected 0 (greedy) or more, got 'hot'."),
        ("/temperature -1", "got '-1'"),
        ("/temperature nan", "got 'nan'"),
        ("/save", "name a file"),
        ("/save talk.txt", ".json or a .jsonl"),
        ("/undo all", "/undo stands alone on its line, got 'all'"),
        ("x" * CONTEXT, f"the question is {CONTEXT + 2} tokens, and the model's context is 64"),
        ("caf\udce9", "bytes that are no text"),
        (" /etc", ""),
    ]
    for line, told in cases[:-1]:
        going, code, answers, notes = talk(model, Terminal(line), Chat(turns=TURNS[:1]))
        assert f"! {told}" in notes or told in notes, line
        assert (going.chat, code, answers) == (Chat(turns=TURNS[:1]), 0, ""), line
    going, _, _, notes = talk(model, Terminal("/undo", "/save a.json", "x" * 99, " /etc"))
    assert "nothing to undo" in notes
    assert "nothing to save" in notes
    assert going.chat.turns == (Turn("/etc", "one"),)
    assert going.faults == 3


def test_dropped_turns_are_told_once_and_again_after_a_reset(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ["a" * 25] * 9
    scripted(model, monkeypatch, *long)
    settings = GenerateConfig(max_new_tokens=9)
    lines = Terminal(*"abcd", "/reset", *"efgh")
    for lang, words in (("en", "has outgrown the context of 64"), ("es", "ya no cabe")):
        lines = Terminal(*"abcd", "/reset", *"efgh") if lang == "en" else Terminal(*"abcd")
        scripted(model, monkeypatch, *long)
        _, _, _, notes = talk(model, lines, Chat(settings=settings), lang=lang)
        assert notes.count(words) == (2 if lang == "en" else 1)


# Answers


def test_the_edges_of_an_answer_are_not_part_of_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(model, monkeypatch, "\n 4 \n y 5\n\n", " \n", "6")
    going, _, answers, notes = talk(model, Terminal("a", "b", "c"))
    assert answers == "4 \n y 5\n\n6\n"
    assert going.chat.turns == (Turn("a", "4 \n y 5"), Turn("c", "6"))
    assert "wrote nothing" in notes


def test_what_a_model_writes_does_not_steer_the_terminal(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(model, monkeypatch, "a\x1b[2Jb")
    shown = Terminal()
    Talk(model, Chat(), ChatConsole(Terminal("a"), shown, io.StringIO())).run()
    assert shown.getvalue() == "a␛[2Jb\n"


@pytest.mark.parametrize("interactive", [True, False])
def test_ctrl_c_keeps_what_was_written(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interactive: bool
) -> None:
    """The é is stopped in its middle: half a character is not shown and not kept."""
    real = models.generate

    def interrupted(*args: Any, on_token: Any, **others: Any) -> Generation:
        for token in "el herr\u00e9".encode()[:-1]:
            on_token(0, token)
        monkeypatch.setattr(models, "generate", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "generate", interrupted)
    lines = Terminal("who", "/quit") if interactive else io.StringIO("who\nand\n")
    path = tmp_path / "talk.json"
    going, code, answers, notes = talk(model, lines, save=str(path))
    assert answers == "el herr\n"
    assert going.chat.turns == (Turn("who", "el herr"),)
    assert code == (0 if interactive else 130)
    assert ("Stopped; what was written is kept" in notes) == interactive
    assert json.loads(path.read_text(encoding="utf-8")) == going.chat.to_json()


def test_ctrl_c_before_a_word_takes_the_question_back(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **others: Any) -> Generation:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "generate", interrupted)
    going, code, _, notes = talk(model, Terminal("who"), lang="es")
    assert (going.chat.turns, code) == ((), 0)
    assert "El modelo no escribió nada" in notes


@pytest.mark.parametrize("end", [KeyboardInterrupt, EOFError])
def test_ctrl_c_and_ctrl_d_at_the_prompt_end_the_chat(
    model: Model, end: type[BaseException]
) -> None:
    going, code, answers, notes = talk(model, Terminal(end, "never asked"))
    assert (going.chat, code, answers) == (Chat(), 0, "")
    assert "you> " in notes


def test_an_answer_says_why_it_was_cut(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(module: Any, prompts: Any, settings: GenerateConfig, *_: Any, **__: Any) -> Any:
        text = "x" * settings.max_new_tokens
        return Generation([[1]], ["length"], 1.0, 1.0, False, [text])

    monkeypatch.setattr(models, "generate", endless)
    chat = Chat(settings=GenerateConfig(max_new_tokens=40))
    _, _, answers, notes = talk(model, Terminal("a", "b" * 30), chat)
    assert [len(line) for line in answers.splitlines()] == [40, CONTEXT - 32]
    assert "cut at 40 tokens, as --max-new-tokens says" in notes
    assert "cut at 32 tokens: the context of 64 is full" in notes


# Transcripts


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_transcript_is_read_back_by_prepare(tmp_path: Path, suffix: str) -> None:
    chat = Chat("Sé breve.", turns=TURNS[:2]).reset()
    chat = replace(chat, turns=(Turn("q\nr", "line\nñ"),))
    one, several = tmp_path / f"one.{suffix}", tmp_path / f"several.{suffix}"
    write_transcript(one, replace(chat, ended=()))
    write_transcript(several, chat)
    text = one.read_text(encoding="utf-8")
    assert json.loads(text) == chat.to_json()
    for path, documents, words in ((one, 1, ["line\nñ"]), (several, 2, ["4", "7", "line\nñ"])):
        done = prepare([str(path)], tmp_path / path.stem, tokenizer="byte", val=0.0)
        assert done.facts["documents"] == documents
        ids = (tmp_path / path.stem / "train.bin").read_bytes()
        mask = (tmp_path / path.stem / "train.mask.bin").read_bytes()
        learnt = [
            int.from_bytes(ids[2 * n : 2 * n + 2], "little") for n, bit in enumerate(mask) if bit
        ]
        pieces: list[bytes] = [b""]
        for id in learnt:
            if id == END:
                pieces.append(b"")
            else:
                pieces[-1] += bytes([id])
        assert sorted(piece.decode() for piece in pieces[:-1]) == sorted(words)


def test_the_transcript_follows_every_turn(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, other = tmp_path / "talks" / "a.jsonl", tmp_path / "b.json"
    seen = []

    class Watched(Terminal):
        def readline(self, *_: Any) -> str:
            here = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            seen.append([len(json.loads(line)["messages"]) for line in here])
            return super().readline()

    scripted(model, monkeypatch, *"1234")
    lines = Watched(
        "a", "/undo", "b", "c", f"/save {other}", "/reset", "d", f"/save {other}", "/save"
    )
    _, _, _, notes = talk(model, lines, save=str(path))
    assert seen == [[], [2], [], [2], [4], [4], [4], [4, 2], [4, 2], [4, 2]]
    assert [len(talk["messages"]) for talk in json.loads(other.read_text("utf-8"))] == [4, 2]
    assert f"The transcript is in {other} (2 turns)." in notes
    assert f"The transcript is in {path} (3 turns)." in notes


def test_nothing_is_overwritten(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"old\.json: is there already"):
        new_chat("", GenerateConfig(), str(path))
    _, _, _, notes = talk(model, Terminal(f"/save {path}"), Chat(turns=TURNS))
    assert "is there already" in notes
    assert path.read_text() == "mine"
    for settings in (GenerateConfig(samples=2), GenerateConfig(temperature=-1.0)):
        with pytest.raises(InputError, match=r"samples is 2|temperature is -1"):
            new_chat("", settings, "")


# Which models


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    plain = load(saved(tmp_path, template=None), device="cpu")
    with pytest.raises(InputError, match=r"no chat template.*To chat with it, train it on conv"):
        talk(plain, Terminal("hola"))


def test_a_system_prompt_longer_than_the_context_is_refused_at_once(model: Model) -> None:
    with pytest.raises(InputError, match="the system prompt and the question are"):
        talk(model, Terminal("hola"), Chat("s" * CONTEXT))


def test_an_adapter_speaks_with_the_tokenizer_of_its_base(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from yunque.adapt.lora import add_lora, save_adapter

    folder = saved(tmp_path / "model")
    described = json.loads((folder / "generation_config.json").read_text("utf-8"))
    described["eos_token_id"] = [END, 7]
    (folder / "generation_config.json").write_text(json.dumps(described), encoding="utf-8")
    inner, names = models.adaptable(base := load(folder, device="cpu").module)
    add_lora(inner, AdaptConfig(), 1, names)
    with torch.no_grad():
        for name, parameter in inner.named_parameters():
            if "lora" in name:
                parameter.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(3))
    save_adapter(inner, tmp_path / "adapter", str(folder), names)
    adapted = load(tmp_path / "adapter", device="cpu")
    assert adapted.end_ids == {END, 7}
    ids = torch.tensor([adapted.chat_ids([Message("user", "hola")])])
    with torch.inference_mode():
        logits = adapted.module.head(adapted.module(ids))
        assert torch.equal(logits, base.head(base(ids)))
    going, code, _, _ = talk(adapted, io.StringIO("hola\n"))
    assert (code, going.chat.asked) == (0, 1)


# The command


def test_a_file_of_questions_from_outside(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    questions = f"\ufeffhola\n\n/temperature 0.8\n{'x' * 99}\nadiós\n"
    words = ["chat", str(folder), "--max-new-tokens", "12", "--lang", "en", "--device", "cpu"]
    path = tmp_path / "talk.jsonl"
    command = [sys.executable, "-m", "yunque.cli", *words, "--save", str(path)]
    done = subprocess.run(
        command,
        input=questions,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 2, done.stderr
    assert "yunque: line 4: the question is 101 tokens" in done.stderr
    talks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    (messages,) = [talk["messages"] for talk in talks]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["hola", "adiós"]
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert done.stdout == "".join(f"{answer}\n" for answer in answers)
    first = load(folder, device="cpu").generate("hola", chat=True, max_new_tokens=12).texts[0]
    assert answers[0] == first.strip()


@pytest.mark.parametrize(("lang", "taken"), [("en", "Taken back: b"), ("es", "Retirada: b")])
def test_json_is_one_object_at_the_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lang: str,
    taken: str,
) -> None:
    folder = saved(tmp_path / "model")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\n/undo\n/quit\nnever\n"))
    words = ["chat", str(folder), "--json", "--lang", lang, "--system", "S", "--device", "cpu"]
    assert cli.main([*words, "--max-new-tokens", "6"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    messages = json.loads(out)["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]
    assert taken in err
