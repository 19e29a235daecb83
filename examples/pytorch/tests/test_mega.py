"""MegaLayer.from_fairseq against the layer of MEGA's released code, written again from its description."""
import math
import unittest

import torch
from torch import nn
import torch.nn.functional as F

from support import TestCase
from tcnca_torch import MegaLayer

CHANNELS, VALUE_DIM, KEY_DIM, STATES, CHUNK, LENGTH, POSITIONS = 6, 24, 16, 4, 8, 24, 20


class Move(nn.Module):
    """MultiHeadEMA: the convolution with an explicit kernel, sample by sample."""

    def __init__(self, bidirectional):
        super().__init__()
        rows = CHANNELS * (1 + bidirectional)
        for name in ("damping_factor", "decay_factor", "ema_expansion_matrix"):
            setattr(self, name, nn.Parameter(torch.randn(rows, STATES, 1)))
        self.kernel_projection_matrix = nn.Parameter(torch.randn(rows, STATES))
        self.residual_weight = nn.Parameter(torch.randn(CHANNELS))

    def forward(self, x):  # [length, batch, channels]
        p, length = torch.sigmoid(self.damping_factor), len(x)
        q = 1 - p * torch.sigmoid(self.decay_factor)
        kernel = p * self.ema_expansion_matrix * torch.exp(torch.arange(length).view(1, 1, length) * torch.log(q))
        kernel = torch.einsum("dnl,dn->dl", kernel, self.kernel_projection_matrix * math.sqrt(1 / STATES))
        rows = [sum(kernel[:CHANNELS, t - s] * x[s] for s in range(t + 1)) for t in range(length)]
        if len(kernel) > CHANNELS:
            rows = [r + sum(kernel[CHANNELS:, s - t] * x[s] for s in range(t, length)) for t, r in enumerate(rows)]
        return F.silu(torch.stack(rows) + x * self.residual_weight)


class SimpleBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.rel_pos_bias = nn.Parameter(torch.randn(2 * POSITIONS - 1))

    def forward(self, n):
        b = self.rel_pos_bias[POSITIONS - n:POSITIONS + n - 1]
        t = F.pad(b, (0, n)).tile((n,))[:-n].view(n, 3 * n - 2)
        r = (2 * n - 1) // 2
        return t[:, r:t.shape[1] - r]


class RotaryBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha, self.beta = (nn.Parameter(torch.randn(1, KEY_DIM)) for _ in range(2))

    def forward(self, n):
        half = KEY_DIM // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10000) / half))
        angle = torch.arange(n)[:, None] * rate

        def rotate(row):
            (first, second), cosine, sine = row.expand(n, KEY_DIM).chunk(2, -1), angle.cos(), angle.sin()
            return torch.cat([first * cosine - second * sine, second * cosine + first * sine], 1)
        return rotate(self.alpha) @ rotate(self.beta).t()


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x):
        return self.norm(x)


class Released(nn.Module):
    def __init__(self, bidirectional, bias, function, prenorm):
        super().__init__()
        self.function, self.causal, self.prenorm = function, not bidirectional, prenorm
        self.move, self.norm, self.rel_pos_bias = Move(bidirectional), Norm(), bias()
        self.v_proj, self.h_proj = nn.Linear(CHANNELS, VALUE_DIM), nn.Linear(VALUE_DIM, CHANNELS)
        self.mx_proj = nn.Linear(CHANNELS, KEY_DIM + VALUE_DIM + 2 * CHANNELS)
        self.gamma, self.beta = (nn.Parameter(torch.randn(2, KEY_DIM)) for _ in range(2))

    def attend(self, q, k, v):
        n = q.shape[-2]
        seen = torch.ones(n, n).tril() if self.causal else torch.ones(n, n)
        if self.function == "softmax":
            scores = (KEY_DIM ** -0.5 * q) @ k.transpose(-1, -2) + self.rel_pos_bias(n)
            return torch.softmax(scores.masked_fill(seen == 0, -math.inf), -1) @ v
        scores = q @ k.transpose(-1, -2) / seen.sum(-1, keepdim=True) + self.rel_pos_bias(n)
        weights = 0.5 * (1 + torch.erf((scores - math.sqrt(0.5)) / (math.sqrt(0.25 / math.pi) * math.sqrt(2))))
        return (weights * seen) @ v

    def forward(self, x):  # [length, batch, channels]
        normed = self.norm(x) if self.prenorm else x
        v = F.silu(self.v_proj(normed))
        u, zr, hx = self.mx_proj(self.move(normed)).split([CHANNELS, KEY_DIM + VALUE_DIM, CHANNELS], -1)
        z, r = F.silu(zr).split([KEY_DIM, VALUE_DIM], -1)
        q, k = (z.unsqueeze(2) * self.gamma + self.beta).unbind(2)
        q, k, v = (t.transpose(0, 1).unflatten(1, (-1, CHUNK)) for t in (q, k, v))
        o = self.attend(q, k, v).flatten(1, 2).transpose(0, 1)
        y = torch.lerp(x, F.silu(hx + self.h_proj(o * r)), torch.sigmoid(u))
        return y if self.prenorm else self.norm(y)


class FromFairseq(TestCase):
    def compare(self, released, **options):
        released = released.double()
        state = {f"encoder.layers.0.{k}": v for k, v in released.state_dict().items()}
        layer = MegaLayer.from_fairseq(state, CHUNK, prefix="encoder.layers.0.", **options)
        x = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64)
        with torch.no_grad():
            self.close(layer(x), released(x.transpose(0, 1)).transpose(0, 1), 1e-13)
            # Packed, with lengths that the released code takes: multiples of the chunk.
            packed, offsets = x.reshape(1, 2 * LENGTH, CHANNELS), (0, CHUNK, CHUNK, LENGTH, 2 * LENGTH)
            y = layer(packed, offsets=torch.tensor(offsets, dtype=torch.int32))
            for first, end in ((0, CHUNK), (CHUNK, LENGTH), (LENGTH, 2 * LENGTH)):
                expected = released(packed[:, first:end].transpose(0, 1)).transpose(0, 1)
                self.close(y[:, first:end], expected, 1e-13)

    def test_causal(self):
        self.compare(Released(False, SimpleBias, "softmax", True))

    def test_bidirectional(self):
        self.compare(Released(True, RotaryBias, "laplace", False), causal=False, function="laplace", pre_norm=False)

    def test_short_names(self):
        state = Released(False, SimpleBias, "softmax", True).state_dict()
        names = {"move.damping_factor": "move.delta", "move.decay_factor": "move.alpha", "norm.norm.bias": "norm.bias",
                 "move.ema_expansion_matrix": "move.beta", "move.kernel_projection_matrix": "move.gamma",
                 "move.residual_weight": "move.omega", "norm.norm.weight": "norm.weight"}
        found = MegaLayer.from_fairseq({names.get(k, k): v for k, v in state.items()}, CHUNK).state_dict()
        for name, value in MegaLayer.from_fairseq(state, CHUNK).state_dict().items():
            self.equal(found[name], value)

    def test_errors(self):
        state = Released(False, SimpleBias, "softmax", True).state_dict()
        cases = {
            "the state has no h_proj.bias": ({k: v for k, v in state.items() if k != "h_proj.bias"}, {}),
            "that this layer has not: norm.norm.scalar": (state | {"norm.norm.scalar": torch.ones(1)}, {}),
            "the EMA has 6 rows for 6 channels, but causal is False": (state, {"causal": False}),
            "chunk is 21, expected at most 20": (state, {"chunk": 21}),
        }
        for message, (broken, options) in cases.items():
            with self.assertRaisesRegex(ValueError, message):
                MegaLayer.from_fairseq(broken, **{"chunk": CHUNK, **options})


if __name__ == "__main__":
    unittest.main()
