"""Modules with parameters: the mixers of time, chunked attention, and the layer of TCNCA."""
import dataclasses
import math

import torch
from torch import nn
import torch.nn.functional as F

from . import kernels
from .kernels import accumulate_type
from .operators import (attention as attention_operators, common, conv_stack as stack_operators, ema as ema_operators,
                        gates)
from .operators.attention import chunked_attention, chunked_attention_step, rotary_bias
from .operators.conv_stack import conv_stack, conv_stack_step
from .operators.ema import ema, ema_step
from .operators.gates import mix, new_seed, reset, update
from .shapes import CHANNELS_FIRST, CHANNELS_LAST, ChunkedAttentionShape, ConvStackShape, EmaShape, GatedFusionShape


def _parameter(*extents):
    return nn.Parameter(torch.empty(*extents))


def precompile(module, dtype=torch.float32, device="cpu", backward=True, levels=("native",)):
    """Compiles what the modules of this package in `module` need for activations of a type (for autocast, that of the
    region), instead of at their first calls; several at a time. For example when an image is built, or before a
    training is timed. levels: for which processors, "native", "x86-64-v3" or "x86-64-v4"; a program that uses the cache
    loads the best one that its processor has."""
    passes = {p for m in module.modules() if hasattr(m, "passes") for p in m.passes(dtype, backward)}
    kernels.compile_all(sorted(passes, key=lambda p: "backward" not in p[0].name), torch.device(device), levels)


class ConvStack(nn.Module):
    """A stack of dilated depthwise convolutions of [batch, channels, length]. Weights begin with deviation taps^-1/2,
    those of levels with a residual with a tenth of it, so that a new stack is close to the identity."""
    order = CHANNELS_FIRST  # the layout that precompile expects

    def __init__(self, channels, shape):
        super().__init__()
        self.channels, self.shape = channels, shape
        self.weight = _parameter(shape.weight_sets, shape.taps, channels)
        self.bias = _parameter(shape.weight_sets, channels) if shape.bias else None
        self.omega = _parameter(channels) if shape.skip else None
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.weight, std=(0.1 if self.shape.residuals == "level" else 1) / math.sqrt(self.shape.taps))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.omega is not None:
            nn.init.ones_(self.omega)

    def forward(self, x, state=None, position=0, return_state=False, **tables):
        """tables: offsets, max_length, slots and positions of conv_stack."""
        return conv_stack(x, self.weight, self.bias, self.omega, shape=self.shape, state=state, position=position,
                          return_state=return_state, **tables)

    def passes(self, dtype, backward):
        shape = dataclasses.replace(self.shape, order=self.order)
        return [(p, shape, dtype) for p in (stack_operators.FORWARD, stack_operators.BACKWARD)[:1 + backward]]

    def initial_state(self, batch):
        """The state of sequences that begin; what `step` updates."""
        return self.weight.new_zeros((batch, self.shape.receptive_field - 1, self.channels),
                                     dtype=accumulate_type(self.weight.dtype)).transpose(1, 2)

    def step(self, x, state, position=0, **tables):
        return conv_stack_step(x, self.weight, self.bias, self.omega, shape=self.shape, state=state, position=position,
                               **tables)

    def extra_repr(self):
        return f"{self.channels}, {self.shape}"


class Ema(nn.Module):
    """MEGA's damped exponential moving average of [batch, channels, length], with MEGA's initial values."""
    order = CHANNELS_FIRST  # the layout that precompile expects

    def __init__(self, channels, shape=EmaShape()):
        super().__init__()
        self.channels, self.shape = channels, shape
        for name in ("delta", "alpha", "beta", "gamma"):
            setattr(self, name, _parameter(shape.directions * channels, shape.states))
        self.omega = _parameter(channels) if shape.skip else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        nn.init.normal_(self.delta, std=0.2)
        nn.init.normal_(self.alpha, std=0.2)
        signs = 1 - 2 * (torch.arange(self.beta.numel(), device=self.beta.device) % 2)
        nn.init.normal_(self.beta, std=0.02).add_(signs.view_as(self.beta))
        nn.init.normal_(self.gamma)
        if self.omega is not None:
            nn.init.normal_(self.omega)

    def _parameters_of_call(self):
        return self.delta, self.alpha, self.beta, self.gamma, self.omega

    def forward(self, x, state=None, position=0, return_state=False, positions=None, **tables):
        """`position` and `positions` are not used: they are there for the common interface of mixers. tables: offsets,
        max_length and slots of ema."""
        return ema(x, *self._parameters_of_call(), shape=self.shape, state=state, return_state=return_state, **tables)

    def passes(self, dtype, backward):
        shape = dataclasses.replace(self.shape, order=self.order)
        return [(p, shape, dtype) for p in (ema_operators.FORWARD, ema_operators.BACKWARD)[:1 + backward]]

    def initial_state(self, batch):
        """The state of sequences that begin; what `step` updates."""
        return self.delta.new_zeros((batch, self.channels, self.shape.states), dtype=accumulate_type(self.delta.dtype))

    def step(self, x, state, position=0, positions=None, **tables):
        return ema_step(x, *self._parameters_of_call(), shape=self.shape, state=state, **tables)

    def extra_repr(self):
        return f"{self.channels}, {self.shape}"


class ChunkedAttention(nn.Module):
    """Attention within chunks with learned biases: `bias` is "simple", a table of 2 chunk - 1 for each head; "rotary",
    two vectors of key_dim for each head, from which the table is computed; or None."""

    def __init__(self, chunk, shape=ChunkedAttentionShape(), heads=1, bias="simple", key_dim=None, dropout=0.0):
        super().__init__()
        if bias not in ("simple", "rotary", None):
            raise ValueError(f'bias is {bias!r}, expected "simple", "rotary" or None')
        self.chunk, self.shape, self.heads, self.dropout = chunk, shape, heads, dropout
        self.table = _parameter(heads, 2 * chunk - 1) if bias == "simple" else None
        self.a, self.b = (_parameter(heads, key_dim) if bias == "rotary" else None for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self):
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def passes(self, dtype, backward):
        shape = dataclasses.replace(self.shape, bias=self.table is not None or self.a is not None, dropout=False)
        shapes = [shape] + [dataclasses.replace(shape, dropout=True)] * (self.dropout > 0 and backward)
        passes = (attention_operators.FORWARD, attention_operators.BACKWARD)[:1 + backward]
        rotary = []
        if self.a is not None:
            rotary = [(attention_operators.ROTARY, attention_operators.ANY_SHAPE, accumulate_type(self.a.dtype))]
        return [(p, s, dtype) for s in shapes for p in passes] + rotary

    def bias(self):
        return self.table if self.a is None else rotary_bias(self.a, self.b, self.chunk)

    def forward(self, q, k, v, lengths=None, state=None, position=0, return_state=False, **options):
        """options: alibi_slopes, window, head_lengths, and the tables of packed sequences, as of chunked_attention."""
        return chunked_attention(q, k, v, self.bias(), shape=self.shape, chunk=self.chunk, lengths=lengths, state=state,
                                 position=position, dropout=self.dropout if self.training else 0.0,
                                 return_state=return_state, **options)

    def step(self, q, k, v, state, position=0, **options):
        return chunked_attention_step(q, k, v, self.bias(), shape=self.shape, chunk=self.chunk, state=state,
                                      position=position, **options)

    def extra_repr(self):
        return f"{self.chunk}, {self.shape}, heads={self.heads}"


def make_mixer(channels, shape):
    """The module of a shape."""
    return ConvStack(channels, shape) if isinstance(shape, ConvStackShape) else Ema(channels, shape)


class TcncaLayer(nn.Module):
    """A layer of TCNCA for [batch, length, channels]; with an EmaShape as its mixer, the layer of MEGA.

      V = silu(norm(X) Wv + bv),  M = mixer(norm(X)),  [u | z | r | hx] = M Wm + bm,  q, k = silu(z) g + m,
      O = attention(q, k, V),  H = silu(hx + (O silu(r)) Wh + bh),  Y = X + sigmoid(u) (H - X)

    Gates that `gates` does not have are left out, with their columns of Wm. Without pre_norm the output is normalized.
    dropout: of the mixer's result and of H. `lengths`, int64 [batch], says how many positions of each sequence are
    valid; the others must be at its end. offsets, max_length: packed sequences along the length, with a batch of 1, as
    those of conv_stack; they need no lengths.
    """

    def __init__(self, channels, value_dim, key_dim, chunk, mixer, causal=True, function="softmax",
                 gates=GatedFusionShape(), bias="simple", norm=nn.LayerNorm, pre_norm=True, dropout=0.0,
                 attention_dropout=0.0):
        super().__init__()
        if causal != (mixer.dir == "causal"):
            raise ValueError(f"the mixer is {mixer.dir}, but the attention is {'' if causal else 'not '}causal")
        self.channels, self.value_dim, self.key_dim = channels, value_dim, key_dim
        self.gates, self.pre_norm, self.dropout = gates, pre_norm, dropout
        self.columns = [channels * gates.update_gate, key_dim, value_dim * gates.reset_gate,
                        channels * gates.mixer_path]
        self.norm = norm(channels)
        self.mixer = make_mixer(channels, mixer)
        self.mixer.order = CHANNELS_LAST
        self.attention = ChunkedAttention(chunk, ChunkedAttentionShape(function=function, causal=causal), bias=bias,
                                          key_dim=key_dim, dropout=attention_dropout)
        self.values = nn.Linear(channels, value_dim)
        self.product = nn.Linear(channels, sum(self.columns))
        self.candidate = nn.Linear(value_dim, channels)
        self.gain_q, self.mean_q, self.gain_k, self.mean_k = (_parameter(key_dim) for _ in range(4))
        self.reset_parameters()

    def reset_parameters(self):
        for linear in (self.values, self.product, self.candidate):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        for gain, mean in ((self.gain_q, self.mean_q), (self.gain_k, self.mean_k)):
            nn.init.normal_(gain, std=0.02)
            nn.init.zeros_(mean)

    def passes(self, dtype, backward):
        # With autocast x has the type of the weights, and h that of the region.
        widest = torch.promote_types(dtype, self.values.weight.dtype)
        return gates.passes(self.gates, self.dropout, dtype, widest, backward)

    def forward(self, x, lengths=None, offsets=None, max_length=0):
        normed = self.norm(x) if self.pre_norm else x
        if lengths is not None:
            if offsets is not None:
                raise ValueError("lengths are for padded sequences, offsets for packed ones: give one of them")
            shape = self.mixer.shape
            if shape.dir != "causal" and getattr(shape, "bias", False):
                raise ValueError("biases of a stack that looks ahead would carry padding to valid positions")
            first = 0 if common.segments is None else common.segments.first
            padding = torch.arange(first, first + x.shape[1], device=x.device) >= lengths[:, None]
            normed = normed.masked_fill(padding[..., None], 0)
        packed = {"offsets": offsets, "max_length": max_length}
        return self._layer(x, normed, lambda m: self.mixer(m, **packed),
                           lambda q, k, v: self.attention(q, k, v, lengths, **packed))

    def initial_state(self, batch, dtype=None):
        """The states of sequences that begin; what `step` updates. dtype: that of keys and values, if not that of the
        weights: the type of an autocast region."""
        weight = self.values.weight
        keys, values = (weight.new_zeros((batch, 1, self.attention.chunk, n), dtype=dtype)
                        for n in (self.key_dim, self.value_dim))
        return {"mixer": self.mixer.initial_state(batch), "keys": keys, "values": values}

    def step(self, x, state, position=0, **tables):
        """The output of further positions of sequences; updates `state`. Causal layers, without gradients. tables:
        offsets, max_length, slots and positions, as those of conv_stack_step: `state` may be a pool, with a row for
        each slot."""
        normed = self.norm(x) if self.pre_norm else x
        pair = state["keys"], state["values"]
        return self._layer(x, normed, lambda m: self.mixer.step(m, state["mixer"], position, **tables),
                           lambda q, k, v: self.attention.step(q, k, v, pair, position, **tables))

    def _layer(self, x, normed, mixer, attention):
        dropout = self.dropout if self.training else 0.0
        v = F.silu(self.values(normed))
        mixed = F.dropout(mixer(normed.transpose(1, 2)).transpose(1, 2), dropout)
        u, z, r, hx = self.product(mixed).split(self.columns, -1)
        q, k = mix(z, self.gain_q, self.mean_q, self.gain_k, self.mean_k)
        o = attention(q[:, None], k[:, None], v[:, None])[:, 0]
        if self.gates.reset_gate:
            o = reset(o, r)
        y = update(self.candidate(o), x, u if self.gates.update_gate else None, hx if self.gates.mixer_path else None,
                   dropout=dropout, seed=new_seed() if dropout > 0 else None)
        return y if self.pre_norm else self.norm(y)


def conv_stack_from_conv1d(convolutions, act="none", residuals="none", dir="causal"):
    """A ConvStack with the weights of depthwise nn.Conv1d modules, applied one after another with the activation after
    each. Causal: each is padded on the left, by its caller or with padding (taps - 1) dilation and what is too much cut
    off at the end; symmetric: padding "same". (PyTorch stores the oldest tap first, a stack the newest.)"""
    first = convolutions[0]
    channels, taps = first.in_channels, first.kernel_size[0]
    for c in convolutions:
        history = (taps - 1) * c.dilation[0]
        padding = c.padding if isinstance(c.padding, str) else c.padding[0]
        wanted = ("same", history / 2) if dir == "symmetric" else ("valid", 0, history)
        same = (c.in_channels, c.out_channels, c.groups, c.kernel_size[0]) == (channels, channels, channels, taps)
        if not same or c.stride[0] != 1 or c.padding_mode != "zeros" or padding not in wanted:
            raise ValueError(f"{c} is not a depthwise convolution of {channels} channels and {taps} taps, of stride 1 "
                             f"and, for a {dir} stack, of padding {' or '.join(map(str, wanted))}")
        if (c.bias is None) != (first.bias is None):
            raise ValueError("either all convolutions have a bias or none")
    shape = ConvStackShape(taps=taps, dilations=tuple(c.dilation[0] for c in convolutions), act=act,
                           residuals=residuals, bias=first.bias is not None, dir=dir)
    stack = ConvStack(channels, shape).to(first.weight)
    with torch.no_grad():
        stack.weight.copy_(torch.stack([c.weight[:, 0].flip(1).t() for c in convolutions]))
        if shape.bias:
            stack.bias.copy_(torch.stack([c.bias for c in convolutions]))
    return stack
