"""The layer of TCNCA in plain JAX: a description, a dict of parameters, functions."""
import dataclasses
import math

import jax
import jax.numpy as jnp

from .attention import chunked_attention, chunked_attention_step, rotary_bias
from .conv_stack import conv_stack, conv_stack_step
from .ema import ema, ema_step
from .gates import mix, reset, update
from .primitive import accumulate_type
from .shared.shapes import CHANNELS_LAST, ChunkedAttentionShape, ConvStackShape, EmaShape, GatedFusionShape


@dataclasses.dataclass(frozen=True)
class TcncaLayer:
    """A layer of TCNCA for [batch, length, channels]; with an EmaShape as its mixer, the layer of MEGA.

      V = silu(norm(X) Wv + bv),  M = mixer(norm(X)),  [u | z | r | hx] = M Wm + bm,  q, k = silu(z) g + m,
      O = attention(q, k, V),  H = silu(hx + (O silu(r)) Wh + bh),  Y = X + sigmoid(u) (H - X)

    A static value: hashable, without arrays. Gates that `gates` does not have are left out, with their columns of Wm.
    bias: "simple", a table of 2 chunk - 1; "rotary", two vectors of key_dim, from which the table is computed; or None.
    Without pre_norm the output is normalized. dropout: of the mixer's result and of H.
    """
    channels: int
    value_dim: int
    key_dim: int
    chunk: int
    mixer: ConvStackShape | EmaShape
    causal: bool = True
    function: str = "softmax"
    gates: GatedFusionShape = GatedFusionShape()
    bias: str | None = "simple"
    pre_norm: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0

    def __post_init__(self):
        if self.causal != (self.mixer.dir == "causal"):
            attention = "causal" if self.causal else "not causal"
            raise ValueError(f"the mixer is {self.mixer.dir}, but the attention is {attention}")
        if self.bias not in ("simple", "rotary", None):
            raise ValueError(f'bias is {self.bias!r}, expected "simple", "rotary" or None')
        object.__setattr__(self, "mixer", dataclasses.replace(self.mixer, order=CHANNELS_LAST))

    @property
    def _columns(self):
        return [self.channels * self.gates.update_gate, self.key_dim, self.value_dim * self.gates.reset_gate,
                self.channels * self.gates.mixer_path]

    def init(self, key, dtype=jnp.float32):
        """The parameters: a dict of arrays and dicts."""
        mixer_key, *keys = jax.random.split(key, 9)

        def normal(*extents):
            return 0.02 * jax.random.normal(keys.pop(), extents, dtype)

        def linear(rows, columns):
            return {"weight": normal(rows, columns), "bias": jnp.zeros(columns, dtype)}
        parameters = {
            "norm": {"scale": jnp.ones(self.channels, dtype), "bias": jnp.zeros(self.channels, dtype)},
            "mixer": init_mixer(mixer_key, self.channels, self.mixer, dtype),
            "values": linear(self.channels, self.value_dim),
            "product": linear(self.channels, sum(self._columns)),
            "candidate": linear(self.value_dim, self.channels),
            "gain_q": normal(self.key_dim), "gain_k": normal(self.key_dim),
            "mean_q": jnp.zeros(self.key_dim, dtype), "mean_k": jnp.zeros(self.key_dim, dtype),
        }
        if self.bias == "simple":
            parameters["table"] = normal(1, 2 * self.chunk - 1)
        elif self.bias == "rotary":
            parameters |= {"a": normal(1, self.key_dim), "b": normal(1, self.key_dim)}
        return parameters

    def __call__(self, parameters, x, lengths=None, key=None, offsets=None, max_length=0):
        """The output for whole sequences. lengths, integers [batch], says how many positions of each sequence are
        valid; the others must be at its end. key: of jax.random; without one nothing is dropped. offsets and
        max_length: packed sequences, as those of conv_stack; they need no lengths."""
        if lengths is not None and offsets is not None:
            raise ValueError("lengths are for padded sequences, offsets for packed ones: give one of them")
        packed = {"offsets": offsets, "max_length": max_length}
        keys = (None, None, None) if key is None else jax.random.split(key, 3)

        def mixer(normed):
            if lengths is not None:
                if self.mixer.dir != "causal" and getattr(self.mixer, "bias", False):
                    raise ValueError("biases of a stack that looks ahead would carry padding to valid positions")
                valid = jnp.arange(x.shape[1]) < lengths[:, None]
                normed = jnp.where(valid[..., None], normed, 0)
            mixed, _ = apply_mixer(parameters["mixer"], normed, self.mixer, **packed)
            if keys[0] is None or not self.dropout:
                return mixed
            keep = jax.random.bernoulli(keys[0], 1 - self.dropout, mixed.shape)
            return jnp.where(keep, mixed / (1 - self.dropout), 0).astype(mixed.dtype)

        def attention(q, k, v):
            dropout = 0.0 if key is None else self.attention_dropout
            return chunked_attention(q, k, v, self._table(parameters), shape=self._attention_shape, chunk=self.chunk,
                                     lengths=lengths, dropout=dropout, key=keys[1], **packed)
        return self._layer(parameters, x, mixer, attention, 0.0 if key is None else self.dropout, keys[2])

    def initial_state(self, batch, dtype=jnp.float32):
        """The states of sequences of type dtype that begin."""
        sums = accumulate_type(dtype)
        remembered = ((batch, self.mixer.receptive_field - 1, self.channels) if isinstance(self.mixer, ConvStackShape)
                      else (batch, self.channels, self.mixer.states))
        keys, values = (jnp.zeros((batch, 1, self.chunk, n), dtype) for n in (self.key_dim, self.value_dim))
        return {"mixer": jnp.zeros(remembered, sums), "keys": keys, "values": values}

    def step(self, parameters, x, state, position=0, **tables):
        """The output of further positions of sequences, and their new state. Causal layers, without gradients. tables:
        offsets, max_length, slots and positions, as those of conv_stack_step: `state` may be a pool, with a row for
        each slot."""
        after = {}

        def mixer(normed):
            mixed, after["mixer"] = apply_mixer(parameters["mixer"], normed, self.mixer, state["mixer"], position,
                                                **tables)
            return mixed

        def attention(q, k, v):
            o, (after["keys"], after["values"]) = chunked_attention_step(
                q, k, v, self._table(parameters), shape=self._attention_shape, chunk=self.chunk,
                state=(state["keys"], state["values"]), position=position, **tables)
            return o
        return self._layer(parameters, x, mixer, attention, 0.0, None), after

    @property
    def _attention_shape(self):
        return ChunkedAttentionShape(function=self.function, causal=self.causal)

    def _table(self, parameters):
        if self.bias == "rotary":
            return rotary_bias(parameters["a"], parameters["b"], self.chunk)
        return parameters.get("table")

    def _layer(self, parameters, x, mixer, attention, dropout, key):
        normed = layer_norm(parameters["norm"], x) if self.pre_norm else x
        v = jax.nn.silu(apply_linear(parameters["values"], normed))
        product = apply_linear(parameters["product"], mixer(normed))
        ends = [sum(self._columns[:i + 1]) for i in range(3)]
        u, z, r, hx = jnp.split(product, ends, -1)
        q, k = mix(z, *(parameters[n] for n in ("gain_q", "mean_q", "gain_k", "mean_k")))
        o = attention(q[:, None], k[:, None], v[:, None])[:, 0]
        if self.gates.reset_gate:
            o = reset(o, r)
        h = apply_linear(parameters["candidate"], o)
        y = update(h, x, u if self.gates.update_gate else None, hx if self.gates.mixer_path else None, dropout=dropout,
                   key=key)
        return y if self.pre_norm else layer_norm(parameters["norm"], y)


def init_mixer(key, channels, shape, dtype=jnp.float32):
    """The parameters of a stack, close to the identity if its levels have residuals; or of an EMA, as MEGA's."""
    keys = jax.random.split(key, 5)
    if isinstance(shape, ConvStackShape):
        deviation = (0.1 if shape.residuals == "level" else 1) / math.sqrt(shape.taps)
        extents = shape.weight_sets, shape.taps, channels
        parameters = {"weight": deviation * jax.random.normal(keys[0], extents, dtype)}
        if shape.bias:
            parameters["bias"] = jnp.zeros((shape.weight_sets, channels), dtype)
        if shape.skip:
            parameters["omega"] = jnp.ones(channels, dtype)
        return parameters
    extents = shape.directions * channels, shape.states
    delta, alpha, beta, gamma = (jax.random.normal(k, extents, dtype) for k in keys[:4])
    signs = 1 - 2 * (jnp.arange(beta.size) % 2).reshape(extents).astype(dtype)
    parameters = {"delta": 0.2 * delta, "alpha": 0.2 * alpha, "beta": 0.02 * beta + signs, "gamma": gamma}
    if shape.skip:
        parameters["omega"] = jax.random.normal(keys[4], (channels,), dtype)
    return parameters


def apply_mixer(parameters, x, shape, state=None, position=0, positions=None, **tables):
    """The result, and the new state if there is one."""
    if isinstance(shape, ConvStackShape):
        if state is None:
            return conv_stack(x, **parameters, shape=shape, **tables), None
        return conv_stack_step(x, **parameters, shape=shape, state=state, position=position, positions=positions,
                               **tables)
    if state is None:
        return ema(x, **parameters, shape=shape, **tables), None
    return ema_step(x, **parameters, shape=shape, state=state, **tables)


def layer_norm(parameters, x, epsilon=1e-5):
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = exact - exact.mean(-1, keepdims=True)
    normed = centered * jax.lax.rsqrt((centered**2).mean(-1, keepdims=True) + epsilon)
    return (normed * parameters["scale"] + parameters["bias"]).astype(x.dtype)


def apply_linear(parameters, x):
    return x @ parameters["weight"].astype(x.dtype) + parameters["bias"].astype(x.dtype)
