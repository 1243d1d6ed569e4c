"""Tiny random transformers models and our Decoder with the same weights.

The name table here is the test's own, written apart from the product's, so that the two check
each other. Weights are drawn wide (std 0.5 and more): the likeliest token then leads clearly, and
equal tokens mean equal models.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from yunque.config import ModelConfig
from yunque.model.decoder import Decoder

FAMILIES = ("gpt2", "phi", "llama", "mistral", "qwen2", "qwen3")

WINDOW = 6
"""Tokens that our small Mistral looks at."""


def shapes(**sizes: Any) -> tuple[ModelConfig, ModelConfig, ModelConfig]:
    """Tiny shapes of Llama's, GPT-2's and Phi's kind: two layers, grouped heads but for GPT-2."""
    given = {"context_length": 32, "hidden_size": 32, "intermediate_size": 48, **sizes}
    llama = ModelConfig(
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        qk_norm=False,
        tie_embeddings=False,
        dropout=0.0,
        **given,
    )
    gpt2 = dataclasses.replace(
        llama,
        num_kv_heads=4,
        positions="learned",
        norm="layernorm",
        mlp="gelu",
        bias=True,
        qkv_bias=True,
    )
    phi = dataclasses.replace(
        gpt2,
        positions="rotary",
        num_kv_heads=2,
        head_bias=True,
        parallel_residual=True,
        rotary_fraction=0.5,
    )
    return llama, gpt2, phi


def pair(
    family: str,
    *,
    vocab_size: int = 61,
    context_length: int = 48,
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    hidden_size: int = 32,
    intermediate_size: int = 48,
    tie: bool = True,
    std: float = 0.5,
    seed: int = 0,
) -> tuple[Decoder, nn.Module]:
    """(our Decoder, the transformers model), in evaluation mode, with equal random weights."""
    import transformers

    torch.manual_seed(seed)
    common = {"vocab_size": vocab_size, "tie_word_embeddings": tie}
    shape = ModelConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        num_layers=num_layers,
        num_heads=num_heads,
        hidden_size=hidden_size,
        qk_norm=False,
        tie_embeddings=tie,
        dropout=0.0,
    )
    if family == "gpt2":
        reference = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_positions=context_length,
                n_embd=hidden_size,
                n_layer=num_layers,
                n_head=num_heads,
                bos_token_id=None,
                eos_token_id=None,
                **common,
            )
        )
        config = ModelConfig(
            **{
                **vars(shape),
                "positions": "learned",
                "norm": "layernorm",
                "mlp": "gelu",
                "bias": True,
                "qkv_bias": True,
                "num_kv_heads": num_heads,
                "intermediate_size": 4 * hidden_size,
            }
        )
    elif family == "phi":
        reference = transformers.PhiForCausalLM(
            transformers.PhiConfig(
                hidden_size=hidden_size,
                intermediate_size=48,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                num_key_value_heads=num_kv_heads,
                partial_rotary_factor=0.5,
                max_position_embeddings=context_length,
                bos_token_id=None,
                eos_token_id=None,
                **common,
            )
        )
        config = ModelConfig(
            **{
                **vars(shape),
                "norm": "layernorm",
                "mlp": "gelu",
                "bias": True,
                "qkv_bias": True,
                "head_bias": True,
                "parallel_residual": True,
                "rotary_fraction": 0.5,
                "num_kv_heads": num_kv_heads,
                "intermediate_size": 48,
            }
        )
    else:
        name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family]
        reference = getattr(transformers, f"{name}ForCausalLM")(
            getattr(transformers, f"{name}Config")(
                hidden_size=hidden_size,
                intermediate_size=intermediate_size,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                num_key_value_heads=num_kv_heads,
                head_dim=hidden_size // num_heads,
                max_position_embeddings=context_length,
                rms_norm_eps=1e-5,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
                **({"sliding_window": WINDOW} if family == "mistral" else {}),
                **common,
            )
        )
        config = ModelConfig(
            **{
                **vars(shape),
                "num_kv_heads": num_kv_heads,
                "intermediate_size": intermediate_size,
                "qkv_bias": family == "qwen2",
                "qk_norm": family == "qwen3",
                "sliding_window": WINDOW if family == "mistral" else 0,
            }
        )
    with torch.no_grad():
        for parameter in reference.parameters():
            wide = std if parameter.dim() == 2 else 0.1
            parameter.normal_(0.0, wide).add_(0.0 if parameter.dim() == 2 else 1.0)
        if family == "phi":  # biases near 1, one in the head among them, would drown the tokens
            for name, parameter in reference.named_parameters():
                parameter.sub_(1.0 if name.endswith("bias") else 0.0)
    reference.eval()
    model = Decoder(config)
    model.load_state_dict(our_names(reference, family))
    return model.eval(), reference


def our_names(reference: nn.Module, family: str) -> dict[str, Tensor]:
    """The weights of a transformers model under the Decoder's names."""
    theirs = reference.state_dict()
    names: dict[str, Tensor] = {"head.weight": theirs["lm_head.weight"]}
    layers = 1 + max(int(name.split(".")[2]) for name in theirs if name.split(".")[1] in "h layers")
    if family == "gpt2":
        names["token_embedding.weight"] = theirs["transformer.wte.weight"]
        names["position_embedding.weight"] = theirs["transformer.wpe.weight"]
        for kind in ("weight", "bias"):
            names[f"final_norm.{kind}"] = theirs[f"transformer.ln_f.{kind}"]
        for layer in range(layers):
            old, new = f"transformer.h.{layer}.", f"blocks.{layer}."
            for kind in ("weight", "bias"):
                names[f"{new}attention_norm.{kind}"] = theirs[f"{old}ln_1.{kind}"]
                names[f"{new}mlp_norm.{kind}"] = theirs[f"{old}ln_2.{kind}"]
                joint = turned(theirs[f"{old}attn.c_attn.{kind}"])
                for part, piece in zip("qkv", joint.chunk(3), strict=True):
                    names[f"{new}attention.{part}_proj.{kind}"] = piece
                for mine, name in (
                    ("attention.o_proj", "attn.c_proj"),
                    ("mlp.up_proj", "mlp.c_fc"),
                    ("mlp.down_proj", "mlp.c_proj"),
                ):
                    names[f"{new}{mine}.{kind}"] = turned(theirs[f"{old}{name}.{kind}"])
        return names
    names["token_embedding.weight"] = theirs["model.embed_tokens.weight"]
    if family == "phi":
        names["head.bias"] = theirs["lm_head.bias"]
        for kind in ("weight", "bias"):
            names[f"final_norm.{kind}"] = theirs[f"model.final_layernorm.{kind}"]
            for layer in range(layers):
                old, new = f"model.layers.{layer}.", f"blocks.{layer}."
                names[f"{new}attention_norm.{kind}"] = theirs[f"{old}input_layernorm.{kind}"]
                for part in "qkv":
                    name = f"{part}_proj.{kind}"
                    names[f"{new}attention.{name}"] = theirs[f"{old}self_attn.{name}"]
                names[f"{new}attention.o_proj.{kind}"] = theirs[f"{old}self_attn.dense.{kind}"]
                names[f"{new}mlp.up_proj.{kind}"] = theirs[f"{old}mlp.fc1.{kind}"]
                names[f"{new}mlp.down_proj.{kind}"] = theirs[f"{old}mlp.fc2.{kind}"]
        return names
    names["final_norm.weight"] = theirs["model.norm.weight"]
    for name, value in theirs.items():
        if name.startswith("model.layers."):
            new = name.replace("model.layers.", "blocks.").replace("self_attn", "attention")
            new = new.replace("input_layernorm", "attention_norm")
            names[new.replace("post_attention_layernorm", "mlp_norm")] = value
    return names


def turned(value: Tensor) -> Tensor:
    """A weight of Conv1D, stored (in, out), as Linear stores it; a bias as it is."""
    return value.mT if value.dim() == 2 else value
