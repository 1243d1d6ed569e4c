"""The ledger closes to the token, whatever the data; and each planted fault is named."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yunque.assemble.sources import doubts as tried_doubts
from yunque.batch import Batch
from yunque.config import DataConfig
from yunque.data.batches import Batches, TokenFile
from yunque.data.checks import check_data, notes_on
from yunque.data.languages import LanguageSurvey
from yunque.data.ledger import Account, LedgerError, token_accounts
from yunque.data.packing import PackedBatches, Packing
from yunque.data.prepare import Prepared, open_prepared, prepare
from yunque.errors import InputError
from yunque.words.ledger import equations, example_place

WORDS = st.text(st.sampled_from("ab ñé\n中1🙂"), max_size=30)
SAID = WORDS.map(lambda text: f"x{text}")


@st.composite
def talks(draw: st.DrawFn) -> dict[str, Any]:
    turns = draw(st.integers(1, 3))
    messages = []
    for _ in range(turns):
        messages += [
            {"role": "user", "content": draw(SAID)},
            {"role": "assistant", "content": draw(SAID)},
        ]
    return {"messages": messages}


CASES = st.fixed_dictionaries(
    {
        "talks": st.lists(talks(), max_size=6),
        "texts": st.lists(SAID, max_size=5),
        "files": st.lists(st.lists(SAID, min_size=1, max_size=4), max_size=3),
        "val": st.sampled_from([0.0, 0.2]),
        "tokenizer": st.sampled_from(["byte", "char"]),
        "duplicates": st.sampled_from(["keep", "drop"]),
        "loss": st.sampled_from(["auto", "all"]),
        "over_long": st.sampled_from(["split", "truncate"]),
        "context": st.integers(1, 40),
        "stride": st.integers(1, 60),
        "bad": st.booleans(),
        "seed": st.integers(0, 9),
    }
)


def write_case(case: dict[str, Any], folder: Path) -> list[str]:
    sources = []
    for name, rows in (
        ("talks.jsonl", case["talks"]),
        ("texts.jsonl", [{"text": text} for text in case["texts"]]),
    ):
        if rows:
            lines = [json.dumps(row) for row in rows]
            lines += ["{not json"] if case["bad"] else []
            (folder / name).write_text("\n".join(lines), encoding="utf-8")
            sources.append(str(folder / name))
    for number, documents in enumerate(case["files"]):
        path = folder / f"{number}.txt"
        path.write_bytes("<|endoftext|>".join(documents).encode("utf-8"))
        sources.append(str(path))
    return sources


def close(case: dict[str, Any]) -> bool:
    """Whether the case could be prepared; asserts that everything is accounted for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = write_case(case, folder)
        if not sources:
            return False
        config = DataConfig(
            tokenizer=case["tokenizer"],
            val=case["val"],
            duplicates=case["duplicates"],
            loss=case["loss"],
            skip_bad=True,
        )
        try:
            made = prepare(sources, config, folder / "out")
        except InputError as fault:
            if not re.search("cannot be split|no character left", str(fault)):
                raise
            return False
        check(made, case)
    return True


def check(made: Prepared, case: dict[str, Any]) -> None:
    facts = made.facts
    for account in facts["ledger"].values():
        assert account["error"] == 0
        assert account["read"] == sum(
            count for part, count in account.items() if part not in ("read", "error")
        )
    train = made.splits["train"]
    everything = sum(tokens.length for tokens in made.splits.values())
    for batches in batches_of(made, case):
        counts = batches.counts if isinstance(batches, PackedBatches) else batches.counts()
        accounts = token_accounts(facts, counts, batches.windows, case["context"])
        for account in accounts.values():
            assert account.error == 0, account
        assert accounts["tokens"].read == everything + facts["dropped"]["tokens"]
        # The batches themselves, counted one by one, agree with what the ledger says of them.
        targets = [batches.batch(step).targets for step in range(batches.windows)]
        carrying = sum(int((rows != -100).sum()) for rows in targets)
        if isinstance(batches, PackedBatches):
            assert carrying == counts.trained
            assert sum(rows.numel() for rows in targets) == accounts["epoch"].read
        elif case["stride"] >= case["context"] and counts.unused + counts.masked < train.length:
            assert carrying >= counts.trained


def batches_of(made: Prepared, case: dict[str, Any]) -> list[Batches | PackedBatches]:
    train, context, seed = made.splits["train"], case["context"], case["seed"]
    found: list[Batches | PackedBatches] = []
    makers = [lambda: Batches(train, context, 1, case["stride"], seed)]
    if train.documents is not None:
        makers.append(lambda: PackedBatches(train, context, 1, seed, case["over_long"]))
    for make in makers:
        try:
            found.append(make())
        except InputError as fault:
            # Too short for a window, or nothing carries loss: refused by name before step 1.
            if not re.search("one window needs|carries loss|two tokens", str(fault)):
                raise
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_the_ledger_closes(case: dict[str, Any]) -> None:
    close(case)


@pytest.mark.slow
def test_the_ledger_closes_in_ten_thousand_cases() -> None:
    closed = 0

    @settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(CASES)
    def run(case: dict[str, Any]) -> None:
        nonlocal closed
        closed += close(case)

    run()
    print(f"closed with error 0: {closed} of 10,000 cases; the others were refused by name")
    assert closed > 5_000


def test_an_account_that_does_not_close_stops_everything() -> None:
    account = Account("tokens", 10, {"trained": 6, "masked": 3})
    assert account.error == 1
    with pytest.raises(LedgerError, match=r"read 10, accounted for trained 6 \+ masked 3 = 9"):
        account.check("runs/x")


def test_a_divided_document_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("uno dos tres cuatro cinco\n" * 40)
    made = prepare([str(tmp_path / "a.txt")], DataConfig(tokenizer="byte"), tmp_path / "out")
    told = {key: n for key, n in made.facts["ledger"]["documents"].items() if n}
    assert told == {"read": 1, "train_val": 1}
    line = "documents: read 1 = split over training and validation 1"
    assert equations(made.facts["ledger"], "en")[0] == line
    config = DataConfig(tokenizer="byte", val=0.3, test=0.2)
    made = prepare([str(tmp_path / "a.txt")], config, tmp_path / "out")
    told = {key: n for key, n in made.facts["ledger"]["documents"].items() if n}
    assert told == {"read": 1, "train_test": 1}


def test_lines_left_out_are_bytes_and_no_documents(tmp_path: Path) -> None:
    raw = "año y día\n".encode() * 30 + "año y día\n".encode("latin-1") * 10
    (tmp_path / "a.txt").write_bytes(raw)
    config = DataConfig(tokenizer="byte", skip_bad=True, encoding="utf-8", val=0.0)
    made = prepare([str(tmp_path / "a.txt")], config, tmp_path / "out")
    ledger = made.facts["ledger"]
    assert {key: n for key, n in ledger["documents"].items() if n} == {"read": 1, "train": 1}
    told = {key: n for key, n in ledger["bytes"].items() if n}
    assert told == {"read": 30 * 12 + 10 * 10, "train": 30 * 12 + 10, "bad": 10 * 9}
    (doubt,) = [found for found in check_data(made.facts, 0)[1] if found.key == "data.bad_lines"]
    assert "10 lines were left out because they could not be read (19.6 % of" in doubt.text("en")


def talk(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


TOPICS = """
    el río el monte la ciudad un caballo dos barcas tres molinos la venta el rey un libro la luna "
    "el mar una carta el pan la sal un árbol el viento la torre el puente una espada el escudo
""".split()  # noqa: SIM905


def clean(number: int) -> list[dict[str, Any]]:
    """Records without a fault, different in every set and no two alike."""
    rng = np.random.default_rng(number)
    rows = []
    for row in range(30):
        words = [TOPICS[i] for i in rng.integers(0, len(TOPICS), 12)]
        names = "".join(chr(97 + i) for i in rng.integers(0, 26, 8))
        rows.append(talk(f"¿Qué sabes de {' '.join(words[:5])} y {names}?", " ".join(words)))
        rows[-1]["messages"][0]["content"] += f" Es la pregunta {chr(65 + row % 26)}{names[::-1]}."
    return rows


def doubts(
    rows: list[Any] | str | bytes,
    folder: Path,
    *,
    name: str = "data.jsonl",
    tokens_lost: int = 0,
    **options: Any,
) -> list[str]:
    """Keys of the doubts about some data; an error is given by its words."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    if isinstance(rows, list):
        rows = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    raw = rows.encode("utf-8") if isinstance(rows, str) else rows
    (folder / name).write_bytes(raw)
    try:
        options.setdefault("tokenizer", "bpe:400")
        made = prepare([str(folder / name)], DataConfig(**options), folder / "out")
    except InputError as fault:
        return [str(fault)]
    lost = tokens_lost
    if options.get("over_long") == "truncate":
        lost = PackedBatches(made.splits["train"], 40, 1, 1, "truncate").counts.truncated
    return [found.key for part in check_data(made.facts, lost) for found in part]


def test_twenty_clean_sets_raise_no_alarm(tmp_path: Path) -> None:
    assert [doubts(clean(number), tmp_path) for number in range(20)] == [[]] * 20


def test_answers_cut_by_the_length_limit_are_named(tmp_path: Path) -> None:
    assert doubts(clean(1), tmp_path, over_long="truncate") == ["data.lost_to_length"]


def test_a_limit_that_leaves_nothing_to_learn_is_named(tmp_path: Path) -> None:
    rows = [talk("a" * 50 + word, word) for word in ("uno", "dos", "tres")]
    assert doubts(rows, tmp_path, tokenizer="byte", val=0.0) == []
    train = open_prepared(tmp_path / "out").splits["train"]
    carried = [int(np.flatnonzero(row.targets[0] != -100)[0]) for row in rows_of(train)]
    least = min(carried) + 1
    with pytest.raises(InputError, match=rf"limit of 20 .* --max-length {least} or more"):
        PackedBatches(train, 20, 1, 0, "truncate")
    with pytest.raises(InputError, match=rf"--max-length {least} or more"):
        PackedBatches(train, least - 1, 1, 0, "truncate")
    assert PackedBatches(train, least, 1, 0, "truncate").counts.trained >= 1
    (tried,) = [
        found
        for found in tried_doubts(
            open_prepared(tmp_path / "out"), DataConfig(max_length=20, over_long="truncate")
        )
        if found.key == "data.all_lost_to_length"
    ]
    assert tried.numbers == {"length": 20, "least": least}


def rows_of(train: TokenFile) -> list[Batch]:
    """Each document of a split in a row of its own."""
    assert train.documents is not None
    sizes = np.diff(train.documents, prepend=0)
    packing = Packing(train, int(sizes.max()) - 1)
    return [packing.batch(np.array([row])) for row in range(packing.rows)]


def test_empty_answers_and_missing_turns_are_named(tmp_path: Path) -> None:
    rows = clean(2)
    rows[3]["messages"][1]["content"] = " "
    (found,) = doubts(rows, tmp_path)
    assert "data.jsonl:4:" in found
    assert "empty" in found
    rows[3]["messages"].pop()
    (found,) = doubts(rows, tmp_path)
    assert "data.jsonl:4:" in found
    assert "assistant" in found
    assert found.endswith("leave such records out (and have them listed) with --skip-bad.")
    assert doubts(rows, tmp_path, skip_bad=True) == ["data.bad_records"]
    (found,) = doubts(rows[3:4], tmp_path, skip_bad=True)
    assert "no text is left: 1 bad records left out, the first:" in found


def test_all_labels_masked_is_named(tmp_path: Path) -> None:
    made_of = [{"messages": [{"role": "user", "content": f"hola {n}"}]} for n in range(20)]
    (found,) = doubts(made_of, tmp_path)
    assert "data.jsonl:1:" in found
    assert "assistant" in found


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         "answer"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "nothing marks"),
        ("{% for m in messages %}<|{{ 'user' if m.role == 'assistant' else 'assistant' }}|>"
         "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", ""),
        ("no template at all", "no Jinja"),
        ("{% for m in messages %}{{ m.content", "Jinja"),
    ],
)  # fmt: skip
def test_templates_that_lose_or_swap_the_answer_are_named(
    tmp_path: Path, template: str, words: str
) -> None:
    plain = prepare_tokenizer(tmp_path, template)
    (found,) = doubts(clean(3), tmp_path, tokenizer=str(plain))
    assert "chat template" in found
    assert words in found


def prepare_tokenizer(folder: Path, template: str, **named: str) -> Path:
    """A tokenizer folder with a chat template of its own."""
    from yunque.data.tokenizer import train_tokenizer

    where = folder / "tokenizer"
    tokenizer = train_tokenizer(
        "byte", lambda: iter(["x"]), "<|endoftext|>", ("<|user|>", "<|assistant|>"), template
    )
    tokenizer.save(where)
    path = where / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    return where


def test_pad_equal_to_the_end_token_keeps_the_loss_of_the_end(tmp_path: Path) -> None:
    from yunque.data.chat_template import DEFAULT_CHAT_TEMPLATE

    folder = prepare_tokenizer(tmp_path, DEFAULT_CHAT_TEMPLATE, pad_token="<|endoftext|>")
    assert doubts(clean(4), tmp_path, tokenizer=str(folder)) == ["data.pad_is_end"]
    saved = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert saved.get("pad_token") != saved["eos_token"]


def test_near_copies_across_the_split_are_named(tmp_path: Path) -> None:
    rows = clean(5)
    copies = [
        talk(m[0]["content"].upper(), m[1]["content"].upper() + " ")
        for m in (row["messages"] for row in rows)
    ]
    assert doubts(rows + copies, tmp_path, val=0.3) == ["data.near_copies"]


def test_copies_with_other_numbers_are_told_apart_from_arithmetic(tmp_path: Path) -> None:
    rows = clean(6)
    changed = [json.loads(json.dumps(row)) for row in rows]
    for number, (row, copy) in enumerate(zip(rows, changed, strict=True)):
        row["messages"][1]["content"] += f" Hoja {number + 10}."
        copy["messages"][1]["content"] += f" Hoja {number + 50}."
    assert doubts(rows + changed, tmp_path, val=0.3) == ["data.number_copies"]
    facts = json.loads((tmp_path / "out/data.json").read_text())["facts"]
    counted = facts["doubts"]
    assert (counted["copies"], counted["near_copies"]) == (0, 0)
    assert counted["number_copies"] == counted["number_doubts"] > 5
    # The same ones upper-cased are near copies, and nothing else.
    for row, copy in zip(rows, changed, strict=True):
        copy["messages"] = [
            {**message, "content": message["content"].upper()} for message in row["messages"]
        ]
    assert doubts(rows + changed, tmp_path, val=0.3) == ["data.near_copies"]


def sums(number: int) -> list[dict[str, Any]]:
    """Arithmetic: bare sums, sums in words, and stories of a few forms; no two alike."""
    rng = np.random.default_rng(number)
    kinds = (
        "{a} + {b}",
        "What is {a} plus {b}?",
        "Ana tiene {a} manzanas rojas y verdes, y su "
        "hermana mayor le trae del mercado de la plaza {b} más. ¿Cuántas manzanas tiene Ana?",
    )
    pairs = sorted({(int(a), int(b)) for a, b in rng.integers(0, 100, (60, 2))})
    asked = [
        (kinds[number % 3] if number % 4 else kinds[i % 3], a, b) for i, (a, b) in enumerate(pairs)
    ]
    return [talk(form.format(a=a, b=b), f"{a + b}") for form, a, b in asked]


def test_arithmetic_raises_no_alarm(tmp_path: Path) -> None:
    found = [doubts(sums(number), tmp_path, val=0.3) for number in range(6)]
    assert found == [[]] * 6
    facts = json.loads((tmp_path / "out/data.json").read_text())["facts"]
    assert facts["doubts"]["number_copies"] > 10
    # A note says so, in words that make it no alarm.
    note = notes_on(facts)[-1]
    assert note.numbers["count"] == note.numbers["total"] == len(sums(5))
    assert "In exercises in arithmetic that is usual" in note.text("en")


def test_a_vocabulary_smaller_than_asked_is_told(tmp_path: Path) -> None:
    assert doubts(clean(8), tmp_path, tokenizer="bpe:50000") == []
    facts = json.loads((tmp_path / "out/data.json").read_text())["facts"]
    (note,) = notes_on(facts)
    assert note.numbers == {"size": facts["vocab_size"], "asked": 50_000}
    assert "not the 50,000 that were asked for" in note.text("en")


def test_texts_that_differ_in_their_digits_alone_are_counted(tmp_path: Path) -> None:
    form = "The old man number {} lives in house {} and says that café is good"
    rows = [{"text": form.format(n, 3 * n)} for n in range(40)]
    rows += [{"text": form.format(0, 0).upper()}]  # a copy of the first, digits and all
    rows += [row["messages"][1] for row in clean(7)]
    rows = [{"text": row.get("text") or row["content"]} for row in rows]
    doubts(rows, tmp_path, tokenizer="byte", val=0.0)
    facts = json.loads((tmp_path / "out/data.json").read_text())["facts"]
    (note,) = notes_on(facts)
    numbers = note.numbers
    assert (numbers["count"], numbers["total"], numbers["forms"]) == (41, 71, 1)
    places = (numbers["one"].split(":")[-1], numbers["other"].split(":")[-1])
    assert places == ("1", "2")
    doubts(clean(7), tmp_path, tokenizer="byte", val=0.0)
    assert notes_on(json.loads((tmp_path / "out/data.json").read_text())["facts"]) == []


def test_validation_that_stands_in_the_training_text_is_named(tmp_path: Path) -> None:
    lines = [
        f"{'palabra ' * 6}{chr(97 + n % 26)}{chr(97 + n // 26)} línea larga\n" for n in range(200)
    ]
    text = "".join(lines)
    assert doubts(text + text, tmp_path, name="a.txt", val=0.4) == ["data.val_in_train"]


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    rows = [{"q": "hola", "a": "adiós"} for _ in range(20)]
    (found,) = doubts(rows, tmp_path)
    assert "columns q, a" in found
    assert "--columns" in found
    (found,) = doubts(rows, tmp_path, columns="prompt=q,completion=b")
    assert "'b'" in found
    right = [{"q": f"hola {row}", "a": "adiós"} for row in "abcdefghij"]
    assert doubts(right, tmp_path, columns="prompt=q,completion=a") == []


def test_a_lone_column_is_never_taken_for_text_in_silence(tmp_path: Path) -> None:
    table = "question#answer\n" + "".join(f"hola {row}#adiós {row}\n" for row in "abcdefghij")
    assert doubts(table, tmp_path, name="a.csv", val=0.0) == ["data.one_column"]
    sources = json.loads((tmp_path / "out/data.json").read_text())["facts"]["sources"]
    assert sources[0]["text_column"] == "question#answer"
    named = {"columns": "text=question#answer", "val": 0.0}
    assert doubts(table, tmp_path, name="a.csv", **named) == []
    rows = [{"frase": f"hola {row}"} for row in "abcdefghij"]
    assert doubts(rows, tmp_path, val=0.0) == ["data.one_field"]
    texts = [{"text": row["frase"]} for row in rows]
    assert doubts(texts, tmp_path, val=0.0) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a\xf1o"}', "data.jsonl:3"),
        (b'{"text": "ends he', "data.jsonl:3"),
        (b'{"text": "a", "n": NaN}', "NaN"),
        (b'{"text": "a", "n": 1e999}', "1e999"),
        (b'{"text": "a", "text": "b"}', "text"),
    ],
)
def test_broken_records_are_named_or_listed(tmp_path: Path, line: bytes, words: str) -> None:
    rows = b"".join(b'{"text": "uno dos tres %d"}\n' % n for n in (1, 2))
    (found,) = doubts(rows + line + b"\n", tmp_path, val=0.0)
    assert "data.jsonl:3" in found
    assert words in found
    assert doubts(rows + line + b"\n", tmp_path, val=0.0, skip_bad=True) == ["data.bad_records"]


def test_records_that_share_a_line_are_named_by_their_number(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"¿{n}?", "completion": f"{n}."} for n in "abcdefgh"]
    rows[4]["completion"] = None
    text = json.dumps(rows)
    (found,) = doubts(text, tmp_path, name="a.json", val=0.0)
    assert "a.json:1: record 5: completion is null" in found
    assert doubts(text, tmp_path, name="a.json", val=0.0, skip_bad=True) == ["data.bad_records"]
    facts = json.loads((tmp_path / "out/data.json").read_text())["facts"]
    assert "a.json:1: record 5: completion is" in facts["doubts"]["bad"]["examples"][0]
    shown = [(example["line"], example["record"]) for example in facts["examples"]]
    assert shown == [(1, 1), (1, 2), (1, 3)]
    assert example_place(facts["examples"][1], ["a.json"], "en") == "a.json:1, record 2"
    (found,) = doubts(json.dumps({"data": rows}), tmp_path, name="a.json", val=0.0)
    assert "a.json:1: record 5: completion is null" in found
    (found,) = doubts(text.replace("null", "NaN"), tmp_path, name="a.json", val=0.0)
    assert "a.json:1: record 5: NaN" in found
    # The line is enough where each record has its own.
    (found,) = doubts(json.dumps(rows, indent=1), tmp_path, name="a.json", val=0.0)
    assert "a.json:18: completion is null" in found


def test_two_languages_in_one_file_are_named(tmp_path: Path) -> None:
    spanish = (
        "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, con los que más. " * 200
    )
    english = (
        "It was the best of times and the worst of times, that is what they have for us. " * 200
    )
    assert doubts(spanish + english, tmp_path, name="b.txt", val=0.0) == ["data.languages"]
    # Also in a short file, and where one follows late; a quotation is no second language.
    short = spanish[:9_000]
    assert doubts(short + english[:3_000], tmp_path, name="b.txt", val=0.0) == ["data.languages"]
    quoted = short + english[:900] + short[:4_000] + english[:700] + short
    assert doubts(quoted, tmp_path, name="b.txt", val=0.0) == []
    late = spanish * 40 + english * 6  # 640 kB, then 96 kB
    survey = LanguageSurvey()
    for start in range(0, len(late), 50_000):
        survey.update(late[start : start + 50_000])
    assert survey.mixed() == ["en", "es"]


def test_a_line_of_ten_megabytes_is_read_or_named(tmp_path: Path) -> None:
    rows = [{"text": f"corta {name}"} for name in "abcdefgh"] + [{"text": "a" * 10_000_000}]
    assert doubts(rows, tmp_path, tokenizer="byte", val=0.0) == ["data.long_record"]
