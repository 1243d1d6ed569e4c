"""Tiny random transformers models that the Decoder does not hold, one of each peculiarity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCAB, CONTEXT = 61, 24
_GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2}
_LONG = {"max_position_embeddings": CONTEXT}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("GPTNeoX", {"intermediate_size": 48, **_LONG}),
    # Hidden states are projected down before the head, and the head is found inside model.decoder.
    "opt": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 16, **_LONG}),
    # Soft-capped logits; every other layer sees 6 tokens.
    "gemma2": (
        "Gemma2",
        {**_GROUPED, **_LONG, "head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 3.0},
    ),
    "phi3": ("Phi3", {**_GROUPED, **_LONG, "sliding_window": 7}),
    # ALiBi: no positions at all, no longest context.
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "mixtral": ("Mixtral", {**_GROUPED, **_LONG, "num_local_experts": 4}),
    # Scaled logits.
    "cohere": ("Cohere", {**_GROUPED, **_LONG, "logit_scale": 0.25}),
    # Recurrent: its cache cannot be filled from padded rows.
    "mamba": ("Mamba", {"state_size": 4}),
    # Recurrent, with a state that is no cache of keys and values.
    "rwkv": ("Rwkv", {"attention_hidden_size": 32, "context_length": CONTEXT}),
}


def foreign(name: str, std: float = 0.3, seed: int = 0) -> Any:
    """The transformers model, in evaluation mode, its weights wide and random."""
    import transformers

    torch.manual_seed(seed)
    kind, own = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(
        **{
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            **own,
        }
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter.dim() > 1
            parameter.normal_(0.0, std if wide else 0.1).add_(0.0 if wide else 1.0)
    return model.eval()


def saved_foreign(name: str, folder: Path, **options: Any) -> Any:
    """`foreign`, saved in `folder` by transformers itself."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = foreign(name, **options)
    model.save_pretrained(folder)
    return model
