#!/usr/bin/env python3
"""Writes what a server needs to serve random weights of a known shape: config.json, a tokenizer of four-letter words, a
model repository and a cluster file.

usage: models.py FOLDER llama8b|qwen06b|tiny [KEY=JSON...]      keys go into model.json
"""
import json
import pathlib
import sys

SHAPES = {
    "llama8b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1,
        "eos_token_id": 2},
    "qwen06b": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "max_position_embeddings": 40960, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 1,
        "eos_token_id": 2},
    # For a look without a GPU.
    "tiny": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 128256, "max_position_embeddings": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 1,
        "eos_token_id": 2},
}


def write(folder, name, keys):
    shape = SHAPES[name]
    hf, model = folder / "hf", folder / "models" / name / "1"
    hf.mkdir(parents=True, exist_ok=True)
    model.mkdir(parents=True, exist_ok=True)
    (hf / "config.json").write_text(json.dumps(shape))
    words = ["<unk>", "<s>", "</s>"]
    words += ["".join(chr(97 + i // 26 ** k % 26) for k in range(4)) for i in range(shape["vocab_size"] - 3)]
    (hf / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None,
        "added_tokens": [{"id": i, "content": words[i], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i in range(3)],
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {w: i for i, w in enumerate(words)}, "merges": []}}))
    (hf / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": 131072, "clean_up_tokenization_spaces": False}))
    given = {"model": str(hf.resolve()), "load_format": "dummy", "dtype": "bfloat16", **keys}
    (model / "model.json").write_text(json.dumps(given))
    (folder / "cluster.json").write_text(json.dumps({"model_repository": "models"}))


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in SHAPES:
        sys.exit(__doc__)
    keys = dict(pair.split("=", 1) for pair in sys.argv[3:])
    write(pathlib.Path(sys.argv[1]), sys.argv[2], {key: json.loads(value) for key, value in keys.items()})


if __name__ == "__main__":
    main()
