"""A model folder as transformers reads it back from disk: the speaker for folder exports."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.model.decoder import Decoder
from yunque.weights.certificate import Prompt, Speaker
from yunque.weights.families import model_config as read_config
from yunque.weights.families import our_shapes, table, to_foreign
from yunque.weights.transformers_model import (
    TransformersModel,
    beyond_decoder,
    context_length,
    settings_facts,
    unshared,
)

SILENT = ("preset", "dropout", "attention_dropout", "embedding_std", "qkv_bias")
"""Settings of a shape that a foreign format cannot say, or that its tensors say."""


def shape_facts(config: ModelConfig) -> dict[str, Any]:
    """The numbers of a shape that its export must have too."""
    silent = {*SILENT, *(("rope_theta",) if config.positions == "learned" else ())}
    return {name: value for name, value in asdict(config).items() if name not in silent}


def computed_facts(settings: Any) -> dict[str, Any]:
    """The same of a model that transformers computes: all its settings that compute."""
    rows = settings.get_text_config(decoder=True).vocab_size
    return {**settings_facts(settings.to_dict()), "vocab_size": rows}


def shape_of(module: Decoder | TransformersModel) -> dict[str, Any]:
    """The facts of a model's shape, whoever computes it."""
    if isinstance(module, Decoder):
        return shape_facts(module.config)
    return computed_facts(module.causal.config)


def tensors_of(module: Decoder | TransformersModel) -> Iterator[tuple[str, Tensor]]:
    """A model's weights as its folder names them, each once."""
    if isinstance(module, Decoder):
        return foreign_tensors(module.config, module.state_dict())
    return unshared(module.causal.state_dict())


def foreign_tensors(
    config: ModelConfig, state: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The Decoder's weights as the folder names them, without a tied head."""
    kept = our_shapes(config)
    yield from to_foreign(config, {name: state[name] for name in kept}).items()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers while it reads and writes for us."""
    from transformers.utils import logging as talk

    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def transformers_speaker(folder: Path) -> Speaker:
    """Open a folder with transformers alone, in float32: nothing of ours reads it.

    Nothing is fetched and no code of the folder runs.

    Raises:
        Exception: whatever transformers raises for a folder that it cannot open.
    """
    import transformers

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with quiet():
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **local
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
    model.eval()
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    faults = tuple(
        f"{kind.replace('_', ' ')}: {', '.join(map(str, sorted(told[kind])))}"
        for kind in kinds
        if told.get(kind)
    )
    settings, generation = model.config, model.generation_config
    described = {key: value for key, value in settings.to_dict().items() if key != "yunque"}
    config = None
    if beyond_decoder(described):
        context, shape = context_length(settings), computed_facts(settings)
    else:
        config = read_config(described, str(folder / "config.json"))
        context, shape = config.context_length, shape_facts(config)
    stated = (generation.eos_token_id, settings.eos_token_id, tokenizer.eos_token_id)
    pads = (generation.pad_token_id, settings.pad_token_id, tokenizer.pad_token_id)

    def ids(prompt: Prompt) -> list[int] | None:
        if not prompt.messages:
            return list(tokenizer(prompt.text)["input_ids"])
        if tokenizer.chat_template is None:
            return None
        messages = [{"role": role, "content": content} for role, content in prompt.messages]
        try:
            made = tokenizer.apply_chat_template(
                messages, add_generation_prompt=prompt.asking, return_dict=False
            )
        except Exception:  # the template's own refusal, of any kind
            return None
        return list(made)

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids)))

    def logits(ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model(torch.tensor([list(ids)])).logits[0]
        return found.float()

    def write(ids: Sequence[int], tokens: int) -> list[int]:
        return spoken(model, ids, tokens, None)

    def stops_after(script: Sequence[int]) -> int:
        return len(spoken(model, [script[0]], len(script), script))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        if config is None:
            yield from unshared(model.state_dict())
            return
        head = model.get_output_embeddings().weight
        tied = head.data_ptr() == model.get_input_embeddings().weight.data_ptr()
        for name, tensor in model.state_dict().items():
            if not (tied and name == table(config).head):
                yield name, tensor

    return Speaker(
        name=f"transformers {transformers.__version__}",
        ids=ids,
        text=text,
        logits=logits,
        write=write,
        stops_after=stops_after,
        tensors=tensors,
        vocabulary=tokenizer.get_vocab(),
        end_ids=frozenset(id for value in stated for id in listed(value)),
        pad_ids=frozenset(id for value in pads for id in listed(value)),
        context=context,
        shape=shape,
        faults=faults,
        template=tokenizer.chat_template,
    )


def listed(value: Any) -> list[int]:
    """Token ids where one, several or none may be stated."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def spoken(model: Any, ids: Sequence[int], tokens: int, script: Sequence[int] | None) -> list[int]:
    """New tokens of the model's own `generate`, greedy, or made to follow a script."""
    from transformers import LogitsProcessor, LogitsProcessorList

    class Follow(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, seen: Tensor, scores: Tensor) -> Tensor:
            assert script is not None
            forced = torch.full_like(scores, -torch.inf)
            forced[:, script[seen.shape[1] - len(ids)]] = 0.0
            return forced

    rows = torch.tensor([list(ids)])
    with quiet(), torch.inference_mode():
        made = model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            logits_processor=LogitsProcessorList([Follow()] if script else []),
        )
    return [int(id) for id in made[0, len(ids) :]]
