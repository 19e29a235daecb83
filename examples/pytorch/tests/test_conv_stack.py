"""conv_stack: against chains of conv1d, with states, layouts, types, torch.compile."""
import unittest

import torch

import reference
from support import TestCase, channels_last, leaves
from tcnca_torch import ConvStackShape, conv_stack, conv_stack_step

SHAPE = ConvStackShape(taps=3, depth=2, act="tanh", residuals="level", bias=True, skip=True)
BATCH, CHANNELS, LENGTH = 2, 5, 40


def inputs(dtype=torch.float64, parameters=None, length=LENGTH):
    x = torch.randn(BATCH, CHANNELS, length, dtype=torch.float64).to(dtype)
    weight = torch.randn(SHAPE.weight_sets, SHAPE.taps, CHANNELS, dtype=torch.float64) / 2
    bias, omega = torch.randn(SHAPE.weight_sets, CHANNELS), torch.randn(CHANNELS)
    return leaves(x, *(p.to(parameters or dtype) for p in (weight, bias, omega)))


def state(dtype=torch.float64):
    return torch.randn(BATCH, CHANNELS, SHAPE.receptive_field - 1, dtype=dtype)


class ConvStack(TestCase):
    def test_values_and_gradients(self):
        tensors = inputs()
        y, expected = conv_stack(*tensors, shape=SHAPE), reference.conv_stack(*tensors, SHAPE)
        self.close(y, expected, 1e-14)
        grad = torch.randn_like(y)
        for a, b in zip(torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.close(a, b, 1e-13)

    def test_gradcheck_with_states(self):
        def f(*tensors):
            return conv_stack(*tensors[:4], shape=SHAPE, state=tensors[4], position=7, return_state=True)
        self.assertTrue(torch.autograd.gradcheck(f, (*inputs(length=9), *leaves(state()))))

    def test_opcheck(self):
        tensors, before = inputs(), leaves(state())[0]
        torch.library.opcheck(torch.ops.tcnca.conv_stack.default, (*tensors, before, SHAPE.source, 4, True))
        torch.library.opcheck(torch.ops.tcnca.conv_stack.default, (*tensors, None, SHAPE.source, 0, False))
        detached = [t.detach() for t in tensors]
        torch.library.opcheck(torch.ops.tcnca.conv_stack_step.default, (*detached, state(), SHAPE.source, 4))
        grad = torch.randn_like(detached[0])
        torch.library.opcheck(torch.ops.tcnca.conv_stack_backward.default,
                              (grad, None, *detached, None, SHAPE.source, 0, [True] * 4 + [False]))

    def test_torch_compile(self):
        def f(x, weight, bias, omega):
            return conv_stack(2 * x, weight, bias, omega, shape=SHAPE).sin()
        tensors = inputs()
        y, expected = self.compiled(f)(*tensors), f(*tensors)
        self.close(y, expected, 1e-14)
        grad = torch.randn_like(y)
        for a, b in zip(torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            self.close(a, b, 1e-14)

    def test_torch_compile_of_a_step(self):
        def f(x, weight, bias, omega, memory, position):
            return conv_stack_step(x, weight, bias, omega, shape=SHAPE, state=memory, position=position)
        tensors, compiled = [t.detach() for t in inputs()], self.compiled(f)
        memory, expected_memory = torch.zeros_like(state()), torch.zeros_like(state())
        for t in range(4):
            x = tensors[0][:, :, t:t + 1]
            y = compiled(x, *tensors[1:], memory, t)
            self.equal(y, f(x, *tensors[1:], expected_memory, t))
        self.equal(memory, expected_memory)

    def test_parts_have_the_bits_of_the_whole(self):
        x, *parameters = [t.detach() for t in inputs()]
        whole, last = conv_stack(x, *parameters, shape=SHAPE, return_state=True)
        parts, memory = [], None
        for first, end in ((0, 7), (7, 8), (8, 29), (29, LENGTH)):
            y, memory = conv_stack(x[:, :, first:end], *parameters, shape=SHAPE, state=memory, position=first,
                                   return_state=True)
            parts.append(y)
        self.equal(torch.cat(parts, 2), whole)
        self.equal(memory, last)
        memory = torch.zeros_like(last)
        steps = [conv_stack_step(x[:, :, t:t + 1], *parameters, shape=SHAPE, state=memory, position=t)
                 for t in range(LENGTH)]
        self.equal(torch.cat(steps, 2), whole)
        self.equal(memory, last)

    def test_gradients_through_states(self):
        tensors = inputs()
        x, *parameters = tensors
        first, memory = conv_stack(x[:, :, :17], *parameters, shape=SHAPE, return_state=True)
        second = conv_stack(x[:, :, 17:], *parameters, shape=SHAPE, state=memory, position=17)
        whole = conv_stack(*tensors, shape=SHAPE)
        grad = torch.randn_like(whole)
        parts = torch.autograd.grad(torch.cat([first, second], 2), tensors, grad)
        for a, b in zip(parts, torch.autograd.grad(whole, tensors, grad)):
            self.close(a, b, 1e-14)

    def test_channels_last(self):
        x, *parameters = inputs()
        last = leaves(channels_last(x.detach()))[0]
        self.assertEqual(last.stride(1), 1)
        y, memory = conv_stack(last, *parameters, shape=SHAPE, return_state=True)
        expected, expected_memory = conv_stack(x, *parameters, shape=SHAPE, return_state=True)
        self.assertEqual((y.stride(1), memory.stride(1)), (1, 1))
        self.close(y, expected, 1e-15)
        self.close(memory, expected_memory, 1e-15)
        grad = torch.randn_like(expected)  # channels first: a layout that the operator must convert
        found = torch.autograd.grad(y, (last, *parameters), grad)
        for a, b in zip(found, torch.autograd.grad(expected, (x, *parameters), grad)):
            self.close(a, b, 1e-13)
        self.assertEqual(found[0].stride(1), 1)

    def test_strides(self):
        x, *parameters = inputs()
        wide = torch.randn(BATCH, 2 * CHANNELS, 3 * LENGTH, dtype=torch.float64)
        shifted = wide[:1, :CHANNELS, 5:5 + LENGTH]
        for view in (wide[:, ::2, :LENGTH], wide[:, :CHANNELS, ::3], shifted.expand(4, -1, -1)):
            self.close(conv_stack(view, *parameters, shape=SHAPE), conv_stack(view.clone(), *parameters, shape=SHAPE),
                       1e-15)
        y = conv_stack(x, *parameters, shape=SHAPE)
        ones = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]  # a gradient with strides of 0
        self.equal(ones, torch.autograd.grad(y, x, torch.ones_like(y))[0])

    def test_bf16(self):
        self.compare_16_bits(torch.bfloat16, 2**-8)

    def test_fp16(self):
        self.compare_16_bits(torch.float16, 2**-11)

    def compare_16_bits(self, dtype, roundoff):
        tensors = inputs(dtype, torch.float32)
        rounded = [t.detach().to(dtype).double().requires_grad_() for t in tensors]
        y, expected = conv_stack(*tensors, shape=SHAPE), reference.conv_stack(*rounded, SHAPE)
        self.assertEqual(y.dtype, dtype)
        self.close(y, expected, roundoff, 1e-5)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, tensors, grad)
        exact = torch.autograd.grad(expected, rounded, grad.double())
        self.assertEqual([g.dtype for g in found], [dtype] + 3 * [torch.float32])
        self.close(found[0], exact[0], roundoff, 1e-5)
        for a, b in zip(found[1:], exact[1:]):  # sums are in fp32, and so are the gradients of fp32 parameters
            self.close(a, b, 1e-5)

    def test_autocast(self):
        tensors = inputs(torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv_stack(*tensors, shape=SHAPE)
        self.assertEqual(y.dtype, torch.bfloat16)
        self.equal(y, conv_stack(tensors[0].bfloat16(), *tensors[1:], shape=SHAPE))
        found = torch.autograd.grad(y.float().square().sum(), tensors)
        self.assertEqual([g.dtype for g in found], 4 * [torch.float32])

    def test_number_of_threads(self):
        tensors, threads = inputs(), torch.get_num_threads()
        y = conv_stack(*tensors, shape=SHAPE)
        try:
            torch.set_num_threads(1)
            self.equal(conv_stack(*tensors, shape=SHAPE), y)
        finally:
            torch.set_num_threads(threads)

    def test_empty(self):
        for extent in ((0, CHANNELS, LENGTH), (BATCH, CHANNELS, 0)):
            x = torch.zeros(extent, dtype=torch.float64, requires_grad=True)
            parameters = inputs()[1:]
            y, memory = conv_stack(x, *parameters, shape=SHAPE, return_state=True)
            self.assertEqual(y.shape, x.shape)
            self.assertEqual(memory.shape, (extent[0], CHANNELS, SHAPE.receptive_field - 1))
            for gradient in torch.autograd.grad(y.sum() + memory.sum(), parameters):
                self.equal(gradient, torch.zeros_like(gradient))

    def test_errors(self):
        x, weight, bias, omega = inputs()
        cases = {
            r"weight: an extent .* \(extent\[0\] is 1, expected 2\)": (x, weight[:1], bias, omega),
            "omega: an argument that the shape asks for is absent": (x, weight, bias),
            "weight has 2 dimensions, expected 3": (x, weight[0], bias, omega),
            "weight is of type torch.float32, expected torch.float64": (x, weight.float(), bias, omega),
        }
        for message, arguments in cases.items():
            with self.assertRaisesRegex(ValueError, f"tcnca::conv_stack: {message}"):
                conv_stack(*arguments, shape=SHAPE)
        with self.assertRaisesRegex(ValueError, "position"):
            conv_stack(x, weight, bias, omega, shape=SHAPE, position=-1)
        with self.assertRaisesRegex(RuntimeError, "no derivative"):
            conv_stack_step(x, weight, bias, omega, shape=SHAPE, state=state(), position=0)
        y = conv_stack(x, weight, bias, omega, shape=SHAPE)
        gradient = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
        with self.assertRaisesRegex(NotImplementedError, "conv_stack_backward has no derivative"):
            gradient.sum().backward()

    def test_invalid_shapes(self):
        with self.assertRaisesRegex(ValueError, "an odd number of taps$"):
            conv_stack(torch.zeros(1, 1, 8), torch.zeros(1, 4, 1), shape=ConvStackShape(taps=4, dir="symmetric"))
        with self.assertRaisesRegex(ValueError, "act is 'sine', expected one of none, relu"):
            ConvStackShape(act="sine")

    def test_what_is_not_there_is_an_error(self):
        x, *parameters = (t.detach() for t in inputs(torch.float32))
        with self.assertRaisesRegex(NotImplementedError, "conv_stack has no forward-mode derivative"):
            torch.func.jvp(lambda a: conv_stack(a, *parameters, shape=SHAPE), (x,), (x,))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(parameters[0], parameters[0])
            with self.assertRaisesRegex(NotImplementedError, "no forward-mode derivative"):
                conv_stack(x, dual, *parameters[1:], shape=SHAPE)
        with self.assertRaisesRegex(ValueError, "the type is int32, expected one of float32"):
            conv_stack(x.int(), *(p.int() for p in parameters), shape=SHAPE)
        with self.assertRaisesRegex(ValueError, "dilations is"):
            ConvStackShape(taps=2, dilations=(1, 2**64 + 1))

    @unittest.skipUnless(torch.cuda.is_available(), "no GPU")
    def test_cuda(self):
        tensors = inputs(torch.float32)
        on_gpu = leaves(*(t.cuda() for t in tensors))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            y = conv_stack(*on_gpu, shape=SHAPE)
        torch.cuda.current_stream().wait_stream(stream)
        expected = conv_stack(*tensors, shape=SHAPE)
        self.close(y.cpu(), expected, 1e-6)
        grad = torch.randn_like(expected)
        found = torch.autograd.grad(y, on_gpu, grad.cuda())
        for a, b in zip(found, torch.autograd.grad(expected, tensors, grad)):
            self.close(a.cpu(), b, 1e-5)
        graph, static = torch.cuda.CUDAGraph(), on_gpu[0].detach().clone()
        with torch.no_grad(), torch.cuda.graph(graph):
            captured = conv_stack(static, *on_gpu[1:], shape=SHAPE)
        static.mul_(2)
        graph.replay()
        with torch.no_grad():
            self.equal(captured, conv_stack(static, *on_gpu[1:], shape=SHAPE))


if __name__ == "__main__":
    unittest.main()
