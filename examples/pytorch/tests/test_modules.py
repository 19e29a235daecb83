"""The modules: against plain PyTorch, step by step, compiled, and trained."""
import unittest
from unittest import mock

import torch
from torch import nn
import torch.nn.functional as F

import reference
from support import TestCase
from tcnca_torch import (ConvStackShape, EmaShape, GatedFusionShape, MegaLayer, TcncaLayer,
                         conv_stack_from_conv1d)

STACK = ConvStackShape(taps=3, depth=2, dilation_base=3, residuals="level", skip=True)
CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, LENGTH = 6, 24, 16, 8, 24


def make_layer(mixer=STACK, **options):
    layer = TcncaLayer(CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, mixer, **options).double()
    with torch.no_grad():  # initial values are close to a trivial layer
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def plain(layer, x):
    """The layer in plain PyTorch."""
    normed = layer.norm(x) if layer.pre_norm else x
    m = layer.mixer
    if isinstance(m.shape, EmaShape):
        mixed = reference.ema(normed.transpose(1, 2), m.delta, m.alpha, m.beta, m.gamma, m.omega, m.shape)
    else:
        mixed = reference.conv_stack(normed.transpose(1, 2), m.weight, m.bias, m.omega, m.shape)
    v = F.silu(layer.values(normed))
    u, z, r, hx = layer.product(mixed.transpose(1, 2)).split(layer.columns, -1)
    q, k = F.silu(z) * layer.gain_q + layer.mean_q, F.silu(z) * layer.gain_k + layer.mean_k
    a = layer.attention
    table = a.table if a.a is None else reference.rotary_bias(a.a, a.b, CHUNK)
    o = reference.attention(q[:, None], k[:, None], v[:, None], table, CHUNK, a.shape.function, a.shape.causal)[:, 0]
    h = layer.candidate(o * F.silu(r) if layer.gates.reset_gate else o)
    h = F.silu(hx + h if layer.gates.mixer_path else h)
    y = x + torch.sigmoid(u) * (h - x) if layer.gates.update_gate else x + h
    return y if layer.pre_norm else layer.norm(y)


def linear_by_rows(x, weight, bias=None, linear=F.linear):
    """F.linear with bits that do not depend on the number of rows. BLAS chooses the order of its sums by it."""
    if x.numel() == 0:
        return linear(x, weight, bias)
    return torch.stack([linear(row, weight, bias) for row in x.flatten(0, -2)]).unflatten(0, x.shape[:-1])


class Layer(TestCase):
    def compare(self, layer):
        x = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64, requires_grad=True)
        y, expected = layer(x), plain(layer, x)
        self.close(y, expected, 1e-13)
        grad, tensors = torch.randn_like(y), (x, *layer.parameters())
        for a, b in zip(torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.close(a, b, 1e-12, 1e-13)  # that of mean_k is 0

    def test_tcnca(self):
        self.compare(make_layer())

    def test_mega(self):
        mixer = EmaShape(states=4, dir="bidirectional")
        self.compare(make_layer(mixer, causal=False, function="laplace", bias="rotary", pre_norm=False))

    def test_without_gates(self):
        self.compare(make_layer(gates=GatedFusionShape(update_gate=False, reset_gate=False, mixer_path=False)))

    def test_steps(self):
        layer = make_layer()
        x = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64)
        with torch.no_grad():
            whole, state = layer(x), layer.initial_state(2)
            parts = (0, 1), (1, 2), (2, 13), (13, LENGTH)
            steps = [layer.step(x[:, first:end], state, first) for first, end in parts]
        self.close(torch.cat(steps, 1), whole, 1e-13)

    def test_torch_compile(self):
        layer = make_layer()
        x = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64)
        y, expected = self.compiled(layer)(x), layer(x)
        self.close(y, expected, 1e-13)
        grads = zip(*(torch.autograd.grad(r.sum(), tuple(layer.parameters())) for r in (y, expected)))
        for a, b in grads:
            self.close(a, b, 1e-12, 1e-13)  # that of mean_k is 0

    def test_lengths(self):
        layer = make_layer()
        x = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64)
        x[1, 10:] = float("inf")
        y = layer(x, torch.tensor([LENGTH, 10]))
        self.close(y[1, :10], layer(x[1:, :10])[0], 1e-13)

    def test_packed(self):
        offsets = torch.tensor((0, 9, 9, 10, LENGTH), dtype=torch.int32)
        for mixer in (STACK, EmaShape(states=4)):
            layer = make_layer(mixer)
            x = torch.randn(1, LENGTH, CHANNELS, dtype=torch.float64, requires_grad=True)
            y = layer(x, offsets=offsets, max_length=14)
            expected = torch.cat([layer(x[:, first:end]) for first, end in zip(offsets, offsets[1:])], 1)
            self.close(y, expected, 1e-13)
            grad, tensors = torch.randn_like(y), (x, *layer.parameters())
            for a, b in zip(torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
                self.close(a, b, 1e-12, 1e-13)  # that of mean_k is 0
        with self.assertRaisesRegex(ValueError, "give one of them"):
            layer(x, torch.tensor([LENGTH]), offsets)

    @mock.patch.object(F, "linear", linear_by_rows)
    def test_bits_of_packed_sequences(self):
        offsets, x = torch.tensor((0, 9, 9, 10, LENGTH), dtype=torch.int32), torch.randn(1, LENGTH, CHANNELS).double()
        layers = {"stack": make_layer(STACK), "ema": make_layer(EmaShape(states=4)),
                  "mega": MegaLayer(CHANNELS, VALUE_DIM, KEY_DIM, CHUNK, 4, causal=False, function="laplace",
                                    bias="rotary", pre_norm=False).double()}
        for name, layer in layers.items():
            with self.subTest(name):
                with torch.no_grad():  # no gradient through q: packed attention may give that of q other bits
                    layer.gain_q.zero_()
                    layer.mean_q.normal_()
                x = x.detach().requires_grad_()
                y = layer(x, offsets=offsets)
                expected = torch.cat([layer(x[:, first:end]) for first, end in zip(offsets, offsets[1:])], 1)
                self.equal(y, expected)
                grad, tensors = torch.randn_like(y), (x, *layer.parameters())
                found, exact = (torch.autograd.grad(r, tensors, grad) for r in (y, expected))
                self.equal(found[0], exact[0])
                for a, b in zip(found[1:], exact[1:]):
                    self.close(a, b, 1e-12, 1e-13)  # sums over positions in another order; that of mean_k is 0

    def test_steps_with_slots_of_a_pool(self):
        for mixer in (STACK, EmaShape(states=4)):
            layer = make_layer(mixer)
            x, slots = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64), torch.tensor((3, 1), dtype=torch.int32)
            starts = torch.tensor((0, 5))  # the second sequence begins later
            with torch.no_grad():
                pool, found = layer.initial_state(4), [[], []]
                for t in range(LENGTH):
                    active = [i for i in range(2) if starts[i] <= t]
                    y = layer.step(x[active, t:t + 1], pool, slots=slots[active], positions=t - starts[active])
                    for i, row in zip(active, y):
                        found[i].append(row)
                for i in range(2):
                    self.close(torch.cat(found[i]), layer(x[i:i + 1, starts[i]:])[0], 1e-13)

    def test_dropout(self):
        layer = make_layer(dropout=0.5)
        x = torch.randn(2, LENGTH, CHANNELS, dtype=torch.float64)
        torch.manual_seed(2)
        y = layer(x)
        torch.manual_seed(2)
        self.equal(layer(x), y)
        self.assertFalse(torch.equal(layer(x), y))
        layer.eval()
        self.close(layer(x), plain(layer, x), 1e-13)

    def test_errors(self):
        with self.assertRaisesRegex(ValueError, "the mixer is causal, but the attention is not causal"):
            make_layer(causal=False)


class FromConv1d(TestCase):
    def test_causal(self):
        convolutions = [nn.Conv1d(4, 4, 3, dilation=d, groups=4, padding=2 * d) for d in (1, 3, 2)]
        stack = conv_stack_from_conv1d(convolutions, act="relu")
        x = torch.randn(2, 4, 30)
        expected = x
        for c in convolutions:
            expected = F.relu(c(expected)[..., :30])
        self.close(stack(x), expected, 1e-6)

    def test_symmetric(self):
        convolutions = [nn.Conv1d(4, 4, 3, dilation=d, groups=4, padding="same", bias=False).double() for d in (1, 2)]
        x = torch.randn(2, 4, 30, dtype=torch.float64)
        stack = conv_stack_from_conv1d(convolutions, dir="symmetric")
        self.close(stack(x), nn.Sequential(*convolutions)(x), 1e-14)

    def test_errors(self):
        with self.assertRaisesRegex(ValueError, "is not a depthwise convolution of 4 channels and 3 taps"):
            conv_stack_from_conv1d([nn.Conv1d(4, 4, 3)])


if __name__ == "__main__":
    unittest.main()
