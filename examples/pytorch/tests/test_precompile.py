"""precompile: afterwards a layer compiles nothing."""
import contextlib
import os
import tempfile
import unittest
from unittest import mock

import torch

import reference
from support import TestCase
from tcnca_torch import (ChunkedAttentionShape, ConvStackShape, Ema, EmaShape, TcncaLayer, chunked_attention, compiler,
                         conv_stack, ema, kernels, precompile)


@contextlib.contextmanager
def nothing_compiled():
    """Libraries come from the cache on disk."""
    kernels._loaded.clear()
    with mock.patch("tcnca_torch.compiler._compile", side_effect=AssertionError("compiled")):
        yield


class Precompile(TestCase):
    def test_layer(self):
        layer = TcncaLayer(8, 16, 16, 8, ConvStackShape(taps=3, depth=2, dilation_base=3, residuals="level", skip=True),
                           bias="rotary").double()
        precompile(layer, torch.float64)
        with nothing_compiled():
            layer(torch.randn(2, 16, 8, dtype=torch.float64)).sum().backward()

    def test_autocast(self):
        layer = TcncaLayer(8, 16, 16, 8, EmaShape(states=4), bias="rotary")
        precompile(layer, torch.bfloat16)
        with nothing_compiled(), torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(layer(torch.randn(2, 16, 8)))
            self.assertEqual(y.dtype, torch.float32)  # that of the residual
            y.sum().backward()

    def test_wrong_arguments_are_reported_before_a_shape_is_compiled(self):
        shape = ConvStackShape(taps=2, depth=3)
        x, weight = torch.zeros(1, 4, 9), torch.zeros(3, 2, 5)
        q, table = torch.zeros(1, 1, 8, 16), torch.zeros(1, 14)
        with nothing_compiled():
            with self.assertRaisesRegex(ValueError, r"conv_stack: weight: an extent .*extent\[2\] is 5, expected 4\)"):
                conv_stack(x, weight, shape=shape)
            with self.assertRaisesRegex(ValueError, "conv_stack: weight is of type torch.float64"):
                conv_stack(x, weight.double(), shape=shape)
            with self.assertRaisesRegex(ValueError, r"ema: beta: an extent .*extent\[1\] is 5, expected 3\)"):
                ema(x, *(torch.zeros(4, n) for n in (3, 3, 5, 3)), shape=EmaShape(states=3, skip=False))
            with self.assertRaisesRegex(ValueError, r"attention: bias: an extent .*extent\[1\] is 14, expected 15\)"):
                chunked_attention(q, q, q, table, shape=ChunkedAttentionShape(function="relu2"), chunk=8)

    def test_levels(self):
        levels = compiler.own_levels()
        if not levels:
            self.skipTest("a processor without AVX2")
        layer = Ema(3, EmaShape(states=3, skip=False)).double()
        x = torch.randn(1, 3, 40, dtype=torch.float64)
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, TCNCA_TORCH_CACHE=folder):
            precompile(layer, torch.float64, backward=False, levels=("x86-64-v3", levels[0]))
            with nothing_compiled(), torch.no_grad():
                found = layer(x)
            source = kernels._generate(layer.passes(torch.float64, False)[0][0], layer.shape, torch.float64)
            with nothing_compiled():
                best, v3 = (compiler.build(source, "", level=level) for level in (None, "x86-64-v3"))
                self.assertEqual(best, compiler.build(source, "", level=levels[0]))
            self.assertEqual(best == v3, levels[0] == "x86-64-v3")
            with mock.patch("tcnca_torch.compiler.own_levels", return_value=levels[-1:]):
                self.assertEqual(compiler.build(source, ""), v3)  # an older processor
        tables = (t.detach() for t in (layer.delta, layer.alpha, layer.beta, layer.gamma))
        self.close(found, reference.ema(x, *tables, None, layer.shape), 1e-13)
        with self.assertRaisesRegex(ValueError, "level is 'avx9', expected one of native, x86-64-v4"):
            compiler.build("", "", level="avx9")


if __name__ == "__main__":
    unittest.main()
