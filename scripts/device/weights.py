#!/usr/bin/env python3
"""Writes random weights for the config.json of a Llama beside it: model.safetensors, bfloat16, as large as the real file.

usage: weights.py FOLDER      the folder of config.json
"""
import array
import json
import pathlib
import random
import sys

BLOCK = 1 << 20


def bfloat16(values):
    """The upper half of each float32."""
    wide = array.array("f", values).tobytes()
    narrow = bytearray(len(wide) // 2)
    narrow[0::2], narrow[1::2] = wide[2::4], wide[3::4]
    return bytes(narrow)


def tensors(config):
    """Names and shapes, [outputs, inputs]."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name, shape in (("input_layernorm", [hidden]), ("post_attention_layernorm", [hidden]),
                            ("self_attn.q_proj", [queries, hidden]), ("self_attn.k_proj", [keys, hidden]),
                            ("self_attn.v_proj", [keys, hidden]), ("self_attn.o_proj", [hidden, queries]),
                            ("mlp.gate_proj", [wide, hidden]), ("mlp.up_proj", [wide, hidden]), ("mlp.down_proj", [hidden, wide])):
            yield f"{at}{name}.weight", shape
    yield "model.norm.weight", [hidden]
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", [config["vocab_size"], hidden]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    if config["architectures"] != ["LlamaForCausalLM"]:
        sys.exit(f"weights.py: {config['architectures']} has other tensors than a Llama")
    header, end, plan = {}, 0, []
    for name, shape in tensors(config):
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        plan.append((len(shape) == 1, size))
        end += size
    draw = random.Random(1)
    noise, ones = bfloat16(draw.gauss(0, 0.02) for _ in range(BLOCK)), bfloat16([1.0]) * BLOCK
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for is_norm, size in plan:
            source = ones if is_norm else noise
            for at in range(0, size, len(source)):
                file.write(source[:size - at])


if __name__ == "__main__":
    main()
