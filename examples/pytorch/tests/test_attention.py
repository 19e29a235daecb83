"""chunked_attention: against scaled_dot_product_attention on chunks, with states, types, torch.compile."""
import unittest
from unittest import mock

import torch

import reference
from support import TestCase, leaves
from tcnca_torch import ChunkedAttentionShape, chunked_attention, chunked_attention_step, rotary_bias
from tcnca_torch.operators import attention as operators

SOFTMAX = ChunkedAttentionShape(causal=True)
BATCH, HEADS, LENGTH, CHUNK, KEY_DIM, VALUE_DIM = 2, 2, 24, 8, 16, 24


def inputs(dtype=torch.float64, bias=torch.float64, length=LENGTH):
    q, k, v = (torch.randn(BATCH, HEADS, length, n, dtype=torch.float64).to(dtype)
               for n in (KEY_DIM, KEY_DIM, VALUE_DIM))
    return leaves(q, k, v, torch.randn(HEADS, 2 * CHUNK - 1, dtype=torch.float64).to(bias))


def states():
    return leaves(*(torch.randn(BATCH, HEADS, CHUNK, n, dtype=torch.float64) for n in (KEY_DIM, VALUE_DIM)))


class ChunkedAttention(TestCase):
    def compare(self, shape):
        tensors = inputs()
        o = chunked_attention(*tensors, shape=shape, chunk=CHUNK)
        expected = reference.attention(*tensors, CHUNK, shape.function, shape.causal)
        self.close(o, expected, 1e-13)
        grad = torch.randn_like(o)
        for a, b in zip(torch.autograd.grad(o, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.close(a, b, 1e-12)

    def test_softmax(self):
        self.compare(SOFTMAX)

    def test_laplace(self):
        self.compare(ChunkedAttentionShape(function="laplace"))

    def test_gradcheck_with_states(self):
        def f(q, k, v, bias, keys, values):
            o, after = chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK, state=(keys, values), position=3,
                                         return_state=True)
            return o, *after
        self.assertTrue(torch.autograd.gradcheck(f, (*inputs(length=7), *states()), fast_mode=True))

    def test_gradients_that_are_needed(self):
        tensors = *inputs(length=7), *states()

        def gradients_of(chosen):
            given = [t.detach().requires_grad_(i in chosen) for i, t in enumerate(tensors)]
            *inner, keys, values = given
            o, after = chunked_attention(*inner, shape=SOFTMAX, chunk=CHUNK, state=(keys, values), position=3,
                                         return_state=True)
            return torch.autograd.grad(o.sum() + sum(t.sin().sum() for t in after), [given[i] for i in chosen])
        every = gradients_of(range(6))
        results = "grad_q", "grad_k", "grad_v", "grad_bias", "grad_keys_in", "grad_values_in"
        for chosen in ((0,), (1,), (2,), (3,), (4,), (5,), (0, 3), (1, 2, 5)):
            with mock.patch.object(operators, "call", side_effect=operators.call) as call:
                for i, g in zip(chosen, gradients_of(chosen)):
                    self.equal(g, every[i])
            given = dict(zip((name for name, *_ in operators.BACKWARD.arguments), call.call_args.args[4]))
            # The library does not compute the absent ones.
            self.assertEqual([given[name] is not None for name in results], [i in chosen for i in range(6)])

    def test_opcheck(self):
        q, k, v, bias = inputs()
        source = ChunkedAttentionShape(causal=True, bias=True).source
        torch.library.opcheck(torch.ops.tcnca.chunked_attention.default,
                              (q, k, v, bias, None, *states(), None, source, CHUNK, 3, 0.0, 0.0, True))
        detached = [t.detach() for t in (q, k, v, bias)]
        torch.library.opcheck(torch.ops.tcnca.chunked_attention_step.default,
                              (*detached, None, *(s.detach() for s in states()), source, CHUNK, 3, 0.0))
        numbers = source, CHUNK, 3, 0.0, 0.0
        before = [s.detach() for s in states()]
        o, lse, *after = torch.ops.tcnca.chunked_attention(*detached, None, *before, None, *numbers, True)
        for needed in ([True] * 6, [False, True, False, False, True, False]):
            torch.library.opcheck(
                torch.ops.tcnca.chunked_attention_backward.default,
                (torch.randn_like(o), *map(torch.randn_like, after), *detached, None, *before, None, o, lse, *numbers,
                 needed))

    def test_torch_compile(self):
        def f(q, k, v, bias):
            return chunked_attention(2 * q, k, v, bias, shape=SOFTMAX, chunk=CHUNK).sin()
        tensors = inputs()
        o, expected = self.compiled(f)(*tensors), f(*tensors)
        self.close(o, expected, 1e-13)
        for a, b in zip(torch.autograd.grad(o.sum(), tensors), torch.autograd.grad(expected.sum(), tensors)):
            self.close(a, b, 1e-13)

    def test_parts(self):
        q, k, v, bias = [t.detach() for t in inputs()]
        whole = chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK)
        state = [torch.zeros_like(s) for s in states()]
        steps = []
        for first, end in ((0, 1), (1, 7), (7, 8), (8, 20), (20, LENGTH)):
            part = [t[:, :, first:end] for t in (q, k, v)]
            steps.append(chunked_attention_step(*part, bias, shape=SOFTMAX, chunk=CHUNK, state=state, position=first))
        self.close(torch.cat(steps, 2), whole, 1e-14)

    def test_lengths(self):
        q, k, v, bias = inputs()
        lengths = torch.tensor([LENGTH, 10])
        o = chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK, lengths=lengths)
        whole = chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK)
        self.equal(o[0], whole[0])
        self.equal(o[1, :, :10], whole[1, :, :10])
        self.equal(o[1, :, 16:], torch.zeros_like(o[1, :, 16:]))  # no valid key in the chunk

    def test_views(self):
        q, k, v, bias = inputs()
        merged = [t.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for t in (q, k, v)]
        o = chunked_attention(*merged, bias, shape=SOFTMAX, chunk=CHUNK)
        expected = chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK)
        self.assertEqual(o.stride(), merged[2].stride())
        self.equal(o, expected)
        found = torch.autograd.grad(o.sum(), (*merged, bias))  # the gradient of a sum has strides of 0
        for a, b in zip(found, torch.autograd.grad(expected.sum(), (q, k, v, bias))):
            self.close(a, b, 1e-14)

    def test_bf16_against_sdpa(self):
        tensors = inputs(torch.bfloat16, torch.float32)
        exact = leaves(*(t.double() for t in tensors))
        o = chunked_attention(*tensors, shape=SOFTMAX, chunk=CHUNK)
        expected = reference.attention(*exact, CHUNK, "softmax", True)
        self.assertEqual(o.dtype, torch.bfloat16)
        self.close(o, expected, 2**-7)
        grad = torch.randn_like(o)
        for a, b in zip(torch.autograd.grad(o, tensors, grad), torch.autograd.grad(expected, exact, grad.double())):
            self.close(a, b, 2**-6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            self.equal(chunked_attention(*(t.float() for t in tensors), shape=SOFTMAX, chunk=CHUNK), o)

    def test_dropout(self):
        q, k, v, bias = inputs()
        seed = torch.tensor(11)

        def f(q, k, v):
            return chunked_attention(q, k, v, shape=SOFTMAX, chunk=CHUNK, dropout=0.5, seed=seed)
        self.equal(f(q, k, v), f(q, k, v))
        self.assertTrue(torch.autograd.gradcheck(f, (q, k, v), fast_mode=True))

    def test_empty_and_errors(self):
        q, k, v, bias = inputs()
        o = chunked_attention(q[:0], k[:0], v[:0], bias, shape=SOFTMAX, chunk=CHUNK)
        self.assertEqual(o.shape, (0, HEADS, LENGTH, VALUE_DIM))
        self.equal(torch.autograd.grad(o.sum(), bias)[0], torch.zeros_like(bias))
        with self.assertRaisesRegex(ValueError, r"tcnca::chunked_attention: bias: .*expected 13"):
            chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=7)
        narrow = q[..., :15]
        for name, value, options in (("scale is inf", "scale", {"scale": float("inf")}),
                                     ("dropout is 2.0", "dropout", {"dropout": 2.0}),
                                     ("position is -1", "position", {"position": -1})):
            with self.assertRaisesRegex(ValueError, rf"{value}: .*\({name}\)"):
                chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK, **options)
        with self.assertRaisesRegex(ValueError, r"chunk: .*\(chunk is 0\)"):
            chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=0)
        with self.assertRaisesRegex(ValueError, r"q: .*\(the extents of q are \(2, 2, 24, 15\)\)"):
            chunked_attention(narrow, narrow, v, bias, shape=SOFTMAX, chunk=CHUNK)
        with self.assertRaisesRegex(ValueError, "keys_in"):
            chunked_attention(q, k, v, bias, shape=SOFTMAX, chunk=CHUNK, position=3)


class Options(TestCase):
    def compare(self, found, expected, tensors):
        self.close(found, expected, 1e-13)
        grad = torch.randn_like(found)
        for a, b in zip(torch.autograd.grad(found, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.close(a, b, 1e-12)

    def test_alibi_and_window_are_biases(self):
        q, k, v, _ = inputs()
        slopes, window = torch.rand(BATCH, HEADS, dtype=torch.float64), 3
        o = chunked_attention(q, k, v, shape=SOFTMAX, chunk=CHUNK, alibi_slopes=slopes, window=window)
        distance = torch.arange(2 * CHUNK - 1, dtype=torch.float64) - (CHUNK - 1)
        tables = -slopes[..., None] * distance.abs()
        tables[..., distance <= -window] = -float("inf")
        expected = torch.cat([chunked_attention(q[b:b + 1], k[b:b + 1], v[b:b + 1], tables[b], shape=SOFTMAX,
                                                chunk=CHUNK) for b in range(BATCH)])
        self.compare(o, expected, (q, k, v))

    def test_heads_that_share_keys_and_head_lengths(self):
        q, k, v, _ = inputs()
        k, v = leaves(k[:, :1], v[:, :1])
        lengths = torch.tensor(((LENGTH, 11), (5, LENGTH)))
        o = chunked_attention(q, k, v, shape=SOFTMAX, chunk=CHUNK, head_lengths=lengths)
        keys, values = (t.expand(-1, HEADS, -1, -1) for t in (k, v))
        valid = torch.arange(LENGTH) < lengths[..., None]
        expected = chunked_attention(q, keys, values, shape=SOFTMAX, chunk=CHUNK) * valid[..., None]
        self.compare(o, expected, (q, k, v))

    def test_errors(self):
        q, k, v, _ = inputs()
        with self.assertRaisesRegex(ValueError, "a window needs a causal shape$"):
            chunked_attention(q, k, v, shape=ChunkedAttentionShape(), chunk=CHUNK, window=3)
        with self.assertRaisesRegex(ValueError, "q has 2 heads, which is no multiple of the 4 heads of k"):
            chunked_attention(q, torch.cat([k, k], 1), v, shape=SOFTMAX, chunk=CHUNK)
        with self.assertRaisesRegex(ValueError, r"alibi_slopes: .*extent\[1\] is 3, expected 2"):
            chunked_attention(q, k, v, shape=SOFTMAX, chunk=CHUNK, alibi_slopes=torch.zeros(2, 3).double())


class Packed(TestCase):
    OFFSETS = torch.tensor((0, 9, 9, 10, 24), dtype=torch.int32)

    def one_by_one(self, q, k, v, bias, states, positions):
        found = [chunked_attention(*(t[:, :, first:end] for t in (q, k, v)), bias, shape=SOFTMAX, chunk=CHUNK,
                                   state=state, position=int(p), return_state=True)
                 for first, end, state, p in zip(self.OFFSETS, self.OFFSETS[1:], states, positions)]
        return torch.cat([o for o, _ in found], 2), [state for _, state in found]

    def test_bits_of_one_call_for_each_sequence(self):
        tensors = leaves(*(t[:1] for t in inputs()[:3]), inputs()[3])
        o = chunked_attention(*tensors, shape=SOFTMAX, chunk=CHUNK, offsets=self.OFFSETS, max_length=14)
        expected = self.one_by_one(*tensors, [None] * 4, [0] * 4)[0]
        self.equal(o, expected)
        grad = torch.randn_like(o)
        found, exact = torch.autograd.grad(o, tensors, grad), torch.autograd.grad(expected, tensors, grad)
        self.equal(found[1], exact[1])
        self.equal(found[2], exact[2])
        for a, b in zip(found, exact):
            self.close(a, b, 1e-13)

    def test_slots_of_a_pool(self):
        tensors = leaves(*(t[:1] for t in inputs()[:3]), inputs()[3])
        pool = leaves(*(torch.randn(6, HEADS, CHUNK, n, dtype=torch.float64) for n in (KEY_DIM, VALUE_DIM)))
        slots, positions = torch.tensor((4, -1, -1, 1), dtype=torch.int32), torch.tensor((3, 0, 0, 5))
        tables = {"offsets": self.OFFSETS, "slots": slots, "positions": positions}
        o, after = chunked_attention(*tensors, shape=SOFTMAX, chunk=CHUNK, state=tuple(pool), return_state=True,
                                     **tables)
        rows = [None if s < 0 else tuple(t[s:s + 1] for t in pool) for s in slots]
        expected, _ = self.one_by_one(*tensors, rows, positions)
        self.equal(o, expected)
        grads = torch.randn_like(o)
        found = torch.autograd.grad(o, (*tensors, *pool), grads, retain_graph=True)
        for a, b in zip(found, torch.autograd.grad(expected, (*tensors, *pool), grads)):
            self.close(a, b, 1e-13)
        others = [0, 2, 3, 5]
        for a, b in zip(after, pool):
            self.equal(a[others], b[others])
            gradient, = torch.autograd.grad(a.sum(), b, retain_graph=True)
            self.equal(gradient[others], torch.ones_like(gradient[others]))
        with torch.no_grad():
            memory = [t.clone() for t in pool]
            step = chunked_attention_step(*tensors, shape=SOFTMAX, chunk=CHUNK, state=memory, **tables)
        self.equal(step, o)
        for a, b in zip(memory, after):
            self.equal(a, b)

    def test_opcheck(self):
        tensors = leaves(*(t[:1] for t in inputs()[:3]), inputs()[3])
        torch.library.opcheck(torch.ops.tcnca.chunked_attention.default,
                              (*tensors, None, None, None, None, SOFTMAX.source, CHUNK, 0, 0.0, 0.0, False, None, 0,
                               None, self.OFFSETS))


class RotaryBias(TestCase):
    def test_values_and_gradients(self):
        tensors = leaves(*(torch.randn(2, 6, dtype=torch.float64) for _ in range(2)))
        table = rotary_bias(*tensors, 5)
        self.close(table, reference.rotary_bias(*tensors, 5), 1e-14)
        self.assertTrue(torch.autograd.gradcheck(lambda a, b: rotary_bias(a, b, 5), tensors))
        torch.library.opcheck(torch.ops.tcnca.rotary_bias.default, (*tensors, 5))


if __name__ == "__main__":
    unittest.main()
