"""Write the two bundles of this folder with TensorFlow itself.

    pip install tensorflow-cpu==2.21.0
    python make_fixture.py

`one/` is laid out as OpenAI published GPT-2: one shard, saved by tf.compat.v1.train.Saver under the
published variable names. `two/` is the same model in two shards, as one parameter server each
would write them. `sha256.json` holds the SHA-256 of every tensor's bytes, as TensorFlow reads them
back from its own files.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
HPARAMS = {"n_vocab": 11, "n_ctx": 6, "n_embd": 8, "n_head": 2, "n_layer": 2}
C = HPARAMS["n_embd"]


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes in the order of OpenAI's src/model.py."""
    found: dict[str, tuple[int, ...]] = {
        "wpe": (HPARAMS["n_ctx"], C),
        "wte": (HPARAMS["n_vocab"], C),
    }
    for layer in range(HPARAMS["n_layer"]):
        block = f"h{layer}/"
        for part in ("ln_1/g", "ln_1/b"):
            found[block + part] = (C,)
        found[block + "attn/c_attn/w"] = (1, C, 3 * C)
        found[block + "attn/c_attn/b"] = (3 * C,)
        found[block + "attn/c_proj/w"] = (1, C, C)
        found[block + "attn/c_proj/b"] = (C,)
        for part in ("ln_2/g", "ln_2/b"):
            found[block + part] = (C,)
        found[block + "mlp/c_fc/w"] = (1, C, 4 * C)
        found[block + "mlp/c_fc/b"] = (4 * C,)
        found[block + "mlp/c_proj/w"] = (1, 4 * C, C)
        found[block + "mlp/c_proj/b"] = (C,)
    found["ln_f/g"] = found["ln_f/b"] = (C,)
    return {f"model/{name}": shape for name, shape in found.items()}


def save(folder: Path, sharded: bool) -> None:
    """One bundle; two logical devices give it two shards."""
    folder.mkdir(exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(HPARAMS) + "\n", encoding="utf-8")
    draw = np.random.default_rng(4)
    with tf.Graph().as_default():
        variables, values = [], []
        for number, (name, shape) in enumerate(shapes().items()):
            device = f"/device:CPU:{number % 2}" if sharded else None
            with tf.device(device):
                variables.append(
                    tf.compat.v1.get_variable(name, shape, tf.float32, use_resource=False)
                )
            values.append(draw.normal(0.0, 0.5, shape).astype(np.float32))
        saver = tf.compat.v1.train.Saver(variables, sharded=sharded)
        config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
        with tf.compat.v1.Session(config=config) as session:
            for variable, value in zip(variables, values, strict=True):
                variable.load(value, session)
            saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)


def main() -> None:
    os.chdir(HERE)  # so that the file named checkpoint holds no path
    hashes = {}
    for name, sharded in (("one", False), ("two", True)):
        save(Path(name), sharded)
        reader = tf.train.load_checkpoint(name)
        hashes[name] = {
            tensor: hashlib.sha256(reader.get_tensor(tensor).tobytes()).hexdigest()
            for tensor in sorted(reader.get_variable_to_shape_map())
        }
    content = {"tensorflow": tf.__version__, "sha256": hashes}
    Path("sha256.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
