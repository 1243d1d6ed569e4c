"""Batches, ends, stop texts, streaming, settings and the sliding window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from reference_models import pair

from yunque.config import GenerateConfig
from yunque.errors import InputError
from yunque.generate.context import Contexts, window_start
from yunque.generate.decode import check, cut_at_stop, generate
from yunque.model.decoder import Decoder

VOCAB = 61
GREEDY = GenerateConfig(max_new_tokens=20, temperature=0.0)
PROMPTS = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [40, 41]]


def model_of(family: str, context_length: int = 48, seed: int = 0) -> Decoder:
    return pair(family, context_length=context_length, seed=seed)[0]


def spell(ids: Sequence[int]) -> str:
    """One letter a token; token 60 spells three letters, 58 and 59 are halves of an é."""
    spelled = b"".join(
        {58: b"\xc3", 59: b"\xa9", 60: b"xyz"}.get(token, bytes([65 + token])) for token in ids
    )
    return spelled.decode("utf-8", errors="replace")


class Script(torch.nn.Module):
    """Stands for a model: writes given rows of tokens, whatever it reads."""

    def __init__(self, rows: list[list[int]], prompt_length: int):
        super().__init__()
        self.config = model_of("gpt2").config
        self.token_embedding = torch.nn.Embedding(VOCAB, 1)
        self.rows, self.prompt_length = rows, prompt_length

    def forward(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
        step = tokens.shape[1] - self.prompt_length
        wanted = torch.tensor([row[min(step, len(row) - 1)] for row in self.rows])
        return torch.nn.functional.one_hot(wanted, VOCAB)[:, None].float()

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def write(script: list[int], stop: tuple[str, ...], end_ids: Sequence[int] = ()) -> tuple:
    streamed: list[int] = []
    result = generate(
        Script([script], 2),
        [[0, 1]],
        dataclasses.replace(GREEDY, max_new_tokens=len(script), stop=stop),
        end_ids,
        spell,
        lambda row, token: streamed.append(token),
        use_cache=False,
    )
    assert streamed == result.token_ids[0]  # nothing is streamed that is cut afterwards
    return result.token_ids[0], result.texts[0], result.stopped[0]


@pytest.mark.parametrize("family", ["gpt2", "phi", "llama", "mistral", "qwen3"])
def test_a_ragged_batch_equals_its_rows_alone(family: str) -> None:
    model = model_of(family)
    first = generate(model, PROMPTS, GREEDY, [])
    ends = [first.token_ids[0][3], first.token_ids[2][9]]
    for end_ids in ([], ends):
        together = generate(model, PROMPTS, GREEDY, end_ids)
        alone = [generate(model, [prompt], GREEDY, end_ids) for prompt in PROMPTS]
        assert together.token_ids == [each.token_ids[0] for each in alone]
        assert together.stopped == [each.stopped[0] for each in alone]
        uncached = generate(model, PROMPTS, GREEDY, end_ids, use_cache=False)
        assert uncached.token_ids == together.token_ids
    assert not together.window_slid
    assert together.stopped.count("end") >= 2
    assert all(end not in ids for ids in together.token_ids for end in ends)


def test_logits_of_padded_rows_equal_rows_alone() -> None:
    model = model_of("qwen2").eval()
    with torch.inference_mode():
        contexts = Contexts(model, PROMPTS, 4, True)
        for token in range(3):
            together = contexts.next_logits()
            for row, prompt in enumerate(PROMPTS):
                ids = torch.tensor([prompt + list(range(token))])
                alone = model.head(model(ids))[0, -1]
                # Relative: these logits are of order 10 to 100.
                torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-4)
            contexts.append(torch.full((4,), token))


def test_rows_that_ended_are_dropped_and_the_others_go_on() -> None:
    model = model_of("llama")
    prompts = [[token, token + 1] for token in range(24)]
    plain = generate(model, prompts, GREEDY, [])
    written = [token for ids in plain.token_ids for token in ids]
    end_ids = sorted(set(range(VOCAB)), key=written.count)[-6:-3]
    result = generate(model, prompts, GREEDY, end_ids)
    for ids, whole, reason in zip(result.token_ids, plain.token_ids, result.stopped, strict=True):
        ends = [place for place, token in enumerate(whole) if token in end_ids]
        assert ids == (whole[: ends[0]] if ends else whole)
        assert reason == ("end" if ends else "length")
    assert 12 < result.stopped.count("end") < 24  # more than half: the batch was made smaller


def test_samples_are_prompt_major_and_follow_the_seed() -> None:
    model = pair("llama", std=0.1)[0]
    settings = GenerateConfig(max_new_tokens=8, samples=3, temperature=1.0, seed=4)
    result = generate(model, [[1, 2], [3]], settings, [])
    assert len(result.token_ids) == 6
    assert len({tuple(ids) for ids in result.token_ids}) == 6
    assert generate(model, [[1, 2], [3]], settings, []).token_ids == result.token_ids
    other = dataclasses.replace(settings, seed=5)
    assert generate(model, [[1, 2], [3]], other, []).token_ids != result.token_ids
    greedy = dataclasses.replace(settings, temperature=0.0)
    rows = generate(model, [[1, 2], [3]], greedy, []).token_ids
    assert rows[0] == rows[1] == rows[2] != rows[3] == rows[4] == rows[5]


def test_the_padding_of_a_row_is_not_penalised() -> None:
    model = pair("gpt2", std=0.15)[0]
    settings = dataclasses.replace(GREEDY, repetition_penalty=3.0)
    together = generate(model, PROMPTS, settings, [])
    alone = [generate(model, [prompt], settings, []).token_ids[0] for prompt in PROMPTS]
    assert together.token_ids == alone
    assert together.token_ids != generate(model, PROMPTS, GREEDY, []).token_ids


def test_window_start() -> None:
    assert [window_start(length, 8) for length in range(1, 18)] == [0] * 8 + [4] * 4 + [8] * 4 + [
        12
    ]
    assert [window_start(length, 7) for length in (7, 8, 11, 12)] == [0, 4, 4, 8]
    assert [window_start(length, 1) for length in (1, 2, 9)] == [0, 1, 8]
    for limit in range(1, 20):
        for length in range(1, 100):
            width = length - window_start(length, limit)
            assert (width == length) if length <= limit else (limit // 2 < width <= limit)


@pytest.mark.parametrize("context_length", [1, 7, 12])
@pytest.mark.parametrize("family", ["gpt2", "phi", "llama", "mistral"])
def test_cached_equals_uncached_across_slides(family: str, context_length: int) -> None:
    model = model_of(family, context_length)
    settings = dataclasses.replace(GREEDY, max_new_tokens=27)
    long = [*PROMPTS, [token % VOCAB for token in range(3, 40)]]
    for prompts in ([[5, 9, 2]], long):
        cached = generate(model, prompts, settings, [])
        uncached = generate(model, prompts, settings, [], use_cache=False)
        assert cached.window_slid
        assert uncached.window_slid
        assert cached.token_ids == uncached.token_ids
    alone = [generate(model, [prompt], settings, []).token_ids[0] for prompt in long]
    assert cached.token_ids == alone


def test_the_window_slides_with_the_first_token_that_does_not_fit() -> None:
    model = model_of("gpt2", 12)
    for new, slid in ((10, False), (11, True)):  # the last token written is never read
        settings = dataclasses.replace(GREEDY, max_new_tokens=new)
        assert generate(model, [[1, 2, 3]], settings, []).window_slid == slid
    settings = dataclasses.replace(GREEDY, max_new_tokens=1)
    assert generate(model, [list(range(13))], settings, []).window_slid


def test_a_full_window_is_read_anew_once_per_half_context() -> None:
    model = model_of("llama", 16)
    widths: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    generate(model, [[1, 2, 3]], dataclasses.replace(GREEDY, max_new_tokens=40), [])
    # 39 tokens are read after the prompt; the window fills at 16, 24, 32 and 40 tokens.
    assert sorted(widths) == [1] * 39 + [3] + [8] * 4


A, B, C, D, E = range(5)


@pytest.mark.parametrize(
    ("script", "stop", "expected"),
    [
        ([A, B, C, D, E], ("D",), ([A, B, C], "ABC", "stop")),
        ([A, B, C, D, E], ("CD",), ([A, B], "AB", "stop")),  # spans two tokens
        ([A, B, C, D, E], ("E", "BC"), ([A], "A", "stop")),  # the first one counts
        ([A, B, C, D, E], ("A",), ([], "", "stop")),
        ([A, 60, C, D, E], ("yzC",), ([A], "Ax", "stop")),  # begins inside a token: text is exact
        ([A, B, 60, D, E], ("y",), ([A, B], "ABx", "stop")),
        ([A, 58, 59, C, D], ("é",), ([A], "A", "stop")),  # a character of two tokens
        ([A, 58, 59, C, D], ("éC",), ([A], "A", "stop")),
        ([A, A, A, B, A], ("AAB",), ([A], "A", "stop")),
        ([A, B, C, D, E], ("EF",), ([A, B, C, D, E], "ABCDE", "length")),
        ([A, B, C, D, E], ("BD",), ([A, B, C, D, E], "ABCDE", "length")),
        ([A, B, C, D, E], ("Z",), ([A, B, C, D, E], "ABCDE", "length")),
        ([A, B, C, D, E], (), ([A, B, C, D, E], "ABCDE", "length")),
    ],
)
def test_stop_texts(script: list[int], stop: tuple[str, ...], expected: tuple) -> None:
    assert write(script, stop) == expected


def test_an_end_token_after_the_beginning_of_a_stop_text() -> None:
    assert write([A, B, C, D, E], ("CX",), [D]) == ([A, B, C], "ABC", "end")


def test_a_stop_text_beyond_the_tokens_looked_back_at() -> None:
    letters = [A, B, C, D] * 10
    assert write([*letters, E, E], ("E",)) == (letters, "ABCD" * 10, "stop")


def test_a_stop_text_ends_the_work_not_only_the_text() -> None:
    script = Script([[A, B, C] + [D] * 50], 2)
    calls: list[int] = []
    script.register_forward_pre_hook(lambda *_: calls.append(1))
    settings = dataclasses.replace(GREEDY, max_new_tokens=53, stop=("BC",))
    generate(script, [[0, 1]], settings, [], spell, use_cache=False)
    assert len(calls) == 3


def test_stop_texts_by_row_and_in_beams() -> None:
    model = model_of("llama")
    plain = generate(model, PROMPTS, GREEDY, [], spell)
    stop = plain.texts[2][6:8]
    settings = dataclasses.replace(GREEDY, stop=(stop,))
    result = generate(model, PROMPTS, settings, [], spell)
    for row, text in enumerate(plain.texts):
        kept, found, _ = text.partition(stop)
        assert result.texts[row] == kept
        assert (result.stopped[row] == "stop") == bool(found)
    assert result.stopped[2] == "stop"

    beams = dataclasses.replace(GREEDY, beams=3)
    whole = generate(model, PROMPTS, beams, [], spell)
    streamed: dict[int, list[int]] = {row: [] for row in range(4)}
    cut = generate(
        model,
        PROMPTS,
        dataclasses.replace(beams, stop=(whole.texts[1][4:6],)),
        [],
        spell,
        lambda row, token: streamed[row].append(token),
    )
    assert cut.texts[1] == whole.texts[1].partition(whole.texts[1][4:6])[0]
    assert list(streamed.values()) == cut.token_ids


def test_cut_at_stop_counts_no_half_characters() -> None:
    assert cut_at_stop([A, 58, 59, B, C], ["B"], spell) == ([A, 58, 59], "Aé", True)
    assert cut_at_stop([A, 58, 59, B, C], ["é"], spell) == ([A], "A", True)
    assert cut_at_stop([A, 58, 59], ["Z"], spell) == ([A, 58, 59], "Aé", False)


def test_tokens_stream_as_they_come() -> None:
    model = model_of("gpt2")
    events: list[tuple[int, int]] = []
    result = generate(
        model, PROMPTS[:2], GREEDY, [], on_token=lambda row, token: events.append((row, token))
    )
    assert result.texts is None
    by_turns = [
        (row, token)
        for both in zip(*result.token_ids, strict=True)
        for row, token in enumerate(both)
    ]
    assert events == by_turns


def test_the_mode_of_the_model_is_put_back() -> None:
    model = pair("gpt2")[0]
    for training in (True, False):
        model.train(training)
        generate(model, [[1]], GREEDY, [])
        assert model.training == training

    def fail(row: int, token: int) -> None:
        assert not model.training  # no dropout while it writes
        raise RuntimeError("stop here")

    model.train()
    with pytest.raises(RuntimeError, match="stop here"):
        generate(model, [[1]], GREEDY, [], on_token=fail)
    assert model.training


def test_tokens_per_second_counts_what_was_written() -> None:
    result = generate(model_of("gpt2"), PROMPTS, GREEDY, [])
    assert result.tokens_per_second == pytest.approx(80 / result.seconds)


def test_all_faults_of_the_settings_come_together() -> None:
    wrong = GenerateConfig(
        max_new_tokens=0,
        temperature=-1.0,
        top_k=-1,
        top_p=0.0,
        min_p=1.5,
        repetition_penalty=0.0,
        beams=0,
        samples=0,
        seed=-1,
        stop=("",),
        stop_tokens=(3, -1),
    )
    with pytest.raises(InputError) as caught:
        check(wrong)
    message = str(caught.value)
    assert message.startswith("11 things to mend:")
    for field in dataclasses.fields(wrong):
        if field.name != "length_penalty":  # any number makes sense
            assert f". {field.name} is {getattr(wrong, field.name)!r}: " in message


def test_settings_that_contradict_each_other() -> None:
    check(GenerateConfig(beams=3, samples=3))
    with pytest.raises(InputError, match=r"^samples is 4: at most beams \(3\)"):
        check(GenerateConfig(beams=3, samples=4))
    with pytest.raises(InputError, match=r"^top_k is 5: beam search does not sample"):
        check(GenerateConfig(beams=3, top_k=5))


def test_faults_of_the_call() -> None:
    model = model_of("gpt2")
    with pytest.raises(InputError, match=r"^prompt 1 has no tokens: begin it with the separator"):
        generate(model, [[1], []], GREEDY, [])
    with pytest.raises(InputError, match=r"^prompt 0 has ids from 3 to 61: expected 0 to 60"):
        generate(model, [[3, 61]], GREEDY, [])
    with pytest.raises(InputError, match=r"^no prompt"):
        generate(model, [], GREEDY, [])
    with pytest.raises(InputError, match=r"^beams is 62: at most one for each of 61 tokens"):
        generate(model, [[1]], GenerateConfig(beams=62), [])
    with pytest.raises(InputError, match=r"^stop texts need `decode`"):
        generate(model, [[1]], GenerateConfig(stop=("a",)), [])
    with pytest.raises(InputError, match=r"^stop_tokens is \(3, 61\): expected ids from 0 to 60"):
        generate(model, [[1]], GenerateConfig(stop_tokens=(3, 61)), [])


@pytest.mark.parametrize("beams", [1, 3])
def test_stop_tokens_end_a_text_as_end_tokens_do(beams: int) -> None:
    model = model_of("gpt2")
    settings = dataclasses.replace(GREEDY, beams=beams)
    written = generate(model, [[5, 9, 2]], settings, []).token_ids[0]
    token, other = written[6], next(id for id in range(VOCAB) if id not in written)
    asked = dataclasses.replace(settings, stop_tokens=(token,))
    stopped = generate(model, [[5, 9, 2]], asked, [other])
    expected = generate(model, [[5, 9, 2]], settings, [other, token])
    assert (stopped.token_ids, stopped.stopped) == (expected.token_ids, ["end"])
    assert stopped.token_ids[0] == written[: written.index(token)] or beams > 1
