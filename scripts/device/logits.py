#!/usr/bin/env python3
"""Holds a server's logits beside transformers' on the same card: how far each is from transformers in float32, and whether ours in
bfloat16 are as near as transformers' in bfloat16.

usage: logits.py weights FOLDER          writes model.safetensors beside FOLDER/hf/config.json, random values, bfloat16
       logits.py ask URL MODEL FOLDER    asks the server that serves FOLDER/hf: greedy answers with the 20 likeliest of each token
       logits.py judge FOLDER            computes the same by transformers, prints both errors and ends with 1 if ours is larger
"""
import json
import pathlib
import random
import sys
import urllib.request

# Tokens of a prompt and of its answer; the prompts run through prefill, the answers through decode.
LENGTHS = [(1, 24), (7, 24), (128, 24), (513, 24), (1500, 24)]
SIGMA = 0.02
# What sampling noise may add to a ratio of two errors over the same logits.
ALLOWED = 1.1


def torch_and_config(folder):
    import torch
    from transformers import AutoConfig
    return torch, AutoConfig.from_pretrained(folder / "hf")


def empty_model(torch, config, dtype, device):
    from transformers import AutoModelForCausalLM
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager").eval()


def weights(folder):
    """Draws every matrix anew, so that no two rows are alike; norms are near 1."""
    from safetensors.torch import save_file
    torch, config = torch_and_config(folder)
    draw = torch.Generator().manual_seed(11)
    made = {}
    for name, place in empty_model(torch, config, torch.bfloat16, "meta").state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        one = torch.empty(place.shape, dtype=torch.bfloat16)
        if place.dim() == 1:
            one.uniform_(0.75, 1.25, generator=draw)
        elif torch.cuda.is_available():
            on_device = torch.Generator("cuda").manual_seed(len(made))
            one = torch.randn(place.shape, generator=on_device, device="cuda", dtype=torch.bfloat16).mul_(SIGMA).cpu()
        else:
            one.normal_(0, SIGMA, generator=draw)
        made[name] = one
    save_file(made, folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    print(f"{sum(x.numel() for x in made.values()) / 1e9:.2f} G parameters written")


def words_of(folder):
    return json.loads((folder / "hf" / "tokenizer.json").read_text())["model"]["vocab"]


def ask(url, model, folder):
    vocabulary = words_of(folder)
    draw = random.Random(5)
    answers = []
    for prompt_tokens, new_tokens in LENGTHS:
        prompt = [draw.randrange(3, len(vocabulary)) for _ in range(prompt_tokens)]
        body = {"model": model, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True, "logprobs": 20}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = json.load(answer)["choices"][0]["logprobs"]
        likeliest = [{vocabulary[word]: value for word, value in at.items()} for at in said["top_logprobs"]]
        answers.append({"prompt": prompt, "answer": [vocabulary[word] for word in said["tokens"]], "likeliest": likeliest})
    (folder / "answers.json").write_text(json.dumps(answers))
    print(f"{len(answers)} answers")


def logprobs_of(torch, folder, config, dtype, answers):
    """For each token of each answer the log-probabilities of the tokens that the server named."""
    from safetensors.torch import load_file
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = empty_model(torch, config, dtype, device)
    assert all(x.dtype == dtype for x in model.parameters())
    model.load_state_dict(load_file(folder / "hf" / "model.safetensors", device=device), strict=not config.tie_word_embeddings)
    found = []
    with torch.inference_mode():
        for one in answers:
            tokens = torch.tensor([one["prompt"] + one["answer"][:-1]], device=device)
            logits = model(tokens, use_cache=False).logits[0, len(one["prompt"]) - 1:]
            scores = torch.log_softmax(logits.double(), -1)
            for at, likeliest in enumerate(one["likeliest"]):
                found.append(scores[at, [int(token) for token in likeliest]].cpu())
    return torch.stack([x[:20] for x in found])


def judge(folder):
    torch, config = torch_and_config(folder)
    torch.backends.cuda.matmul.allow_tf32 = False
    answers = json.loads((folder / "answers.json").read_text())
    exact = logprobs_of(torch, folder, config, torch.float32, answers)
    rounded = logprobs_of(torch, folder, config, torch.bfloat16, answers)
    ours = torch.tensor([list(at.values())[:20] for one in answers for at in one["likeliest"]], dtype=torch.float64)
    agreed = (exact.argmax(-1) == ours.argmax(-1)).double().mean().item()

    def error(of):
        return (of - exact).pow(2).mean().sqrt().item(), (of - exact).abs().max().item()

    mine, theirs = error(ours), error(rounded)
    print(f"{exact.numel()} log-probabilities, spread of the float32 ones {exact.std().item():.3f}; the likeliest is the float32 one's for {agreed:.3f}")
    print(f"from transformers in float32: ours {mine[0]:.5f} rms, {mine[1]:.4f} at most; transformers in bfloat16 {theirs[0]:.5f}, {theirs[1]:.4f}")
    good = mine[0] <= ALLOWED * theirs[0]
    print(f"{'passed' if good else 'failed'}: {mine[0] / theirs[0]:.3f} of transformers' own error in bfloat16")
    return 0 if good else 1


def main():
    match sys.argv[1:]:
        case ["weights", folder]:
            weights(pathlib.Path(folder))
        case ["ask", url, model, folder]:
            ask(url, model, pathlib.Path(folder))
        case ["judge", folder]:
            sys.exit(judge(pathlib.Path(folder)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
