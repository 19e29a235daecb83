"""ema: against a convolution by FFT, with states, layouts, types, torch.compile."""
import unittest
from unittest import mock

import torch

import reference
from support import TestCase, channels_last, leaves
from tcnca_torch import EmaShape, ema, ema_step
from tcnca_torch.operators import ema as operators

SHAPE = EmaShape(states=4)
BATCH, CHANNELS, LENGTH = 2, 3, 50


def inputs(dtype=torch.float64, parameters=torch.float64, shape=SHAPE, length=LENGTH):
    x = torch.randn(BATCH, CHANNELS, length, dtype=torch.float64)
    rows = shape.directions * CHANNELS
    tables = [torch.randn(rows, shape.states, dtype=torch.float64) for _ in range(4)]
    omega = torch.randn(CHANNELS, dtype=torch.float64)
    return leaves(x.to(dtype), *(t.to(parameters) for t in (*tables, omega)))


def state():
    return torch.randn(BATCH, CHANNELS, SHAPE.states, dtype=torch.float64)


class Ema(TestCase):
    def compare(self, shape):
        tensors = inputs(shape=shape)
        y, expected = ema(*tensors, shape=shape), reference.ema(*tensors, shape)
        self.close(y, expected, 1e-13)
        grad = torch.randn_like(y)
        for a, b in zip(torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.close(a, b, 1e-12)

    def test_causal(self):
        self.compare(SHAPE)

    def test_bidirectional(self):
        self.compare(EmaShape(states=4, dir="bidirectional"))

    def test_gradcheck_with_states(self):
        def f(*tensors):
            return ema(*tensors[:6], shape=SHAPE, state=tensors[6], return_state=True)
        self.assertTrue(torch.autograd.gradcheck(f, (*inputs(length=7), *leaves(state()))))

    def test_opcheck(self):
        tensors = inputs()
        torch.library.opcheck(torch.ops.tcnca.ema.default, (*tensors, *leaves(state()), SHAPE.source, True))
        detached = [t.detach() for t in tensors]
        torch.library.opcheck(torch.ops.tcnca.ema_step.default, (*detached, state(), SHAPE.source))
        torch.library.opcheck(torch.ops.tcnca.ema_backward.default,
                              (torch.randn_like(detached[0]), None, *detached, state(), SHAPE.source, [True] * 7))

    def test_torch_compile(self):
        def f(*tensors):
            return ema(*tensors, shape=SHAPE).sin()
        tensors = inputs()
        y, expected = self.compiled(f)(*tensors), f(*tensors)
        self.close(y, expected, 1e-14)
        for a, b in zip(torch.autograd.grad(y.sum(), tensors), torch.autograd.grad(expected.sum(), tensors)):
            self.close(a, b, 1e-14)

    def test_parts(self):
        x, *parameters = [t.detach() for t in inputs()]
        whole, last = ema(x, *parameters, shape=SHAPE, return_state=True)
        memory = torch.zeros_like(last)
        steps = [ema_step(x[:, :, first:end], *parameters, shape=SHAPE, state=memory)
                 for first, end in ((0, 1), (1, 2), (2, 30), (30, LENGTH))]
        self.equal(torch.cat(steps, 2), whole)
        self.equal(memory, last)

    def test_channels_last_and_strides(self):
        x, *parameters = inputs()
        last = leaves(channels_last(x.detach()))[0]
        y, expected = ema(last, *parameters, shape=SHAPE), ema(x, *parameters, shape=SHAPE)
        self.assertEqual(y.stride(1), 1)
        self.close(y, expected, 1e-14)
        found = torch.autograd.grad(y.sum(), (last, *parameters))
        for a, b in zip(found, torch.autograd.grad(expected.sum(), (x, *parameters))):
            self.close(a, b, 1e-13)

    def test_bf16_and_autocast(self):
        tensors = inputs(torch.float32, torch.float32)
        rounded = leaves(tensors[0].bfloat16().double(), *(t.double() for t in tensors[1:]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = ema(*tensors, shape=SHAPE)
        expected = reference.ema(*rounded, SHAPE)
        self.assertEqual(y.dtype, torch.bfloat16)
        self.close(y, expected, 2**-8)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, tensors, grad)
        for i, (a, b) in enumerate(zip(found, torch.autograd.grad(expected, rounded, grad.double()))):
            self.assertEqual(a.dtype, torch.float32)
            self.close(a, b, 2**-8 if i == 0 else 1e-4)

    def test_empty_and_errors(self):
        x, *parameters = inputs()
        y, memory = ema(x[:0], *parameters, shape=SHAPE, return_state=True)
        self.assertEqual((y.shape, memory.shape), ((0, CHANNELS, LENGTH), (0, CHANNELS, SHAPE.states)))
        for gradient in torch.autograd.grad(y.sum(), parameters):
            self.equal(gradient, torch.zeros_like(gradient))
        with self.assertRaisesRegex(ValueError, r"tcnca::ema: delta: .*extent\[1\] is 3, expected 4"):
            ema(x, parameters[0][:, :3], *parameters[1:], shape=SHAPE)


class Packed(TestCase):
    OFFSETS, SLOTS = (torch.tensor(n, dtype=torch.int32) for n in ((0, 9, 9, 10, 24), (4, -1, -1, 1)))

    def inputs(self):
        x, *parameters = inputs(length=24)
        return leaves(x[:1], *parameters)

    def pool(self, rows):
        return torch.randn(rows, CHANNELS, SHAPE.states, dtype=torch.float64)

    def one_by_one(self, x, parameters, states):
        """states: one for each sequence, None where there is none."""
        found = [ema(x[:, :, first:end], *parameters, shape=SHAPE, state=state, return_state=True)
                 for first, end, state in zip(self.OFFSETS, self.OFFSETS[1:], states)]
        y, after = zip(*found)
        return torch.cat(y, 2), torch.cat(after)

    def compare(self, outputs, expected, tensors):
        for a, b in zip(outputs, expected):
            self.equal(a, b)
        grads = [torch.randn_like(t) for t in outputs]
        found = torch.autograd.grad(outputs, tensors, grads)
        exact = torch.autograd.grad(expected, tensors, grads)
        self.equal(found[0], exact[0])
        self.equal(found[-1], exact[-1])
        for a, b in zip(found[1:-1], exact[1:-1]):
            self.close(a, b, 1e-13)

    def test_bits_of_one_call_for_each_sequence(self):
        tensors, state = self.inputs(), leaves(self.pool(4))[0]
        x, *parameters = tensors
        outputs = ema(*tensors, shape=SHAPE, state=state, offsets=self.OFFSETS, max_length=14, return_state=True)
        self.compare(outputs, self.one_by_one(x, parameters, state.split(1)), (*tensors, state))
        ends = zip(self.OFFSETS, self.OFFSETS[1:])
        parts = [ema(x[:, :, first:end], *parameters, shape=SHAPE) for first, end in ends]  # without any state
        self.equal(ema(*tensors, shape=SHAPE, offsets=self.OFFSETS), torch.cat(parts, 2))

    def test_slots(self):
        tensors, state = self.inputs(), leaves(self.pool(6))[0]
        x, *parameters = tensors
        outputs = ema(*tensors, shape=SHAPE, state=state, offsets=self.OFFSETS, slots=self.SLOTS, return_state=True)
        y, after = self.one_by_one(x, parameters, [state[4:5], None, None, state[1:2]])
        self.compare(outputs, (y, torch.cat([state[:1], after[3:], state[2:4], after[:1], state[5:]])),
                     (*tensors, state))

    def test_steps_of_a_pool(self):
        x, *parameters = [t.detach() for t in inputs(length=1)]
        memory, slots = self.pool(3), torch.tensor((2, -1), dtype=torch.int32)
        before = memory.clone()
        y = ema_step(x, *parameters, shape=SHAPE, state=memory, slots=slots)
        row = before[2:].clone()
        self.equal(y[:1], ema_step(x[:1], *parameters, shape=SHAPE, state=row))
        self.equal(y[1:], ema(x[1:], *parameters, shape=SHAPE))  # without a state
        self.equal(memory, torch.cat([before[:2], row]))

    def test_outside_of_all_sequences(self):
        x, *parameters = self.inputs()
        y = ema(x, *parameters, shape=SHAPE, offsets=torch.tensor((2, 9, 20), dtype=torch.int32))
        for t in (y, torch.autograd.grad(y.sum(), x)[0]):
            self.assertEqual(t.ne(0).any(1).flatten().tolist(), [2 <= i < 20 for i in range(24)])

    def test_opcheck(self):
        tensors, tables = self.inputs(), (self.OFFSETS, self.SLOTS, 14)
        torch.library.opcheck(torch.ops.tcnca.ema.default,
                              (*tensors, *leaves(self.pool(6)), SHAPE.source, True, *tables))
        detached = [t.detach() for t in tensors]
        torch.library.opcheck(torch.ops.tcnca.ema_step.default, (*detached, self.pool(6), SHAPE.source, *tables))
        torch.library.opcheck(torch.ops.tcnca.ema_backward.default, (
            torch.randn_like(detached[0]), None, *detached, self.pool(6), SHAPE.source, [True] * 7, *tables))

    def test_errors(self):
        x, *parameters = tensors = self.inputs()
        with self.assertRaisesRegex(ValueError, "tcnca::ema: x has a batch of 2, expected 1"):
            ema(torch.cat([x, x]), *parameters, shape=SHAPE, offsets=self.OFFSETS)
        with self.assertRaisesRegex(ValueError, "tcnca::ema: slots are rows of a state, but there is none"):
            ema(*tensors, shape=SHAPE, offsets=self.OFFSETS, slots=self.SLOTS, return_state=True)
        with self.assertRaisesRegex(ValueError, "tcnca::ema: slots: "):
            ema(*tensors, shape=SHAPE, offsets=self.OFFSETS, slots=self.SLOTS, state=self.pool(4))


class NeededGradients(TestCase):
    def test_only_those_are_computed(self):
        arguments = *inputs(), *leaves(state())
        y = ema(*arguments[:6], shape=SHAPE, state=arguments[6])
        grad = torch.randn_like(y)
        for i, expected in enumerate(torch.autograd.grad(y, arguments, grad)):
            chosen = [t.detach().requires_grad_(j == i) for j, t in enumerate(arguments)]
            y = ema(*chosen[:6], shape=SHAPE, state=chosen[6])
            with mock.patch.object(operators, "call", side_effect=operators.call) as call:
                self.close(torch.autograd.grad(y, chosen[i], grad)[0], expected, 1e-14)
            self.assertEqual([t is not None for t in call.call_args.args[4][9:16]], [j == i for j in range(7)])


if __name__ == "__main__":
    unittest.main()
