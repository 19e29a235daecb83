"""mix, reset and update: against plain PyTorch."""
import unittest
from unittest import mock

import torch
import torch.nn.functional as F

from support import TestCase, leaves
from tcnca_torch import mix, reset, update
from tcnca_torch.operators import gates

ROWS = (2, 7)


def numbers(*extents, dtype=torch.float64):
    return torch.randn(*extents, dtype=torch.float64).to(dtype)


class Gates(TestCase):
    def compare(self, tensors, results, expected):
        grads = [torch.randn_like(e) for e in expected]
        for a, b in zip(results, expected):
            self.close(a, b, 1e-14)
        for a, b in zip(torch.autograd.grad(results, tensors, grads), torch.autograd.grad(expected, tensors, grads)):
            self.close(a, b, 1e-13)

    def test_mix_of_a_slice(self):
        product = numbers(*ROWS, 20)
        tensors = leaves(product, *(numbers(8) for _ in range(4)))
        z, (gq, mq, gk, mk) = tensors[0][..., 5:13], tensors[1:]
        self.compare(tensors, mix(z, gq, mq, gk, mk), (F.silu(z) * gq + mq, F.silu(z) * gk + mk))

    def test_reset(self):
        tensors = o, r = leaves(numbers(*ROWS, 6), numbers(*ROWS, 6))
        self.compare(tensors, [reset(o, r)], [o * F.silu(r)])

    def test_update(self):
        h, x, u, hx = leaves(*(numbers(*ROWS, 6) for _ in range(4)))
        self.compare((h, x, u, hx), [update(h, x, u, hx)], [x + torch.sigmoid(u) * (F.silu(hx + h) - x)])
        self.compare((h, x), [update(h, x)], [x + F.silu(h)])

    def test_dropout_of_update(self):
        h, x = leaves(numbers(40, 50, 8), numbers(40, 50, 8))
        seed = torch.tensor(5)
        y = update(h, x, dropout=0.25, seed=seed)
        self.equal(y, update(h, x, dropout=0.25, seed=seed))
        self.assertFalse(torch.equal(y, update(h, x, dropout=0.25, seed=torch.tensor(6))))
        kept = (y - x).abs() > 0
        self.assertLess(abs(kept.double().mean().item() - 0.75), 6 * (0.25 * 0.75 / h.numel()) ** 0.5)
        self.compare((h, x), [y], [x + kept * F.silu(h) / 0.75])
        torch.manual_seed(3)
        first = update(h, x, dropout=0.25)
        torch.manual_seed(3)
        self.equal(update(h, x, dropout=0.25), first)

    def test_seed_and_offset_in_memory(self):
        tensors = leaves(*(numbers(*ROWS, 6) for _ in range(4)))
        in_memory = torch.tensor([11, 0])
        y, expected = (update(*tensors, dropout=0.5, seed=s) for s in (in_memory, torch.tensor(11)))
        self.equal(y, expected)
        grad = torch.randn_like(y)
        for a, b in zip(torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.equal(a, b)
        shifted = update(*tensors, dropout=0.5, seed=torch.tensor([11, 5]))
        self.assertFalse(torch.equal(shifted, expected))
        self.equal(update(*tensors, seed=in_memory), update(*tensors))
        with self.assertRaisesRegex(ValueError, "random_state is of type torch.int32, expected torch.int64"):
            update(*tensors, dropout=0.5, seed=in_memory.int())

    def test_only_the_needed_gradients_are_computed(self):
        rows, columns = [numbers(*ROWS, 6) for _ in range(4)], [numbers(6) for _ in range(4)]
        for function, arguments in ((mix, (rows[0], *columns)), (reset, rows[:2]), (update, rows), (update, rows[:2])):
            def gradients(*needed):
                chosen = [t.clone().requires_grad_(i in needed) for i, t in enumerate(arguments)]
                y = function(*chosen)
                y = y[0] + 2 * y[1] if isinstance(y, tuple) else y
                with mock.patch.object(gates, "call", side_effect=gates.call) as call:
                    found = torch.autograd.grad(y.square().sum(), [chosen[i] for i in needed])
                p, _, _, _, tensors = call.call_args.args
                results = {n for (n, *_), t in zip(p.arguments, tensors) if n.startswith("grad_") and t is not None}
                self.assertEqual(len(results - {"grad_y", "grad_q", "grad_k"}), len(needed))
                return found
            everything = gradients(*range(len(arguments)))
            for i, expected in enumerate(everything):
                self.close(gradients(i)[0], expected, 1e-14)

    def test_gradcheck(self):
        self.assertTrue(torch.autograd.gradcheck(mix, leaves(numbers(*ROWS, 3), *(numbers(3) for _ in range(4)))))
        self.assertTrue(torch.autograd.gradcheck(reset, leaves(numbers(*ROWS, 3), numbers(*ROWS, 3))))
        self.assertTrue(torch.autograd.gradcheck(update, leaves(*(numbers(*ROWS, 3) for _ in range(4)))))

    def test_opcheck(self):
        operators = torch.ops.tcnca
        a, b, c, d = leaves(*(numbers(*ROWS, 6) for _ in range(4)))
        torch.library.opcheck(operators.mix.default, (a, *leaves(*(numbers(6) for _ in range(4)))))
        torch.library.opcheck(operators.reset.default, (a, b))
        torch.library.opcheck(operators.update.default, (a, b, c, d, None, 0.0))
        torch.library.opcheck(operators.update.default, (a, b, None, None, torch.tensor(1), 0.5))

    def test_torch_compile(self):
        def f(z, gq, mq, gk, mk, x):
            q, k = mix(z, gq, mq, gk, mk)
            return update(reset(q, k), x, q, k, dropout=0.5, seed=torch.tensor(7))
        tensors = leaves(numbers(*ROWS, 6), *(numbers(6) for _ in range(4)), numbers(*ROWS, 6))
        y, expected = self.compiled(f)(*tensors), f(*tensors)
        self.close(y, expected, 1e-14)
        for a, b in zip(torch.autograd.grad(y.sum(), tensors), torch.autograd.grad(expected.sum(), tensors)):
            self.close(a, b, 1e-13)

    def test_types(self):
        h, x = numbers(*ROWS, 6, dtype=torch.bfloat16), numbers(*ROWS, 6, dtype=torch.float32)
        self.equal(update(h, x), update(h.float(), x))  # the wider type
        z, parameters = numbers(*ROWS, 6, dtype=torch.float32), [numbers(6, dtype=torch.float32) for _ in range(4)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            q, _ = mix(z, *parameters)
        self.assertEqual(q.dtype, torch.bfloat16)
        self.close(q, F.silu(z.bfloat16().double()) * parameters[0] + parameters[1], 2**-8)

    def test_empty_and_errors(self):
        empty = numbers(0, 7, 6)
        self.assertEqual(update(empty, empty).shape, empty.shape)
        with self.assertRaisesRegex(ValueError, r"tcnca::gated_fusion: r: .*extent\[2\] is 5, expected 6"):
            reset(numbers(*ROWS, 6), numbers(*ROWS, 5))
        with self.assertRaisesRegex(ValueError, "dropout: a number is outside of the range"):
            update(numbers(*ROWS, 6), numbers(*ROWS, 6), dropout=1.0)


if __name__ == "__main__":
    unittest.main()
