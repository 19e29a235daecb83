"""TcncaLayer: against plain JAX; lengths, dropout, decoding, shapes of MEGA."""
import functools
import unittest

from support import TestCase, normal

import jax
import jax.numpy as jnp

import reference
from tcnca_jax import ConvStackShape, EmaShape, GatedFusionShape, TcncaLayer
from tcnca_jax.layer import layer_norm

STACK = ConvStackShape(taps=4, depth=3, dilation_base=4, residuals="level", skip=True)  # that of the tutorial
CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, LENGTH = 8, 24, 16, 8, 32
LAYER = TcncaLayer(CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, STACK)


def reference_layer(layer, parameters, x):
    """The equations of TcncaLayer."""
    p = parameters

    def linear(name, a):
        return a @ p[name]["weight"] + p[name]["bias"]
    normed = layer_norm(p["norm"], x)
    v = jax.nn.silu(linear("values", normed))
    mixed = reference.conv_stack(normed.swapaxes(1, 2), p["mixer"]["weight"], None, p["mixer"]["omega"], layer.mixer)
    u, z, r, hx = jnp.split(linear("product", mixed.swapaxes(1, 2)),
                            [CHANNELS, CHANNELS + KEY_DIM, CHANNELS + KEY_DIM + VALUE_DIM], -1)
    q, k = reference.mix(z, p["gain_q"], p["mean_q"], p["gain_k"], p["mean_k"])
    o = reference.attention(q[:, None], k[:, None], v[:, None], p["table"], CHUNK, "softmax", True)[:, 0]
    return reference.update(linear("candidate", reference.reset(o, r)), x, u, hx)


class Layer(TestCase):
    def setUp(self):
        self.parameters = LAYER.init(jax.random.key(0))
        # Larger than those of a new layer, so that every part matters.
        self.parameters = jax.tree.map(lambda t: t + normal(t.size, *t.shape, dtype=t.dtype, scale=0.3),
                                       self.parameters)
        self.x = jnp.asarray(normal(1, 2, LENGTH, CHANNELS, dtype=jnp.float32))

    def test_against_plain_jax(self):
        # An absolute bound too: the gradient of mean_k is 0, because it adds the same number to all scores of a query.
        self.gradients(LAYER, functools.partial(reference_layer, LAYER), (self.parameters, self.x), 1e-5, 1e-5)

    def test_without_64_bits(self):
        with jax.enable_x64(False):
            y = jax.jit(LAYER)(self.parameters, self.x, jnp.array([LENGTH, 20]))
        self.close(y, LAYER(self.parameters, self.x, jnp.array([LENGTH, 20])), 1e-5)

    def test_lengths(self):
        y = LAYER(self.parameters, self.x, lengths=jnp.array([LENGTH, 20]))
        other = self.x.at[1, 20:].set(7.0)
        self.equal(LAYER(self.parameters, other, lengths=jnp.array([LENGTH, 20]))[1, :20], y[1, :20])
        self.close(y[1, :20], LAYER(self.parameters, self.x)[1, :20], 1e-6)

    def test_decoding(self):
        @functools.partial(jax.jit, donate_argnums=0)
        def decode(state, x):
            def token(carry, row):
                state, position = carry
                y, state = LAYER.step(self.parameters, row[:, None], state, position)
                return (state, position + 1), y[:, 0]
            (state, _), y = jax.lax.scan(token, (state, 0), x.swapaxes(0, 1))
            return state, y.swapaxes(0, 1)
        state, y = decode(LAYER.initial_state(2), self.x[:, :20])
        last, _ = LAYER.step(self.parameters, self.x[:, 20:], state, 20)
        whole = LAYER(self.parameters, self.x)
        self.close(jnp.concatenate([y, last], 1), whole, 1e-5)

    def test_dropout(self):
        layer = TcncaLayer(CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, STACK, dropout=0.25)
        key = jax.random.key(5)
        y = jax.jit(layer)(self.parameters, self.x, key=key)
        self.close(layer(self.parameters, self.x, key=key), y, 1e-5)
        self.assertGreater(jnp.abs(layer(self.parameters, self.x, key=jax.random.key(6)) - y).max(), 0.1)
        self.equal(layer(self.parameters, self.x), LAYER(self.parameters, self.x))
        mean = jax.vmap(lambda k: layer(self.parameters, self.x, key=k))(jax.random.split(key, 400)).mean(0)
        self.assertLess(jnp.abs(mean - LAYER(self.parameters, self.x)).mean(), jnp.abs(y - mean).mean())

    def test_layer_of_mega(self):
        layer = TcncaLayer(CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, EmaShape(states=4), bias="rotary", pre_norm=False,
                           gates=GatedFusionShape(reset_gate=False))
        parameters = layer.init(jax.random.key(0))
        y, state = [], layer.initial_state(2)
        for t in range(10):
            row, state = layer.step(parameters, self.x[:, t:t + 1], state, t)
            y.append(row)
        whole = layer(parameters, self.x)
        self.close(jnp.concatenate(y, 1), whole[:, :10], 1e-5)
        self.assertEqual(hash(layer), hash(TcncaLayer(**{f: getattr(layer, f) for f in layer.__dataclass_fields__})))

    def test_errors(self):
        with self.assertRaisesRegex(ValueError, "the mixer is causal, but the attention is not causal"):
            TcncaLayer(CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, STACK, causal=False)


if __name__ == "__main__":
    unittest.main()
