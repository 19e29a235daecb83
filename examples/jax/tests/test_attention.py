"""chunked_attention: against plain JAX and jax.nn.dot_product_attention on chunks; states, dropout, vmap, scan."""
import functools
import unittest

from support import TestCase, normal

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import reference
from tcnca_jax import ChunkedAttentionShape, chunked_attention, chunked_attention_step, rotary_bias

SOFTMAX, LAPLACE = ChunkedAttentionShape(causal=True), ChunkedAttentionShape(function="laplace")
BATCH, HEADS, LENGTH, CHUNK, KEY_DIM, VALUE_DIM = 2, 2, 24, 8, 16, 24


def inputs(dtype=jnp.float64, length=LENGTH):
    return (*(normal(i, BATCH, HEADS, length, n, dtype=dtype) for i, n in enumerate((KEY_DIM, KEY_DIM, VALUE_DIM))),
            normal(3, HEADS, 2 * CHUNK - 1, dtype=dtype))


def states():
    return tuple(normal(4 + n, BATCH, HEADS, CHUNK, n) for n in (KEY_DIM, VALUE_DIM))


def attention(q, k, v, bias, **options):
    return chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK, **options)


class ChunkedAttention(TestCase):
    def setUp(self):
        self.tensors = inputs()

    def test_softmax(self):
        def exact(q, k, v, bias):
            return reference.attention(q, k, v, bias, CHUNK, "softmax", True)
        self.gradients(attention, exact, self.tensors, 1e-12)

        def of_jax(q, k, v, bias):
            return reference.dot_product_attention(q, k, v, bias, CHUNK, True)
        self.gradients(attention, of_jax, self.tensors, 1e-6)

    def test_laplace_in_fp32(self):
        def f(q, k, v, bias):
            return chunked_attention(q, k, v, bias, shape=LAPLACE, chunk=CHUNK)

        def exact(q, k, v, bias):
            q, k, v, bias = (t.astype(jnp.float64) for t in (q, k, v, bias))
            return reference.attention(q, k, v, bias, CHUNK, "laplace", False).astype(jnp.float32)
        self.gradients(f, exact, inputs(jnp.float32), 1e-5)

    def test_bf16(self):
        q, k, v, bias = inputs(jnp.bfloat16)
        o = attention(q, k, v, bias)
        exact = (t.astype(jnp.float64) for t in (q, k, v, bias))
        self.assertEqual(o.dtype, jnp.bfloat16)
        self.close(o, reference.attention(*exact, CHUNK, "softmax", True), 2**-7)

    def test_check_grads_with_a_state(self):
        def f(q, k, v, bias, keys, values):
            return attention(q, k, v, bias, state=(keys, values), position=3, return_state=True)
        check_grads(f, (*inputs(length=7), *states()), order=1, modes=["rev"])

    def test_lengths(self):
        lengths = jnp.array([LENGTH, 10])
        o, whole = jax.jit(attention)(*self.tensors, lengths=lengths), attention(*self.tensors)
        self.equal(o[0], whole[0])
        self.equal(o[1, :, :10], whole[1, :, :10])
        self.equal(o[1, :, 16:], jnp.zeros_like(o[1, :, 16:]))  # no valid key in the chunk
        self.equal(o, attention(*self.tensors, lengths=lengths.astype(jnp.int32)))

        def loss(q):
            return (attention(q, *self.tensors[1:], lengths=lengths)**2).sum()
        self.equal(jax.grad(loss)(self.tensors[0])[1, :, 16:], jnp.zeros_like(o[1, :, 16:, :KEY_DIM]))

    def test_vmap(self):
        qs, tables = normal(7, 3, *self.tensors[0].shape), normal(8, 3, *self.tensors[3].shape)
        _, k, v, table = self.tensors
        lengths = jnp.array([LENGTH, 10])

        def over_batch(q):
            return attention(q, k, v, table, lengths=lengths)
        self.equal(jax.vmap(over_batch)(qs), jnp.stack([over_batch(q) for q in qs]))

        def gradient(q, table):
            return jax.grad(lambda b: (attention(q, k, v, b, lengths=lengths)**2).sum())(table)
        expected = jnp.stack([gradient(q, b) for q, b in zip(qs, tables)])
        self.close(jax.vmap(gradient)(qs, tables), expected, 1e-13)
        for f, arguments in ((over_batch, (qs,)), (gradient, (qs, tables))):
            self.assertNotIn("scan", str(jax.make_jaxpr(jax.vmap(f))(*arguments)))

    def test_scan_with_a_donated_state(self):
        q, k, v, bias = self.tensors

        def token(carry, row):
            state, position = carry
            o, state = chunked_attention_step(*(t[:, :, None] for t in row), bias, shape=SOFTMAX, chunk=CHUNK,
                                              state=state, position=position)
            return (state, position + 1), o[:, :, 0]
        decode = jax.jit(lambda state, rows: jax.lax.scan(token, (state, jnp.int32(0)), rows), donate_argnums=0)
        state = jax.tree.map(jnp.zeros_like, states())
        _, o = decode(state, [jnp.moveaxis(t, 2, 0) for t in (q, k, v)])
        self.assertTrue(all(t.is_deleted() for t in state))
        self.close(jnp.moveaxis(o, 0, 2), attention(*self.tensors), 1e-14)

    def test_parts_return_states(self):
        q, k, v, bias = self.tensors
        state, parts = None, []
        for first, end in ((0, 5), (5, 8), (8, 20), (20, LENGTH)):
            part = [t[:, :, first:end] for t in (q, k, v)]
            o, state = attention(*part, bias, state=state, position=first, return_state=True)
            parts.append(o)
        self.close(jnp.concatenate(parts, 2), attention(*self.tensors), 1e-14)

    def test_dropout(self):
        q, k, v, _ = self.tensors
        key = jax.random.key(11)

        def f(q, k, v, key=key):
            return chunked_attention(q, k, v, shape=SOFTMAX, chunk=CHUNK, dropout=0.5, key=key)
        self.equal(jax.jit(f)(q, k, v), f(q, k, v))
        self.assertFalse(jnp.array_equal(f(q, k, v, jax.random.key(12)), f(q, k, v)))
        check_grads(f, (q, k, v), order=1, modes=["rev"])
        qs = jnp.stack([q, q])
        self.equal(jax.vmap(lambda q: f(q, k, v))(qs), jnp.stack([f(q, k, v)] * 2))
        keys = jax.random.split(key, 2)
        self.equal(jax.vmap(lambda key: f(q, k, v, key))(keys), jnp.stack([f(q, k, v, key) for key in keys]))
        with self.assertRaisesRegex(ValueError, "tcnca::chunked_attention: dropout needs a key"):
            f(q, k, v, None)

    def test_errors(self):
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "tcnca::chunked_attention: bias: .*expected 13"):
            jax.block_until_ready(chunked_attention(*self.tensors, shape=SOFTMAX, chunk=7))
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "keys_in"):
            jax.block_until_ready(attention(*self.tensors, position=3))
        with self.assertRaisesRegex(ValueError, "tcnca::chunked_attention: v is of type float32, expected float64"):
            q, k, v, bias = self.tensors
            attention(q, k, v.astype(jnp.float32), bias)


class RotaryBias(TestCase):
    def test_values_and_gradients(self):
        tensors = tuple(normal(i, 2, 6) for i in range(2))
        expected = functools.partial(reference.rotary_bias, chunk=5)
        self.gradients(functools.partial(rotary_bias, chunk=5), expected, tensors, 1e-13)


if __name__ == "__main__":
    unittest.main()
