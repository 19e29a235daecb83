"""conv_stack with packed sequences, slots and positions, against one call for each sequence; gradients that are not
needed; weights in the type of sums."""
import unittest
from unittest import mock

import torch

from support import TestCase, channels_last, leaves
from tcnca_torch import ConvStack, ConvStackShape, conv_stack, conv_stack_step
from tcnca_torch.operators import conv_stack as operators

SHAPE = ConvStackShape(taps=3, depth=2, act="tanh", residuals="level", bias=True, skip=True)
CHANNELS, MEMORY = 5, SHAPE.receptive_field - 1
LENGTHS = (9, 0, 1, 14)
TOTAL = sum(LENGTHS)
OFFSETS = torch.tensor((0, *torch.tensor(LENGTHS).cumsum(0)), dtype=torch.int32)
POSITIONS = torch.tensor((3, 0, 5, 11))


def inputs(batch=1, length=TOTAL, dtype=torch.float64):
    x = torch.randn(batch, CHANNELS, length, dtype=torch.float64).to(dtype)
    weight = torch.randn(SHAPE.weight_sets, SHAPE.taps, CHANNELS, dtype=torch.float64) / 2
    return leaves(x, weight, torch.randn(SHAPE.weight_sets, CHANNELS, dtype=torch.float64),
                  torch.randn(CHANNELS, dtype=torch.float64))


def pool(rows):
    return torch.randn(rows, CHANNELS, MEMORY, dtype=torch.float64)


def part(x, s):
    return x[:, :, OFFSETS[s]:OFFSETS[s + 1]]


class Packed(TestCase):
    def one_by_one(self, x, parameters, state=None, positions=(0, 0, 0, 0)):
        found = [conv_stack(part(x, s), *parameters, shape=SHAPE, state=None if state is None else state[s:s + 1],
                            position=int(positions[s]), return_state=True) for s in range(len(LENGTHS))]
        y, states = zip(*found)
        return torch.cat(y, 2), torch.cat(states)

    def test_bits_of_one_call_for_each_sequence(self):
        for layout in (lambda t: t, channels_last):
            x, *parameters = [t.detach() for t in inputs()]
            x, state = layout(x), layout(pool(len(LENGTHS)))
            y, after = conv_stack(x, *parameters, shape=SHAPE, state=state, offsets=OFFSETS, max_length=14,
                                  positions=POSITIONS, return_state=True)
            expected, expected_after = self.one_by_one(x, parameters, state, POSITIONS)
            self.equal(y, expected)
            self.equal(after, expected_after)
            self.equal(conv_stack(x, *parameters, shape=SHAPE, offsets=OFFSETS), self.one_by_one(x, parameters)[0])

    def test_gradients(self):
        tensors, state = inputs(), leaves(pool(len(LENGTHS)))[0]
        x, *parameters = tensors
        outputs = conv_stack(*tensors, shape=SHAPE, state=state, offsets=OFFSETS, positions=POSITIONS,
                             return_state=True)
        expected = self.one_by_one(x, parameters, state, POSITIONS)
        grads = [torch.randn_like(t) for t in outputs]
        found = torch.autograd.grad(outputs, (*tensors, state), grads)
        exact = torch.autograd.grad(expected, (*tensors, state), grads)
        self.equal(found[0], exact[0])
        self.equal(found[4], exact[4])
        for a, b in zip(found[1:4], exact[1:4]):
            self.close(a, b, 1e-14)

    def test_positions_outside_of_all_sequences(self):
        x, *parameters = inputs()
        offsets = torch.tensor((2, 9, 20), dtype=torch.int32)
        y = conv_stack(x, *parameters, shape=SHAPE, offsets=offsets)
        gradient = torch.autograd.grad(y.sum(), x)[0]
        for t in (y, gradient):
            self.equal(t[:, :, :2], torch.zeros_like(t[:, :, :2]))
            self.equal(t[:, :, 20:], torch.zeros_like(t[:, :, 20:]))
            self.assertTrue(t[:, :, 2:20].ne(0).all())

    def test_slots(self):
        x, *parameters = tensors = inputs()
        state, slots = leaves(pool(6))[0], torch.tensor((4, -1, -1, 1), dtype=torch.int32)
        y, after = conv_stack(*tensors, shape=SHAPE, state=state, offsets=OFFSETS, slots=slots, positions=POSITIONS,
                              return_state=True)
        rows = torch.cat([torch.zeros(1, CHANNELS, MEMORY) if s < 0 else state[s:s + 1] for s in slots])
        expected, states = self.one_by_one(x, parameters, rows, POSITIONS)
        expected_after = torch.cat([state[:1], states[3:], state[2:4], states[:1], state[5:]])
        self.equal(y, expected)
        self.equal(after, expected_after)
        grads = torch.randn_like(y), torch.randn_like(after)
        found = torch.autograd.grad((y, after), (*tensors, state), grads)
        exact = torch.autograd.grad((expected, expected_after), (*tensors, state), grads)
        for a, b in zip(found, exact):
            self.close(a, b, 1e-14)
        only_y = conv_stack(*tensors, shape=SHAPE, state=state, offsets=OFFSETS, slots=slots, positions=POSITIONS)
        self.equal(torch.autograd.grad(only_y.sum(), state)[0][0], torch.zeros(CHANNELS, MEMORY, dtype=torch.float64))

    def test_steps_of_a_pool(self):
        x, *parameters = [t.detach() for t in inputs(batch=3, length=1)]
        slots, positions = torch.tensor((5, -1, 2), dtype=torch.int32), torch.tensor((7, 0, 12))
        memory = pool(6)
        before = memory.clone()
        y = conv_stack_step(x, *parameters, shape=SHAPE, state=memory, slots=slots, positions=positions)
        for b, slot in enumerate(slots):
            row = before[slot:slot + 1].clone() if slot >= 0 else torch.zeros(1, CHANNELS, MEMORY).double()
            self.equal(y[b:b + 1], conv_stack_step(x[b:b + 1], *parameters, shape=SHAPE, state=row,
                                                   position=int(positions[b])))
            if slot >= 0:
                self.equal(memory[slot:slot + 1], row)
        others = [0, 1, 3, 4]
        self.equal(memory[others], before[others])

    def test_packed_prompts_fill_a_pool(self):
        x, *parameters = [t.detach() for t in inputs()]
        memory, slots = torch.zeros(6, CHANNELS, MEMORY).double(), torch.tensor((3, 0, 1, 5), dtype=torch.int32)
        y = conv_stack_step(x, *parameters, shape=SHAPE, state=memory, offsets=OFFSETS, slots=slots)
        expected, states = self.one_by_one(x, parameters)
        self.equal(y, expected)
        self.equal(memory[slots.long()], states)

    def test_opcheck(self):
        tensors, tables = inputs(), (OFFSETS, torch.tensor((4, -1, 0, 1), dtype=torch.int32), POSITIONS, 14)
        torch.library.opcheck(torch.ops.tcnca.conv_stack.default,
                              (*tensors, *leaves(pool(6)), SHAPE.source, 0, True, *tables))
        detached = [t.detach() for t in tensors]
        torch.library.opcheck(torch.ops.tcnca.conv_stack_step.default, (*detached, pool(6), SHAPE.source, 0, *tables))
        torch.library.opcheck(
            torch.ops.tcnca.conv_stack_backward.default,
            (torch.randn_like(detached[0]), None, *detached, pool(6), SHAPE.source, 0, [True] * 5, *tables))

    def test_torch_compile(self):
        def f(x, weight, bias, omega, offsets):
            return conv_stack(2 * x, weight, bias, omega, shape=SHAPE, offsets=offsets, max_length=14).sin()
        tensors = inputs()
        y, expected = self.compiled(f)(*tensors, OFFSETS), f(*tensors, OFFSETS)
        self.close(y, expected, 1e-14)
        for a, b in zip(torch.autograd.grad(y.sum(), tensors), torch.autograd.grad(expected.sum(), tensors)):
            self.close(a, b, 1e-14)

    def test_modules(self):
        stack, x = ConvStack(CHANNELS, SHAPE).double(), inputs()[0].detach()
        parameters = stack.weight, stack.bias, stack.omega
        with torch.no_grad():
            self.equal(stack(x, offsets=OFFSETS), conv_stack(x, *parameters, shape=SHAPE, offsets=OFFSETS))
            memory = stack.initial_state(4)
            stack.step(x, memory, offsets=OFFSETS)
            self.close(memory, self.one_by_one(x, parameters)[1], 1e-14)

    def test_errors(self):
        x, *parameters = tensors = [t.detach() for t in inputs()]
        slots, unsorted = torch.zeros(4, dtype=torch.int32), OFFSETS.flip(0)
        cases = {
            "x has a batch of 2, expected 1": dict(x=torch.cat([x, x]), offsets=OFFSETS),
            "max_length is 3, but there are no offsets": dict(max_length=3),
            "offsets is of type torch.int64, expected torch.int32": dict(offsets=OFFSETS.long()),
            r"the extents of offsets are \(0,\)": dict(offsets=OFFSETS[:0]),
            "slots are rows of a state, but there is none": dict(slots=slots[:1], return_state=True),
            r"slots: an extent .*extent\[0\] is 3, expected 4": dict(offsets=OFFSETS, slots=slots[:3], state=pool(2)),
            r"positions: an extent .*extent\[0\] is 4, expected 1": dict(positions=POSITIONS),
            r"state_in: an extent .*extent\[0\] is 3, expected 4": dict(offsets=OFFSETS, state=pool(3)),
        }
        with mock.patch.dict("tcnca_torch.kernels._loaded", clear=True), \
                mock.patch("tcnca_torch.kernels._build", side_effect=AssertionError("compiled")):
            for message, options in cases.items():
                with self.assertRaisesRegex(ValueError, f"tcnca::conv_stack: {message}"):
                    conv_stack(**dict(x=x, weight=parameters[0], bias=parameters[1], omega=parameters[2], shape=SHAPE)
                               | options)
        for message, options in {"offsets: ": dict(offsets=unsorted),
                                 "max_length: ": dict(offsets=OFFSETS, max_length=5),
                                 "slots: ": dict(offsets=OFFSETS, slots=slots + 7, state=pool(7)),
                                 "positions: ": dict(offsets=OFFSETS, positions=-POSITIONS)}.items():
            with self.assertRaisesRegex(ValueError, f"tcnca::conv_stack: {message}"):
                conv_stack(*tensors, shape=SHAPE, **options)


class NeededGradients(TestCase):
    def test_only_those_are_computed(self):
        tensors, state = inputs(), leaves(pool(1))[0]
        y = conv_stack(*tensors, shape=SHAPE, state=state)
        arguments = *tensors, state
        grad = torch.randn_like(y)
        everything = torch.autograd.grad(y, arguments, grad)
        for i, expected in enumerate(everything):
            chosen = [t.detach().requires_grad_(j == i) for j, t in enumerate(arguments)]
            y = conv_stack(*chosen[:4], shape=SHAPE, state=chosen[4])
            with mock.patch.object(operators, "call", side_effect=operators.call) as call:
                self.equal(torch.autograd.grad(y, chosen[i], grad)[0], expected)
            given = [t is not None for (name, *_), t in zip(operators.BACKWARD.arguments, call.call_args.args[4])
                     if name.startswith("grad_") and name not in ("grad_y", "grad_state_out")]
            self.assertEqual(given, [j == i for j in range(5)])


class WeightsInTheTypeOfSums(TestCase):
    SHAPE = ConvStackShape(taps=3, depth=2, act="tanh", residuals="level", bias=True, skip=True, weights="accumulate")

    def test_no_conversion(self):
        x, *parameters = inputs(dtype=torch.bfloat16)
        parameters = leaves(*(p.float() for p in parameters))
        with mock.patch.object(operators, "call", side_effect=operators.call) as call:
            y = conv_stack(x, *parameters, shape=self.SHAPE)
            gradients = torch.autograd.grad(y.sum(), (x, *parameters))
        for arguments in call.call_args_list:
            self.assertEqual([t.data_ptr() for t in arguments.args[4][1:4]], [p.data_ptr() for p in parameters])
        self.assertEqual([g.dtype for g in gradients], [torch.bfloat16] + 3 * [torch.float32])
        exact = leaves(*(t.double() for t in (x, *parameters)))
        expected = conv_stack(*exact, shape=SHAPE)
        self.assertEqual(y.dtype, torch.bfloat16)
        self.close(y, expected, 2**-8)
        for a, b in zip(gradients[1:], torch.autograd.grad(expected.sum(), exact)[1:]):
            self.close(a, b, 1e-5)
        rounded = conv_stack(x, *(p.bfloat16().float() for p in parameters), shape=self.SHAPE)
        self.equal(conv_stack(x, *(p.bfloat16() for p in parameters), shape=self.SHAPE), rounded)


if __name__ == "__main__":
    unittest.main()
