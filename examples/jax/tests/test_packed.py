"""Packed sequences and pools of states: against one call for each sequence."""
import unittest

from support import TestCase, normal

import jax
import jax.numpy as jnp
import numpy as np

from tcnca_jax import (CHANNELS_LAST, ChunkedAttentionShape, ConvStackShape, EmaShape, TcncaLayer, chunked_attention,
                       chunked_attention_step, conv_stack, conv_stack_step, ema, ema_step)

STACK = ConvStackShape(taps=3, depth=2, dilation_base=3, act="silu", residuals="level", bias=True, skip=True)
LAST = ConvStackShape(taps=3, depth=2, dilation_base=3, order=CHANNELS_LAST)
EMA, SOFTMAX, CHUNK = EmaShape(states=3), ChunkedAttentionShape(causal=True), 8
CHANNELS, LENGTH, OFFSETS = 5, 24, np.array((0, 9, 9, 10, 22), np.int32)  # two positions belong to no sequence
POSITIONS = np.array((3, 0, 0, 5))


def stack_parameters(shape):
    return [normal(1, shape.weight_sets, shape.taps, CHANNELS, scale=0.5),
            *([normal(2, shape.weight_sets, CHANNELS), normal(3, CHANNELS)] if shape.bias else [])]


def ema_parameters():
    return [normal(i, CHANNELS, EMA.states) for i in range(1, 5)] + [normal(5, CHANNELS)]


class Packed(TestCase):
    def compare(self, packed, one, x, axes, parameters, states, rounded=()):
        """packed(x, parameters, states) against one(x, parameters, states, i), sequence by sequence; x is a list of
        arrays with these sequence axes. Results, and gradients of x and states, have the same bits, except those of x
        with the indices `rounded`. Gradients of parameters are sums over the sequences."""
        def separate(x, parameters, states):
            found = [one([jax.lax.slice_in_dim(t, a, b, axis=axis) for t, axis in zip(x, axes)], parameters,
                         jax.tree.map(lambda s: s[i:i + 1], states), i)
                     for i, (a, b) in enumerate(zip(OFFSETS, OFFSETS[1:]))]
            y = jnp.concatenate([y for y, _ in found], axes[-1])
            rest = list(y.shape)
            rest[axes[-1]] = LENGTH - OFFSETS[-1]
            return (jnp.concatenate([y, jnp.zeros(rest, y.dtype)], axes[-1]),
                    jax.tree.map(lambda *s: jnp.concatenate(s), *(s for _, s in found)))
        found, backward = jax.vjp(jax.jit(packed), x, parameters, states)
        expected, reference = jax.vjp(separate, x, parameters, states)
        self.equal(found, expected)
        cotangent = jax.tree.map(lambda t: normal(9, *t.shape), found)
        of_x, of_parameters, of_states = backward(cotangent)
        exact_x, exact_parameters, exact_states = reference(cotangent)
        for i, (a, b) in enumerate(zip(of_x, exact_x, strict=True)):
            if i in rounded:
                self.close(a, b, 1e-13)
            else:
                self.equal(a, b)
        self.close(of_parameters, exact_parameters, 1e-13)
        self.equal(of_states, exact_states)

    def test_conv_stack(self):
        for shape, axis in ((STACK, 2), (LAST, 1)):
            extents = (1, CHANNELS, LENGTH) if axis == 2 else (1, LENGTH, CHANNELS)
            remembered = shape.receptive_field - 1
            state = normal(4, 4, *((CHANNELS, remembered) if axis == 2 else (remembered, CHANNELS)))

            def packed(x, parameters, state):
                return conv_stack(*x, *parameters, shape=shape, state=state, return_state=True, offsets=OFFSETS,
                                  max_length=12, positions=POSITIONS)

            def one(x, parameters, state, i):
                return conv_stack(*x, *parameters, shape=shape, state=state, return_state=True,
                                  position=int(POSITIONS[i]))
            self.compare(packed, one, [normal(0, *extents)], [axis], stack_parameters(shape), state)

    def test_ema(self):
        def packed(x, parameters, state):
            return ema(*x, *parameters, shape=EMA, state=state, return_state=True, offsets=OFFSETS)

        def one(x, parameters, state, i):
            return ema(*x, *parameters, shape=EMA, state=state, return_state=True)
        self.compare(packed, one, [normal(0, 1, CHANNELS, LENGTH)], [2], ema_parameters(),
                     normal(6, 4, CHANNELS, EMA.states))

    def test_attention(self):
        q, k, v = (normal(i, 1, 2, LENGTH, n) for i, n in enumerate((16, 16, 24)))
        states = tuple(normal(7, 4, 2, CHUNK, n) for n in (16, 24))

        def packed(x, parameters, states):
            return chunked_attention(*x, *parameters, shape=SOFTMAX, chunk=CHUNK, state=states, return_state=True,
                                     offsets=OFFSETS, max_length=12, positions=POSITIONS)

        def one(x, parameters, states, i):
            return chunked_attention(*x, *parameters, shape=SOFTMAX, chunk=CHUNK, state=states, return_state=True,
                                     position=int(POSITIONS[i]))
        self.compare(packed, one, [q, k, v], [2, 2, 2], [normal(8, 2, 2 * CHUNK - 1)], states, rounded=(0,))

    def test_traced_tables_and_vmap(self):
        x, parameters = normal(0, 3, 1, CHANNELS, LENGTH), stack_parameters(STACK)

        def f(x, offsets):
            return conv_stack(x, *parameters, shape=STACK, offsets=offsets)
        others = jnp.array((0, 2, 20, 20, 24), jnp.int32)
        expected = jnp.stack([f(t, o) for t in x[:2] for o in (OFFSETS, others)])
        found = jnp.stack([jax.jit(f)(t, o) for t in x[:2] for o in (OFFSETS, others)])
        self.equal(found, expected)
        self.equal(jax.vmap(f, (0, None))(x, others), jnp.stack([f(t, others) for t in x]))

    def test_layer(self):
        for mixer in (ConvStackShape(taps=3, depth=2, residuals="level", skip=True), EMA):
            layer = TcncaLayer(6, 24, 16, CHUNK, mixer)
            parameters = jax.tree.map(lambda t: t + normal(3, *t.shape, scale=0.2),
                                      layer.init(jax.random.key(1), jnp.float64))
            x = normal(0, 1, LENGTH, 6)

            def packed(x, parameters, _):
                return layer(parameters, *x, offsets=OFFSETS)[:, :OFFSETS[-1]], ()

            def separate(x, parameters):
                return jnp.concatenate([layer(parameters, x[:, a:b]) for a, b in zip(OFFSETS, OFFSETS[1:])], 1)
            found, backward = jax.vjp(lambda x, p: packed([x], p, None)[0], x, parameters)
            expected, reference = jax.vjp(separate, x, parameters)
            self.close(found, expected, 1e-13)
            cotangent = normal(9, *found.shape)
            self.close(backward(cotangent), reference(cotangent), 1e-11, 1e-13)  # the gradient of mean_k is 0
        with self.assertRaisesRegex(ValueError, "give one of them"):
            layer(parameters, x, jnp.array([LENGTH]), offsets=OFFSETS)

    def test_errors(self):
        x, parameters = normal(0, 2, CHANNELS, LENGTH), stack_parameters(STACK)
        with self.assertRaisesRegex(ValueError, "the batch is 2, expected 1"):
            conv_stack(x, *parameters, shape=STACK, offsets=OFFSETS)
        with self.assertRaisesRegex(ValueError, "offsets is of type int64, expected int32"):
            conv_stack(x[:1], *parameters, shape=STACK, offsets=OFFSETS.astype(np.int64))
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "tcnca::conv_stack: offsets: "):
            jax.block_until_ready(conv_stack(x[:1], *parameters, shape=STACK, offsets=OFFSETS[::-1].copy()))


class Pools(TestCase):
    """Two sequences in rows 3 and 1 of a pool of 4, one token each a step, the second one 5 steps later."""
    SLOTS, STARTS = np.array((3, 1), np.int32), np.array((0, 5))

    def run_in_scan(self, step, x, pool):
        """step(pool, token, slots, positions) -> (pool, y); x: [batch, length, ...]."""
        def one(carry, token):
            pool, t = carry
            slots = jnp.where(t >= self.STARTS, self.SLOTS, -1).astype(jnp.int32)
            pool, y = step(pool, token, slots, jnp.maximum(t - self.STARTS, 0))
            return (pool, t + 1), y
        decode = jax.jit(lambda pool, x: jax.lax.scan(one, (pool, jnp.int32(0)), x), donate_argnums=0)
        kept = jax.tree.map(np.array, pool)
        (after, _), y = decode(pool, jax.tree.map(lambda t: jnp.moveaxis(t, 1, 0), x))
        self.assertTrue(all(t.is_deleted() for t in jax.tree.leaves(pool)))
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(kept)):
            self.equal(a[np.array((0, 2))], b[np.array((0, 2))])
        return jnp.moveaxis(y, 0, 1)

    def expect(self, found, whole, x, relative=1e-13):
        for i, start in enumerate(self.STARTS):
            self.close(found[i, start:], whole(jax.tree.map(lambda t: t[i:i + 1, start:], x))[0], relative)

    def test_conv_stack(self):
        x, parameters = normal(0, 2, LENGTH, CHANNELS), stack_parameters(STACK)
        pool = jnp.array(normal(4, 4, CHANNELS, STACK.receptive_field - 1)).at[self.SLOTS].set(0)

        def step(pool, token, slots, positions):
            y, pool = conv_stack_step(token[..., None], *parameters, shape=STACK, state=pool, slots=slots,
                                      positions=positions)
            return pool, y[..., 0]
        self.expect(self.run_in_scan(step, x, pool),
                    lambda x: conv_stack(x.swapaxes(1, 2), *parameters, shape=STACK).swapaxes(1, 2), x)

    def test_ema(self):
        x, parameters = normal(0, 2, LENGTH, CHANNELS), ema_parameters()
        pool = jnp.array(normal(4, 4, CHANNELS, EMA.states)).at[self.SLOTS].set(0)

        def step(pool, token, slots, positions):
            y, pool = ema_step(token[..., None], *parameters, shape=EMA, state=pool, slots=slots)
            return pool, y[..., 0]
        self.expect(self.run_in_scan(step, x, pool),
                    lambda x: ema(x.swapaxes(1, 2), *parameters, shape=EMA).swapaxes(1, 2), x)

    def test_attention(self):
        x = tuple(normal(i, 2, LENGTH, 2, n) for i, n in enumerate((16, 16, 24)))
        pool, bias = tuple(jnp.array(normal(7, 4, 2, CHUNK, n)) for n in (16, 24)), normal(8, 2, 2 * CHUNK - 1)

        def step(pool, token, slots, positions):
            o, pool = chunked_attention_step(*(t[:, :, None] for t in token), bias, shape=SOFTMAX, chunk=CHUNK,
                                             state=pool, slots=slots, positions=positions)
            return pool, o[:, :, 0]

        def whole(x):
            return chunked_attention(*(t.swapaxes(1, 2) for t in x), bias, shape=SOFTMAX, chunk=CHUNK).swapaxes(1, 2)
        self.expect(self.run_in_scan(step, x, pool), whole, x)

    def test_layer(self):
        layer = TcncaLayer(6, 24, 16, CHUNK, ConvStackShape(taps=3, depth=2, residuals="level", skip=True))
        parameters = jax.tree.map(lambda t: t + normal(3, *t.shape, scale=0.2),
                                  layer.init(jax.random.key(1), jnp.float64))
        x = normal(0, 2, LENGTH, 6)

        def step(pool, token, slots, positions):
            y, pool = layer.step(parameters, token[:, None], pool, slots=slots, positions=positions)
            return pool, y[:, 0]
        self.expect(self.run_in_scan(step, x, layer.initial_state(4, jnp.float64)), lambda x: layer(parameters, x), x)


if __name__ == "__main__":
    unittest.main()
