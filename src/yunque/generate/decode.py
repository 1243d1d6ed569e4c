"""From prompts to new tokens: the batch, the end of each row, stop texts and streaming."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from yunque.config import GenerateConfig, raise_faults
from yunque.generate.beam import beam_search
from yunque.generate.context import Contexts
from yunque.generate.sampling import choose
from yunque.model.protocol import LanguageModel

Decode = Callable[[Sequence[int]], str]
OnToken = Callable[[int, int], None]


@dataclass(frozen=True)
class Generation:
    """What was written; rows are prompt-major: all samples of the first prompt come first."""

    token_ids: list[list[int]]
    """New tokens of each row, without the end token."""
    stopped: list[str]
    """Why each row ended: "end" (the end token), "stop" (a stop text) or "length"."""
    seconds: float
    """Wall time, reading the prompts included."""
    tokens_per_second: float
    """New tokens of all rows, end tokens and cut tokens included, by `seconds`."""
    window_slid: bool
    """Some row outgrew the model's context, so its beginning was no longer seen."""
    texts: list[str] | None = None
    """New text of each row, up to the stop text; None where no `decode` was given."""
    finite: bool = True
    """False: the model computed logits that are no numbers, and nothing was written from there."""


def check(settings: GenerateConfig) -> None:
    """Hold the settings against every rule.

    Raises:
        InputError: all faults together, each with the field, the value got and the rule.
    """
    faults: list[str] = []

    def rule(holds: bool, name: str, expected: str) -> None:
        if not holds:
            faults.append(f"{name} is {getattr(settings, name)!r}: {expected}")

    rule(settings.max_new_tokens >= 1, "max_new_tokens", "1 or more.")
    rule(settings.temperature >= 0, "temperature", "0 (greedy) or more.")
    rule(settings.top_k >= 0, "top_k", "0 (all) or more tokens.")
    rule(0 < settings.top_p <= 1, "top_p", "above 0, up to 1 (all).")
    rule(0 <= settings.min_p <= 1, "min_p", "from 0 (off) to 1.")
    rule(settings.repetition_penalty > 0, "repetition_penalty", "above 0 (1 is off).")
    rule(settings.beams >= 1, "beams", "1 (off) or more.")
    rule(settings.samples >= 1, "samples", "1 or more.")
    rule(0 <= settings.seed < 2**31, "seed", "from 0 to 2147483647.")
    rule(all(settings.stop), "stop", "no stop text may be empty.")
    rule(all(id >= 0 for id in settings.stop_tokens), "stop_tokens", "ids are 0 or more.")
    if settings.beams > 1:
        rule(
            settings.samples <= settings.beams,
            "samples",
            f"at most beams ({settings.beams}): a beam search returns its best beams.",
        )
        sampling = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
        for name, off in sampling.items():
            rule(
                getattr(settings, name) == off,
                name,
                f"beam search does not sample; leave it at {off} or set beams to 1.",
            )
    raise_faults(faults)


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: GenerateConfig,
    end_ids: Collection[int],
    decode: Decode | None = None,
    on_token: OnToken | None = None,
    use_cache: bool = True,
) -> Generation:
    """Write on from each prompt, all prompts in one batch.

    The prompts may differ in length; each row is written as if it were alone. Beams above 1 are
    a beam search without sampling (the temperature is not read) that returns the best `samples`
    beams. A row longer than the model's context is seen through a sliding window
    (`context.window_start`).

    A stop text may span tokens and begin inside one. The text before the first stop is kept,
    exactly, in `texts`. `token_ids` keeps the most tokens whose text lies wholly before the
    stop: a token that holds the end of the text and the beginning of the stop is cut. Beam
    search cuts its finished texts in the same way.

    Args:
        model: its mode (training or evaluation) is as before afterwards.
        prompts: token ids, one sequence or more, none empty.
        settings: how tokens are chosen and when a row stops.
        end_ids: tokens that end a row, kept out of the result; `settings.stop_tokens` join them.
        decode: token ids → text; needed for `settings.stop`.
        on_token: called with (row, token id) as soon as no stop text can cut the token any
            more; with beams above 1, at the end.
        use_cache: False reads the whole window for each token: slow, the same tokens.

    Raises:
        InputError: a setting is out of range, a prompt is empty or holds an unknown id, there
            are more beams than tokens in the vocabulary, or stop texts come without `decode`.
    """
    check(settings)
    vocab_size = model.config.vocab_size
    faults = [] if prompts else ["no prompt: expected one or more."]
    for number, prompt in enumerate(prompts):
        if len(prompt) == 0:
            faults.append(f"prompt {number} has no tokens: begin it with the separator token.")
        elif not 0 <= min(prompt) <= max(prompt) < vocab_size:
            got = f"{min(prompt)} to {max(prompt)}"
            faults.append(
                f"prompt {number} has ids from {got}: expected 0 to {vocab_size - 1}; "
                "encode it with the model's own tokenizer."
            )
    if max(settings.stop_tokens, default=0) >= vocab_size:
        faults.append(
            f"stop_tokens is {settings.stop_tokens}: expected ids from 0 to {vocab_size - 1}."
        )
    if settings.beams > vocab_size:
        faults.append(f"beams is {settings.beams}: at most one for each of {vocab_size} tokens.")
    if settings.stop and decode is None:
        faults.append("stop texts need `decode`, a function from token ids to text.")
    raise_faults(faults)

    end_ids = {*end_ids, *settings.stop_tokens}
    rows = len(prompts) * settings.samples
    watch = _Watch(rows, settings.stop, decode, on_token)
    was_training = model.training
    began = time.perf_counter()
    try:
        model.eval()
        with torch.inference_mode():
            contexts = Contexts(model, prompts, settings.max_new_tokens, use_cache)
            if settings.beams > 1:
                written = beam_search(contexts, settings, end_ids)
            else:
                written = _sample(contexts, settings, end_ids, watch)
    finally:
        model.train(was_training)
    seconds = time.perf_counter() - began

    token_ids, stopped, texts = [], [], []
    for row, ids in enumerate(written):
        ended = bool(ids) and ids[-1] in end_ids
        if ended:
            ids = ids[:-1]
        reason = "end" if ended else "length"
        if decode is not None:
            ids, text, cut = cut_at_stop(ids, settings.stop, decode)
            reason = "stop" if cut else reason
            texts.append(text)
        watch.finish(row, ids)
        token_ids.append(ids)
        stopped.append(reason)
    return Generation(
        token_ids=token_ids,
        stopped=stopped,
        seconds=seconds,
        tokens_per_second=sum(map(len, written)) / seconds,
        window_slid=contexts.slid,
        finite=contexts.finite,
        texts=texts if decode is not None else None,
    )


def cut_at_stop(
    ids: Sequence[int], stops: Sequence[str], decode: Decode
) -> tuple[list[int], str, bool]:
    """The ids and the text before the first stop text, and whether there was one.

    The ids kept are the longest beginning of `ids` whose text is a beginning of that text.
    """
    text = decode(ids)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if not places:
        return list(ids), text, False
    text = text[: min(places)]
    kept = len(ids)
    while kept and not text.startswith(decode(ids[:kept])):
        kept -= 1
    return list(ids[:kept]), text, True


def _sample(
    contexts: Contexts, settings: GenerateConfig, end_ids: Collection[int], watch: _Watch
) -> list[list[int]]:
    """Rows grown token by token until each has ended; an end token is included."""
    logits = contexts.next_logits()  # (P, V): each prompt is read once for all its samples
    if not contexts.finite:
        return [[] for _ in range(len(logits) * settings.samples)]
    device = logits.device
    rows = torch.arange(len(logits), device=device).repeat_interleave(settings.samples)
    contexts.select(rows)
    logits = logits[rows]  # (B, V)
    generator = torch.Generator(device).manual_seed(settings.seed)
    ends = torch.tensor(sorted(end_ids), dtype=torch.int64, device=device)

    chosen = torch.zeros(len(rows), settings.max_new_tokens, dtype=torch.int64, device=device)
    lengths = torch.full((len(rows),), settings.max_new_tokens, device=device)
    row_of = torch.arange(len(rows), device=device)  # the result row of each context row
    growing = torch.ones(len(rows), dtype=torch.bool, device=device)  # of each context row
    for step in range(settings.max_new_tokens):
        ids = choose(logits, settings, contexts.history, generator)  # (B,)
        chosen[row_of, step] = ids  # a row that has ended is cut at its length afterwards
        stops = growing & torch.isin(ids, ends)
        if watch.needed:
            stops = stops | watch.add(row_of, ids, growing & ~stops)
        lengths[row_of[stops]] = step + 1
        growing = growing & ~stops
        left = int(growing.sum())
        if left == 0 or step + 1 == settings.max_new_tokens:
            break
        if 2 * left <= len(growing):  # dropping rows copies the cache: not for each one
            still = growing.nonzero().flatten()
            contexts.select(still)
            row_of, ids, growing = row_of[still], ids[still], growing[still]
        contexts.append(ids)
        logits = contexts.next_logits()
        if not contexts.finite:
            lengths[row_of[growing]] = step + 1
            break
    return [row[:n] for row, n in zip(chosen.tolist(), lengths.tolist(), strict=True)]


class _Watch:
    """Reads along while rows grow: finds stop texts and streams what none of them can cut."""

    def __init__(
        self, rows: int, stops: Sequence[str], decode: Decode | None, on_token: OnToken | None
    ):
        self.stops = stops
        self.decode = decode
        self.on_token = on_token
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self.sent = [0] * rows
        self.beginnings = tuple({stop[:n] for stop in stops for n in range(1, len(stop))})
        # Tokens to look back: one a byte of the longest stop, and some that only frame it.
        self.span = 8 + max((len(stop.encode()) for stop in stops), default=0)

    @property
    def needed(self) -> bool:
        return bool(self.stops) or self.on_token is not None

    def add(self, row_of: torch.Tensor, ids: torch.Tensor, growing: torch.Tensor) -> torch.Tensor:
        """Take one token for each growing row; True where a stop text is complete, `(B,)`."""
        complete = [
            live and self._add(row, token)
            for row, token, live in zip(
                row_of.tolist(), ids.tolist(), growing.tolist(), strict=True
            )
        ]
        return torch.tensor(complete, device=ids.device)

    def _add(self, row: int, token: int) -> bool:
        ids = self.ids[row]
        ids.append(token)
        if self.stops and self.decode is not None:
            tail = self.decode(ids[-self.span :])
            if any(stop in tail for stop in self.stops):
                return cut_at_stop(ids, self.stops, self.decode)[2]
            # Hold back what may be the beginning of a stop, or of a character in several tokens.
            if tail.endswith((*self.beginnings, "\N{REPLACEMENT CHARACTER}")):
                return False
        self._send(row, ids)
        return False

    def finish(self, row: int, ids: Sequence[int]) -> None:
        """Stream what was held back of a row whose final tokens are `ids`."""
        self._send(row, ids)

    def _send(self, row: int, ids: Sequence[int]) -> None:
        if self.on_token is not None:
            for token in ids[self.sent[row] :]:
                self.on_token(row, token)
            self.sent[row] = len(ids)
