"""Golden logits and greedy tokens: tiny random models, and bard.

Needs torch and transformers. Everything is computed on the CPU in float32 with eager attention,
greedy steps by running the whole sequence again, so that no cache or fused kernel is trusted.
"""
import json
import os

import numpy as np

GREEDY_STEPS = 32
MIN_MARGIN = 1e-3
PROMPT_LENGTHS = (1, 7, 33, 130)

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
         "rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False, "use_cache": True,
         "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
         "max_position_embeddings": 512, "initializer_range": 0.02}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

# Each model: its config.json, the type its weights are stored in, and how many files they fill.
# Old-style keys are rope_theta, rope_scaling and torch_dtype; new-style ones rope_parameters and
# dtype.
MODELS = {
    "llama2": (dict(
        LLAMA, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=256, rope_theta=10000.0, rope_scaling=None,
        torch_dtype="float32"), "float32", 1),
    "llama2-bf16": (dict(
        LLAMA, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, head_dim=16, vocab_size=256, dtype="bfloat16",
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}), "bfloat16", 1),
    "llama3": (dict(
        LLAMA, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, vocab_size=384, rope_theta=500000.0,
        rope_scaling=LLAMA3_SCALING, torch_dtype="float32", eos_token_id=[2, 3]), "float32", 3),
    "llama3-new": (dict(
        LLAMA, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, vocab_size=256, dtype="float32",
        rope_parameters=dict(LLAMA3_SCALING, factor=32.0, rope_theta=10000.0)), "float32", 1),
    "qwen3": ({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 320,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "attention_bias": False,
        "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None,
        "max_window_layers": 2, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2,
        "dtype": "float32", "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        }, "float32", 1),
    "qwen3-old": ({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "attention_bias": False,
        "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": None,
        "max_window_layers": 2, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "bfloat16", "rope_theta": 1000000.0, "rope_scaling": None}, "bfloat16", 1),
}

BARD_PROMPTS = (
    "<|endoftext|>",
    "ROMEO:\n",
    "<|endoftext|><|im_start|>First Citizen:\nWhat news from Rome?<|im_end|>\n<|im_start|>",
    "JULIET:\nGood night, sweet nurse; the lark is at the window,\nAnd I must bid the moon a brief "
    "farewell.\n\nNurse:\nMadam, your lady mother calls below.\n\n",
    "KING RICHARD III:\n" + "A horse! a horse! my kingdom for a horse!\n" * 14 + "\n",
    "First Servant:\nO strange new world of numbers, 42 or 1999,\nna\u00efve caf\u00e9s and "
    "\u4f60\u597d \U0001f600!\n\n",
)


def dump(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def random_weights(config, rng):
    """Weights whose logits spread by about two, so that greedy choices are not near ties."""
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim", hidden // heads)
    matrix = lambda rows, cols: rng.normal(size=(rows, cols)) / np.sqrt(cols)
    gain = lambda size: 1 + 0.2 * rng.normal(size=size)
    tied = config["tie_word_embeddings"]
    out = {"model.embed_tokens.weight": rng.normal(size=(vocab, hidden))
           * (2 / np.sqrt(hidden) if tied else 1.0)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        out[at + "input_layernorm.weight"] = gain(hidden)
        out[at + "self_attn.q_proj.weight"] = matrix(heads * dim, hidden)
        out[at + "self_attn.k_proj.weight"] = matrix(kv * dim, hidden)
        out[at + "self_attn.v_proj.weight"] = matrix(kv * dim, hidden)
        out[at + "self_attn.o_proj.weight"] = matrix(hidden, heads * dim)
        if config["model_type"] == "qwen3":
            out[at + "self_attn.q_norm.weight"] = gain(dim)
            out[at + "self_attn.k_norm.weight"] = gain(dim)
        out[at + "post_attention_layernorm.weight"] = gain(hidden)
        out[at + "mlp.gate_proj.weight"] = matrix(ffn, hidden) * 1.5
        out[at + "mlp.up_proj.weight"] = matrix(ffn, hidden)
        out[at + "mlp.down_proj.weight"] = matrix(hidden, ffn) * 1.5
    out["model.norm.weight"] = gain(hidden)
    if not tied:
        out["lm_head.weight"] = matrix(vocab, hidden) * 2
    return out


def write_model(folder, config, dtype, shards, rng):
    import torch
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    weights = {name: torch.from_numpy(value).to(getattr(torch, dtype)).contiguous()
               for name, value in random_weights(config, rng).items()}
    dump(os.path.join(folder, "config.json"), config)
    dump(os.path.join(folder, "generation_config.json"), {
        "bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"],
        "do_sample": True, "temperature": 0.7, "top_p": 0.9})
    if shards == 1:
        save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    names, where = list(weights), {}
    for s in range(shards):
        file = f"model-{s + 1:05}-of-{shards:05}.safetensors"
        # Dealt out in turn, so that a layer's tensors lie in different files.
        part = {n: weights[n] for n in names[s::shards]}
        save_file(part, os.path.join(folder, file), metadata={"format": "pt"})
        where.update({n: file for n in part})
    total = sum(w.numel() * w.element_size() for w in weights.values())
    dump(os.path.join(folder, "model.safetensors.index.json"),
         {"metadata": {"total_size": total}, "weight_map": where})


def load(folder):
    import torch
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()


def run_prompt(model, ids):
    """Returns (logits at every prompt position, greedy tokens, top-two margin of each)."""
    import torch
    sequence, margins, first = list(ids), [], None
    with torch.no_grad():
        for _ in range(GREEDY_STEPS):
            logits = model(torch.tensor([sequence]), use_cache=False).logits[0].float()
            first = logits if first is None else first
            top = logits[-1].topk(2)
            margins.append(float(top.values[0] - top.values[1]))
            sequence.append(int(top.indices[0]))
    return first.numpy(), sequence[len(ids):], margins


def golden(model, prompts, folder, extra):
    """Writes golden.json and logits.bin for `prompts`, a list of lists of candidate prompts.

    Of the candidates the first is taken whose greedy steps all have a margin.
    """
    rows, entries = [], []
    for candidates in prompts:
        for ids, more in candidates:
            logits, greedy, margins = run_prompt(model, ids)
            if min(margins) > MIN_MARGIN:
                break
        else:
            raise SystemExit(f"{folder}: no candidate prompt without a near tie")
        positions = sorted({0, len(ids) // 3, len(ids) // 2, len(ids) - 1})
        entries.append({"ids": ids, **more, "positions": positions,
                        "first_row": len(rows), "greedy": greedy,
                        "margins": [round(m, 6) for m in margins]})
        rows += [logits[p] for p in positions]
    table = np.stack(rows).astype("<f4")
    table.tofile(os.path.join(folder, "logits.bin"))
    dump_prompts(os.path.join(folder, "golden.json"), dict(
        extra, vocab_size=table.shape[1], rows=table.shape[0],
        logits_std=round(float(table.std()), 3)), entries)
    print(f"{folder}: {len(entries)} prompts, logits std {table.std():.2f}, least margin "
          f"{min(min(e['margins']) for e in entries):.4f}", flush=True)


def dump_prompts(path, head, entries):
    """One prompt a line: readable in a diff, and small."""
    lines = ",\n  ".join(json.dumps(entry) for entry in entries)
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "prompts": [\n  ' + lines + "\n]}\n")


def make_models(data):
    for index, (name, (config, dtype, shards)) in enumerate(MODELS.items()):
        rng = np.random.default_rng(1000 + index)
        folder = os.path.join(data, "models", name)
        write_model(folder, config, dtype, shards, rng)
        prompts = [[(rng.integers(4, config["vocab_size"], size=n).tolist(), {})
                    for _ in range(20)] for n in PROMPT_LENGTHS]
        golden(load(folder), prompts, folder, {"model": name})


def make_bard(data, bard):
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(os.path.join(bard, "tokenizer.json"))
    folder = os.path.join(data, "models", "bard")
    os.makedirs(folder, exist_ok=True)
    encode = lambda text: (tok.encode(text, add_special_tokens=False).ids, {"text": text})
    # A prompt with a near tie is tried again behind a line break.
    prompts = [[encode(text), encode("\n" + text)] for text in BARD_PROMPTS]
    golden(load(bard), prompts, folder, {"model": "bard"})
