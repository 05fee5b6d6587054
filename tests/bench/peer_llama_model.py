"""Writes a random model of bench_engine's shape as GGUF, for llama.cpp beside us.

    peer_llama_model.py qwen3|small FILE.gguf

Needs PyPI's gguf and numpy, nothing of Troupe. Weights are N(0, 1/sqrt(inputs)), norms 1.
"""
import sys

import gguf
import numpy as np

SHAPES = {
    "qwen3": dict(arch="qwen3", layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, ffn=3072,
                  vocab=151936, tied=True, qk_norm=True, rope_theta=1e6, context=40960),
    "small": dict(arch="llama", layers=6, hidden=320, heads=5, kv_heads=5, head_dim=64, ffn=864,
                  vocab=4096, tied=False, qk_norm=False, rope_theta=1e4, context=4096),
}


def bf16(array):
    """The upper halves of the float32s, as bytes of shape [..., 2 * columns]; truncation will do."""
    upper = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return upper.view(np.uint8).reshape(*array.shape[:-1], array.shape[-1] * 2)


def vocabulary(writer, size):
    """Byte tokens first, then filler words: llama.cpp wants a vocabulary, its bench never reads it."""
    tokens = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{i:02X}>".encode() for i in range(256)]
    tokens += [f"w{i}".encode() for i in range(size - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (size - 259))


def header(writer, s):
    writer.add_context_length(s["context"])
    writer.add_embedding_length(s["hidden"])
    writer.add_block_count(s["layers"])
    writer.add_feed_forward_length(s["ffn"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kv_heads"])
    writer.add_key_length(s["head_dim"])
    writer.add_value_length(s["head_dim"])
    writer.add_rope_freq_base(s["rope_theta"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(s["vocab"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    s = SHAPES[sys.argv[1]]
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(sys.argv[2], s["arch"])
    header(writer, s)
    vocabulary(writer, s["vocab"])

    def matrix(name, rows, columns):
        values = random.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns) ** 0.5
        writer.add_tensor(name + ".weight", bf16(values), raw_dtype=gguf.GGMLQuantizationType.BF16)

    def norm(name, size):
        writer.add_tensor(name + ".weight", np.ones(size, dtype=np.float32))

    hidden, q, kv = s["hidden"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    matrix("token_embd", s["vocab"], hidden)
    norm("output_norm", hidden)
    if not s["tied"]:
        matrix("output", s["vocab"], hidden)
    for i in range(s["layers"]):
        block = f"blk.{i}."
        norm(block + "attn_norm", hidden)
        norm(block + "ffn_norm", hidden)
        matrix(block + "attn_q", q, hidden)
        matrix(block + "attn_k", kv, hidden)
        matrix(block + "attn_v", kv, hidden)
        matrix(block + "attn_output", hidden, q)
        if s["qk_norm"]:
            norm(block + "attn_q_norm", s["head_dim"])
            norm(block + "attn_k_norm", s["head_dim"])
        matrix(block + "ffn_gate", s["ffn"], hidden)
        matrix(block + "ffn_up", s["ffn"], hidden)
        matrix(block + "ffn_down", hidden, s["ffn"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
