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

import numpy as np

SPLIT_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+")
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [END_OF_TEXT, IM_START, IM_END]


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


# ---- text and tokenizer ----------------------------------------------------------------------


def read_split(path):
    """Returns (train, held_out): the first nine tenths of the characters, and the rest."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    cut = int(len(text) * 0.9)
    return text[:cut], text[cut:]


def train_tokenizer(text, vocab, path):
    """Trains the byte-level BPE on the training split alone and writes tokenizer.json."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIALS, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator([text], trainer)
    tok.save(path, pretty=False)


class SampledText:
    """The training text, cut into tokens differently each time it is asked for.

    BPE dropout skips each merge with some probability, so that the model sees many spellings of
    each word and cannot learn the text by heart. A word's spellings are drawn once, from the seed;
    a pass over the text then picks one for each occurrence.
    """
    SPELLINGS = 24

    def __init__(self, tok, text, drop, seed):
        self.rng = np.random.default_rng(seed)
        self.tok = tok
        self.words = {}
        speeches = [s for s in text.split("\n\n") if s]
        self.plain = [self._word_ids(s + "\n\n") for s in speeches]
        self.bare = [self._word_ids(s.strip()) for s in speeches]
        self.newline = self._word_ids("\n")
        self.eot, self.start, self.end = (np.array([self._word(s)]) for s in SPECIALS)
        self._build_spellings(drop)

    def _word(self, word):
        return self.words.setdefault(word, len(self.words))

    def _word_ids(self, text):
        pieces = self.tok.pre_tokenizer.pre_tokenize_str(text)
        return np.array([self._word(piece) for piece, _ in pieces], dtype=np.int64)

    def _build_spellings(self, drop):
        model = json.loads(self.tok.to_str())["model"]
        ranks = {tuple(m): i for i, m in enumerate(model["merges"])}
        spell = lambda word, p: [model["vocab"][s] for s in self._merge(list(word), ranks, p)]
        flat, lengths = [], []
        for word in self.words:
            fixed = [self.tok.token_to_id(word)] if word in SPECIALS else spell(word, 0.0)
            for k in range(self.SPELLINGS):
                # Spelling 0 is always the tokenizer's own.
                ids = fixed if k == 0 or word in SPECIALS or drop == 0 else spell(word, drop)
                flat.extend(ids)
                lengths.append(len(ids))
        self.flat = np.array(flat, dtype=np.int64)
        self.lengths = np.array(lengths, dtype=np.int64)
        self.offsets = np.cumsum(self.lengths) - self.lengths

    def _merge(self, parts, ranks, drop):
        while len(parts) > 1:
            pairs = [(ranks[p], i) for i, p in enumerate(zip(parts, parts[1:])) if p in ranks]
            if drop:
                keep = self.rng.random(len(pairs)) >= drop
                pairs = [p for p, k in zip(pairs, keep) if k]
            if not pairs:
                break
            _, i = min(pairs)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        return parts

    def _tokens(self, chunks, sampled):
        """Spells a list of word arrays; `sampled` is the share of words not spelt canonically."""
        word = np.concatenate(chunks)
        choice = self.rng.integers(self.SPELLINGS, size=len(word))
        choice = np.where(self.rng.random(len(word)) < sampled, choice, 0)
        row = word * self.SPELLINGS + choice
        size = self.lengths[row]
        first = np.cumsum(size) - size
        return self.flat[np.repeat(self.offsets[row] - first, size) + np.arange(size.sum())]

    def play(self, sampled=1.0, ends=0.02):
        """The text as it stands, now and then with an end of text after a speech."""
        stop = self.rng.random(len(self.plain)) < ends
        chunks = []
        for speech, last in zip(self.plain, stop):
            chunks.append(speech)
            if last:
                chunks.append(self.eot)
        return self._tokens(chunks, sampled)

    def chat(self, sampled=1.0):
        """The same speeches as chat turns: one speech asks, one to three speeches answer."""
        chunks, at, turn = [], int(self.rng.integers(4)), 0
        while at < len(self.plain):
            if turn % 6 == 0:
                chunks.append(self.eot)
            count = 1 if turn % 2 == 0 else int(self.rng.integers(1, 4))
            group = range(at, min(at + count, len(self.plain)))
            chunks.append(self.start)
            chunks += [self.plain[i] for i in group[:-1]] + [self.bare[group[-1]]]
            chunks += [self.end, self.newline]
            at, turn = at + count, turn + 1
        return self._tokens(chunks, sampled)


# ---- model -----------------------------------------------------------------------------------


def make_model(cfg):
    """A Llama whose parameter names are those of transformers' LlamaForCausalLM."""
    import torch
    from torch import nn
    import torch.nn.functional as F

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(cfg.hidden))

        def forward(self, x):
            return F.rms_norm(x, (cfg.hidden,), self.weight.to(x.dtype), 1e-5)

    def rotate(x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-b, a), dim=-1) * sin

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            q, kv = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
            self.q_proj = nn.Linear(cfg.hidden, q, bias=False)
            self.k_proj = nn.Linear(cfg.hidden, kv, bias=False)
            self.v_proj = nn.Linear(cfg.hidden, kv, bias=False)
            self.o_proj = nn.Linear(q, cfg.hidden, bias=False)

        def forward(self, x, cos, sin):
            rows, length, _ = x.shape
            split = lambda y: y.view(rows, length, -1, cfg.head_dim).transpose(1, 2)
            q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            group = cfg.heads // cfg.kv_heads
            k, v = (y.repeat_interleave(group, dim=1) for y in (k, v))
            drop = cfg.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
            return self.o_proj(y.transpose(1, 2).reshape(rows, length, -1))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj = nn.Linear(cfg.hidden, cfg.ffn, bias=False)
            self.up_proj = nn.Linear(cfg.hidden, cfg.ffn, bias=False)
            self.down_proj = nn.Linear(cfg.ffn, cfg.hidden, bias=False)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.mlp = Attention(), Mlp()
            self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

        def forward(self, x, cos, sin):
            drop = lambda y: F.dropout(y, cfg.dropout, self.training)
            x = x + drop(self.self_attn(self.input_layernorm(x), cos, sin))
            return x + drop(self.mlp(self.post_attention_layernorm(x)))

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_tokens = nn.Embedding(cfg.vocab, cfg.hidden)
            self.layers = nn.ModuleList(Layer() for _ in range(cfg.layers))
            self.norm = Norm()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Body()
            for name, p in self.named_parameters():
                if p.dim() == 2:
                    out = name.endswith(("o_proj.weight", "down_proj.weight"))
                    nn.init.normal_(p, std=0.02 / (math.sqrt(2 * cfg.layers) if out else 1))
            inverse = 10000.0 ** (-torch.arange(0, cfg.head_dim, 2).float() / cfg.head_dim)
            angle = torch.outer(torch.arange(cfg.positions).float(), inverse).repeat(1, 2)
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)

        def forward(self, ids):
            body, length = self.model, ids.shape[1]
            x = F.dropout(body.embed_tokens(ids).bfloat16(), cfg.dropout, self.training)
            cos, sin = self.cos[:length].bfloat16(), self.sin[:length].bfloat16()
            for layer in body.layers:
                x = layer(x, cos, sin)
            return F.linear(body.norm(x), body.embed_tokens.weight)

    return Model()


# ---- loss, training --------------------------------------------------------------------------


def held_out_nats(forward, ids, eot, chars, window, batch=16):
    """Nats per character of `ids`; past the first window each token sees half a window or more.

    `forward` maps ids [rows, window] to logits [rows, window, vocab]. An end of text stands before
    the first token, so that every token is predicted.
    """
    import torch
    import torch.nn.functional as F
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
        import torch
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
    import torch
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": cfg.weight_decay},
              {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.98), fused=True)


def distilled_loss(logits, target, teachers, x, soft):
    """Cross entropy, mixed with the divergence from the teachers' averaged prediction."""
    import torch
    import torch.nn.functional as F
    flat = logits.float().flatten(0, 1)
    hard = F.cross_entropy(flat, target.flatten())
    if not teachers:
        return hard
    with torch.no_grad():
        mean = sum(F.softmax(t(x).float(), dim=-1) for t in teachers) / len(teachers)
    return (1 - soft) * hard - soft * (mean.flatten(0, 1) * flat.log_softmax(-1)).sum(-1).mean()


def train(cfg, args, teachers=()):
    """Trains one model; returns (best held-out loss, its weights on the CPU in float32)."""
    import torch
    from tokenizers import Tokenizer
    device = torch.device("cuda")
    torch.manual_seed(cfg.seed)
    train_text, held_out = read_split(args.text)
    tok = Tokenizer.from_file(os.path.join(args.out, "tokenizer.json"))
    batches = Batches(cfg, train_text, tok, device)
    held_ids = torch.tensor(tok.encode(held_out).ids, device=device)
    model = make_model(cfg).to(device)
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
    import torch
    from safetensors.torch import save_file
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
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
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
        made = model.generate(start, do_sample=True, temperature=0.8, top_p=0.95, top_k=50,
                              max_new_tokens=220, eos_token_id=[0, 2], pad_token_id=0)
        print("SAMPLE " + json.dumps(prompt) + "\n" + tok.decode(made[0, start.shape[1]:]))


def load_teacher(path):
    import torch
    saved = torch.load(path, weights_only=True)
    cfg = Config(**saved["config"])
    model = make_model(cfg).cuda().eval()
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
        import torch
        torch.save({"config": dataclasses.asdict(cfg), "best": best, "weights": weights},
                   args.save)
        return
    export(cfg, weights, args.out)
    report(cfg, args)


if __name__ == "__main__":
    main()
