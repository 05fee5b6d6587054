"""A Llama whose parameter names are those of transformers' LlamaForCausalLM."""
import math

import torch
from torch import nn
import torch.nn.functional as F


class Norm(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(cfg.hidden))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), 1e-5)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        q, kv = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
        self.q_proj = nn.Linear(cfg.hidden, q, bias=False)
        self.k_proj = nn.Linear(cfg.hidden, kv, bias=False)
        self.v_proj = nn.Linear(cfg.hidden, kv, bias=False)
        self.o_proj = nn.Linear(q, cfg.hidden, bias=False)

    def forward(self, x, cos, sin):
        cfg, (rows, length, _) = self.cfg, x.shape
        split = lambda y: y.view(rows, length, -1, cfg.head_dim).transpose(1, 2)
        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = cfg.heads // cfg.kv_heads
        k, v = (y.repeat_interleave(group, dim=1) for y in (k, v))
        drop = cfg.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
        return self.o_proj(y.transpose(1, 2).reshape(rows, length, -1))


class Mlp(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = nn.Linear(cfg.hidden, cfg.ffn, bias=False)
        self.up_proj = nn.Linear(cfg.hidden, cfg.ffn, bias=False)
        self.down_proj = nn.Linear(cfg.ffn, cfg.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.dropout = cfg.dropout
        self.self_attn, self.mlp = Attention(cfg), Mlp(cfg)
        self.input_layernorm, self.post_attention_layernorm = Norm(cfg), Norm(cfg)

    def forward(self, x, cos, sin):
        drop = lambda y: F.dropout(y, self.dropout, self.training)
        x = x + drop(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + drop(self.mlp(self.post_attention_layernorm(x)))


class Body(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab, cfg.hidden)
        self.layers = nn.ModuleList(Layer(cfg) for _ in range(cfg.layers))
        self.norm = Norm(cfg)


class Model(nn.Module):
    """Maps ids [rows, length] to logits [rows, length, vocab]; the output head is the embedding."""

    def __init__(self, cfg):
        super().__init__()
        self.dropout = cfg.dropout
        self.model = Body(cfg)
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
        x = F.dropout(body.embed_tokens(ids).bfloat16(), self.dropout, self.training)
        cos, sin = self.cos[:length].bfloat16(), self.sin[:length].bfloat16()
        for layer in body.layers:
            x = layer(x, cos, sin)
        return F.linear(body.norm(x), body.embed_tokens.weight)
