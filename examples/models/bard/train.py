#!/usr/bin/env python3
"""Trains Troupe's example model, bard: a small Llama that writes plays.

One command makes everything in hf/ from one text file: the byte-level BPE tokenizer, a number of
teachers that differ only in their seed, and the student that is shipped. The student learns from
the text and from the teachers' averaged prediction, because one megabyte of text is so little that
the average of several models predicts unseen text much better than any one of them does.

    python3 train.py --text tinyshakespeare.txt --out hf

The last tenth of the characters is held out. Losses are nats per character of that part. The
checkpoint with the best held-out loss is kept, so the reported number is a selected one.
"""
import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import time

from safetensors.torch import save_file
from tokenizers import Tokenizer
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from model import Model
from text import END_OF_TEXT, SPECIALS, SampledText, read_split, train_tokenizer


@dataclasses.dataclass
class Config:
    """Everything a run depends on besides the text; each field is a command-line flag."""
    seed: int = 1
    vocab: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 640
    positions: int = 512
    window: int = 512
    batch: int = 32
    steps: int = 4000
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.0
    bpe_dropout: float = 0.1
    bpe_anneal: float = 0.0
    chat_fraction: float = 0.12
    ema: float = 0.995
    soft: float = 0.9


# ---- loss, training --------------------------------------------------------------------------


def held_out_nats(forward, ids, eot, chars, window, batch=16):
    """Nats per character of `ids`; past the first window each token sees half a window or more.

    `forward` maps ids [rows, window] to logits [rows, window, vocab]. An end of text stands before
    the first token, so that every token is predicted.
    """
    ids = torch.cat([torch.tensor([eot], device=ids.device), ids])
    half, total, rows, scored = window // 2, 0.0, [], 1
    while scored < len(ids):
        low = 0 if scored == 1 else scored - 1 - half
        high = min(low + window, len(ids) - 1)
        rows.append((low, high, scored))
        scored = high + 1
    with torch.no_grad():
        for at in range(0, len(rows), batch):
            part = rows[at:at + batch]
            x = torch.zeros(len(part), window, dtype=torch.long, device=ids.device)
            for r, (low, high, _) in enumerate(part):
                x[r, :high - low] = ids[low:high]
            logits = forward(x)
            for r, (low, high, first) in enumerate(part):
                picked = logits[r, first - 1 - low:high - low].float()
                total += F.cross_entropy(picked, ids[first:high + 1], reduction="sum").item()
    return total / chars


class Batches:
    """Random windows of freshly spelt text, resampled about once per pass over it."""

    def __init__(self, cfg, text, tok, device):
        self.cfg, self.device = cfg, device
        self.text = SampledText(tok, text, cfg.bpe_dropout, cfg.seed)
        check = self.text._tokens(self.text.plain, 0.0)[:5000].tolist()
        assert check == tok.encode(text[:40000]).ids[:5000], "spelling 0 is not the tokenizer's"

    def __call__(self, step):
        cfg = self.cfg
        if step % 20 == 0:
            left = 1 - step / cfg.steps
            share = min(1.0, left / cfg.bpe_anneal) if cfg.bpe_anneal else 1.0
            move = lambda ids: torch.from_numpy(ids).to(self.device)
            self.streams = [move(self.text.play(share)), move(self.text.chat(share))]
        chats = round(cfg.batch * cfg.chat_fraction)
        rows = []
        for stream, count in zip(self.streams, (cfg.batch - chats, chats)):
            at = self.text.rng.integers(len(stream) - cfg.window, size=count)
            at = torch.from_numpy(at).to(self.device)
            rows.append(stream[at[:, None] + torch.arange(cfg.window + 1, device=self.device)])
        rows = torch.cat(rows)
        return rows[:, :-1], rows[:, 1:]


def make_optimizer(cfg, model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": cfg.weight_decay},
              {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.98), fused=True)


def distilled_loss(logits, target, teachers, x, soft):
    """Cross entropy, mixed with the divergence from the teachers' averaged prediction."""
    flat = logits.float().flatten(0, 1)
    hard = F.cross_entropy(flat, target.flatten())
    if not teachers:
        return hard
    with torch.no_grad():
        mean = sum(F.softmax(t(x).float(), dim=-1) for t in teachers) / len(teachers)
    return (1 - soft) * hard - soft * (mean.flatten(0, 1) * flat.log_softmax(-1)).sum(-1).mean()


def train(cfg, args, teachers=()):
    """Trains one model; returns (best held-out loss, its weights on the CPU in float32)."""
    device = torch.device("cuda")
    torch.manual_seed(cfg.seed)
    train_text, held_out = read_split(args.text)
    tok = Tokenizer.from_file(os.path.join(args.out, "tokenizer.json"))
    batches = Batches(cfg, train_text, tok, device)
    held_ids = torch.tensor(tok.encode(held_out).ids, device=device)
    model = Model(cfg).to(device)
    shadow = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer(cfg, model)
    best, best_weights, began, running = math.inf, None, time.time(), 0.0
    for step in range(cfg.steps + 1):
        if step % args.eval_every == 0 and step:
            live = {n: p.detach().clone() for n, p in model.named_parameters()}
            model.load_state_dict(shadow)
            model.eval()
            with torch.autocast("cuda", torch.bfloat16):
                loss = held_out_nats(model, held_ids, 0, len(held_out), cfg.window)
            if loss < best:
                best = loss
                best_weights = {n: p.float().cpu().clone() for n, p in shadow.items()}
            print(f"{args.name} step {step} train {float(running):.4f} nats/token "
                  f"held-out {loss:.4f} best {best:.4f} nats/char {time.time() - began:.0f} s",
                  flush=True)
            model.load_state_dict(live)
            if loss > best + 0.03:
                break
        if step == cfg.steps:
            break
        model.train()
        rate = cfg.lr * min((step + 1) / cfg.warmup, 1 - step / cfg.steps)
        x, y = batches(step)
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(x)
            loss = distilled_loss(logits, y, teachers, x, cfg.soft)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running = 0.98 * running + 0.02 * loss.detach() if step else loss.detach()
        decay = min(cfg.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(shadow.values()), list(model.parameters()), 1 - decay)
    return best, best_weights


# ---- output ----------------------------------------------------------------------------------


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def export(cfg, weights, out):
    """Writes what transformers and Troupe load; weights in bfloat16, the output head tied."""
    halves = {n: w.to(torch.bfloat16).contiguous() for n, w in weights.items()}
    save_file(halves, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    write_json(os.path.join(out, "config.json"), {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": cfg.hidden, "intermediate_size": cfg.ffn, "head_dim": cfg.head_dim,
        "num_hidden_layers": cfg.layers, "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads, "vocab_size": cfg.vocab,
        "max_position_embeddings": cfg.positions, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        "use_cache": True, "torch_dtype": "bfloat16"})
    write_json(os.path.join(out, "generation_config.json"), {
        "bos_token_id": 0, "eos_token_id": [0, 2], "pad_token_id": 0, "do_sample": True,
        "temperature": 0.8, "top_k": 50, "top_p": 0.95, "max_new_tokens": 256})
    special = lambda s: {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                         "single_word": False, "special": True}
    write_json(os.path.join(out, "tokenizer_config.json"), {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False,
        "added_tokens_decoder": {str(i): special(s) for i, s in enumerate(SPECIALS)},
        "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False, "model_max_length": cfg.positions})


def report(cfg, args):
    """Loads what was written as transformers does; prints held-out losses and samples."""
    tok = AutoTokenizer.from_pretrained(args.out)
    _, held_out = read_split(args.text)
    ids = torch.tensor(tok(held_out, add_special_tokens=False).input_ids, device="cuda")
    numbers = {"tokens": len(ids), "characters": len(held_out)}
    for dtype in (torch.bfloat16, torch.float32):
        model = AutoModelForCausalLM.from_pretrained(args.out, dtype=dtype).cuda().eval()
        for window in sorted({cfg.window, cfg.positions}):
            loss = held_out_nats(lambda x: model(x).logits, ids, 0, len(held_out), window)
            numbers[f"{str(dtype)[6:]} window {window}"] = round(loss, 5)
    numbers["parameters"] = sum(p.numel() for p in model.parameters())
    print("REPORT " + json.dumps(numbers))
    chat = [{"role": "user", "content": "What news from Rome, good friend?"}]
    prompts = ["ROMEO:\n", "<|endoftext|>"]
    if tok.chat_template:
        prompts.append(tok.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    for prompt in prompts:
        set_seed(7)
        start = tok(prompt, add_special_tokens=False, return_tensors="pt").input_ids.cuda()
        made = model.generate(start, attention_mask=torch.ones_like(start), do_sample=True,
                              temperature=0.8, top_p=0.95, top_k=50, max_new_tokens=220,
                              eos_token_id=[0, 2], pad_token_id=0)
        print("SAMPLE " + json.dumps(prompt) + "\n" + tok.decode(made[0, start.shape[1]:]))


def load_teacher(path):
    saved = torch.load(path, weights_only=True)
    cfg = Config(**saved["config"])
    model = Model(cfg).cuda().eval()
    model.load_state_dict(saved["weights"])
    return model.bfloat16()


def train_teachers(cfg, args):
    """Trains the teachers, one process each and all at once; returns the paths of their weights."""
    paths, jobs = [], []
    for i in range(args.teachers):
        path = os.path.join(args.work, f"teacher{i}.pt")
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in dataclasses.asdict(cfg).items()
                 if k not in ("seed", "steps", "lr", "weight_decay", "dropout", "soft")]
        flags += [f"--seed={cfg.seed + 1 + i}", f"--steps={args.teacher_steps}",
                  f"--weight-decay={args.teacher_weight_decay}", f"--lr={args.teacher_lr}",
                  f"--dropout={args.teacher_dropout}"]
        jobs.append(subprocess.Popen([sys.executable, __file__, "--text", args.text, "--out",
                                      args.out, "--save", path, "--name", f"teacher{i}",
                                      "--teachers=0", f"--eval-every={args.eval_every}", *flags]))
        paths.append(path)
    if any([job.wait() for job in jobs]):
        raise SystemExit("a teacher failed")
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Config):
        parser.add_argument("--" + field.name.replace("_", "-"), type=field.type,
                            default=field.default, help=f"default {field.default}")
    parser.add_argument("--text", required=True, help="tinyshakespeare.txt")
    parser.add_argument("--out", required=True, help="folder of the tokenizer and the model")
    parser.add_argument("--work", default="/tmp", help="folder for the teachers' weights")
    parser.add_argument("--name", default="student", help="a label for the progress lines")
    parser.add_argument("--teachers", type=int, default=8, help="how many; default 8")
    parser.add_argument("--teacher-steps", type=int, default=2000)
    parser.add_argument("--teacher-lr", type=float, default=1.5e-3)
    parser.add_argument("--teacher-weight-decay", type=float, default=1.5)
    parser.add_argument("--teacher-dropout", type=float, default=0.2)
    parser.add_argument("--teacher-files", nargs="*", help="teachers trained before")
    parser.add_argument("--eval-every", type=int, default=100)
    parser.add_argument("--save", help="write float32 weights here, as for a teacher, and stop")
    parser.add_argument("--tokenizer-only", action="store_true")
    args = parser.parse_args()
    cfg = Config(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Config)})

    os.makedirs(args.out, exist_ok=True)
    tokenizer = os.path.join(args.out, "tokenizer.json")
    if not os.path.exists(tokenizer):
        train_tokenizer(read_split(args.text)[0], cfg.vocab, tokenizer)
    if args.tokenizer_only:
        return
    paths = args.teacher_files or (train_teachers(cfg, args) if args.teachers else [])
    best, weights = train(cfg, args, [load_teacher(p) for p in paths])
    print(f"{args.name} best held-out {best:.4f} nats/char", flush=True)
    if args.save:
        torch.save({"config": dataclasses.asdict(cfg), "best": best, "weights": weights},
                   args.save)
        return
    export(cfg, weights, args.out)
    report(cfg, args)


if __name__ == "__main__":
    main()
