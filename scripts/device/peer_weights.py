"""Gives vLLM's workers weights like ours: normal of 1 / sqrt(inputs), norms of ones, as engine/weights/dummy.cpp makes them.

vLLM's own `dummy` weights lie within +-0.001, the scales of its norms too, and every layer has the same ones: all scores of attention
are about 0 and all its probabilities 1. Numbers that do not differ may cost a card at its limit of power less, so both multiply
numbers of the same kind. (It was no faster with its own: tests/bench/README.md.)

Used as vLLM's worker extension: worker_extension_cls "peer_weights.Spread", then the RPC "spread_weights".
"""
import math
import zlib

import torch


class Spread:
    @torch.no_grad()
    def spread_weights(self):
        """Fills the weights where they lie, so graphs stay as they were; returns how many numbers of matrices there are."""
        count = 0
        for name, weight in self.get_model().named_parameters():
            if weight.dim() < 2:
                weight.fill_(1.0)
                continue
            generator = torch.Generator(device=weight.device)
            generator.manual_seed(zlib.crc32(name.encode()))
            weight.normal_(0.0, 1.0 / math.sqrt(weight.shape[-1]), generator=generator)
            count += weight.numel()
        torch.cuda.synchronize()
        return str(count)
