"""Sequences split over processes: the bits of one process, bounds of the sums, DDP, FSDP, ranks that end."""
import itertools
import os
import signal
import time
import unittest
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import processes
from support import channels_last, leaves
from tcnca_torch import (ChunkedAttentionShape, ConvStackShape, EmaShape, TcncaLayer, chunked_attention, conv_stack,
                         ema, sequence_parallel, sum_gradients)
from tcnca_torch.operators import conv_stack as stack_operators

STACK = ConvStackShape(taps=3, depth=2, act="tanh", residuals="level", bias=True, skip=True)
LAYER_STACK = ConvStackShape(taps=3, depth=2, dilation_base=3, residuals="level", skip=True)
EMA, ATTENTION = EmaShape(states=4), ChunkedAttentionShape(causal=True)
BATCH, CHANNELS, CHUNK = 2, 37, 8
# Segments of 1, 2, 3 and 4 ranks; those of STACK depend on 6 samples before them.
SPLITS = [[40], [17, 23], [5, 32, 3], [7, 2, 1, 30]]


def own(x, lengths, axis=2):
    return x.split(lengths, axis)[dist.get_rank()]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def check_close(actual, expected, relative, what, absolute=0.0):
    error, scale = (actual - expected).abs().max().item(), expected.abs().max().item()
    check(error <= relative * scale + absolute, f"{what}: the error is {error:.2g}, the largest value {scale:.2g}")


def whole_and_segment(lengths, function, tensors, last=False):
    """The results and gradients of a whole sequence, and those of this rank's segment: y, grad_x, grad_parameters. The
    gradients of parameters of the segments are summed."""
    grad = torch.randn_like(tensors[0])
    whole = leaves(*tensors)
    y = function(*whole)
    y.backward(grad)
    x = own(channels_last(tensors[0]) if last else tensors[0], lengths).detach().requires_grad_()
    part = [x, *leaves(*tensors[1:])]
    with sequence_parallel(x.shape[2], parts=3):
        z = function(*part)
    z.backward(own(grad, lengths))
    sum_gradients(part[1:])
    return y, z, [t.grad for t in whole], [t.grad for t in part], grad


def stack_inputs(dtype, parameters):
    x = torch.randn(BATCH, CHANNELS, 40, dtype=torch.float64).to(dtype)
    weight = torch.randn(STACK.weight_sets, STACK.taps, CHANNELS, dtype=torch.float64) / 2
    return x, *(p.to(parameters) for p in (weight, torch.randn(STACK.weight_sets, CHANNELS), torch.randn(CHANNELS)))


def stack_bounds(x, weight, bias, omega, grad, lengths, roundoff):
    """How much the gradients of parameters may differ from those of one process. Inputs and gradients of all layers
    have the same bits; only the sums differ. One of n terms with absolute values of sum S has an error of n roundoff S.
    S is bounded by backpropagation with absolute values: the derivative of tanh is at most 1, that of silu 1.1. A rank
    sums over its segment and what follows, and subtracts the sum over what follows: a position is in the sums of at
    most 2 `copies` + 1 ranks."""
    x, weight, bias, omega, grad = (t.detach().double() for t in (x, weight, bias, omega, grad))
    n = BATCH * x.shape[2] + len(lengths) + 3
    copies = len(lengths) - 1
    inputs, a = [], x
    for i in range(STACK.layers):
        inputs.append(a.abs())
        a = a + torch.tanh(sum(weight[i, k, :, None] * back(a, k * STACK.dilation(i)) for k in range(STACK.taps))
                           + bias[i, :, None])
    g = 1.1 * grad.abs()
    sums = [(g * x.abs()).sum((0, 2))]
    for i in reversed(range(STACK.layers)):
        d = STACK.dilation(i)
        sums.insert(0, torch.stack([(g * back(inputs[i], k * d)).sum((0, 2)) for k in range(STACK.taps)]))
        sums.insert(1, g.sum((0, 2)))
        g = g + sum(weight[i, k, :, None].abs() * back(g.flip(2), k * d).flip(2) for k in range(STACK.taps))
    *layers, of_omega = sums
    factor = (2 + 2 * copies) * n * roundoff
    return [factor * s for s in (torch.stack(layers[0::2]), torch.stack(layers[1::2]), of_omega)]


def back(a, distance):
    """a, delayed."""
    return torch.nn.functional.pad(a, (distance, 0))[:, :, :a.shape[2]]


def check_stack(lengths):
    def f(x, weight, bias, omega):
        return conv_stack(x, weight, bias, omega, shape=STACK)
    for dtype, parameters, last in ((torch.float64, torch.float64, False), (torch.float64, torch.float64, True),
                                    (torch.bfloat16, torch.float32, False)):
        tensors = stack_inputs(dtype, parameters)
        y, z, expected, found, grad = whole_and_segment(lengths, f, tensors, last)
        what = f"{dtype}, {'last' if last else 'first'}, {lengths}"
        if last:  # of another layout: y and grad_x may differ from the other layout's
            x = leaves(channels_last(tensors[0]))[0]
            y = f(x, *tensors[1:])
            expected[0], = torch.autograd.grad(y, x, grad)
        check(torch.equal(z, own(y, lengths)), f"y, {what}")
        check(torch.equal(found[0], own(expected[0], lengths)), f"grad_x, {what}")
        bounds = stack_bounds(*tensors, grad, lengths, torch.finfo(parameters).eps / 2)
        for a, b, bound in zip(found[1:], expected[1:], bounds):
            check(((a - b).abs() <= bound).all(), f"parameters, {what}: {(a - b).abs().max()}, {bound.min()}")
            check(bound.max() < 1e-2 * b.abs().max(), f"the bound tells nothing, {what}")


def check_ema(lengths):
    tensors = [torch.randn(BATCH, CHANNELS, 40, dtype=torch.float64),
               *(torch.randn(CHANNELS, 4, dtype=torch.float64) for _ in range(4)),
               torch.randn(CHANNELS, dtype=torch.float64)]
    y, z, expected, found, grad = whole_and_segment(lengths, lambda *t: ema(*t, shape=EMA), tensors)
    y, _ = ema(*tensors, shape=EMA, return_state=True)  # its bits are those of a call with a state
    check(torch.equal(z, own(y, lengths)), f"y of ema, {lengths}")
    for a, b in zip(found[1:], expected[1:]):
        check_close(a, b, 1e-13, f"parameters of ema, {lengths}")
    check_close(found[0], own(expected[0], lengths), 1e-14, f"grad_x of ema, {lengths}")
    # The bits are those of one process that computes segment after segment.
    x, state, parts = leaves(tensors[0])[0], None, []
    for segment in x.split(lengths, 2):
        part, state = ema(segment, *tensors[1:], shape=EMA, state=state, return_state=True)
        parts.append(part)
    chained, = torch.autograd.grad(torch.cat(parts, 2), x, grad)
    check(torch.equal(found[0], own(chained, lengths)), f"grad_x of ema, {lengths}")


def check_attention(lengths):
    q, k, v = (torch.randn(BATCH, 2, sum(lengths), n, dtype=torch.float64) for n in (16, 16, 24))
    table = torch.randn(2, 2 * CHUNK - 1, dtype=torch.float64)
    whole, grad = leaves(q, k, v, table), torch.randn_like(v)
    options = {"shape": ATTENTION, "chunk": CHUNK, "dropout": 0.5, "seed": torch.tensor(3)}
    o = chunked_attention(*whole, **options)
    expected = torch.autograd.grad(o, whole, grad)
    part = leaves(*(own(t, lengths) for t in (q, k, v)), table)
    valid = torch.tensor([sum(lengths), 10])  # of the whole sequences
    with sequence_parallel(part[0].shape[2]):
        p = chunked_attention(*part, **options)
        masked = chunked_attention(*part, lengths=valid, **options)
    p.backward(own(grad, lengths))
    sum_gradients(part[3:])
    check(torch.equal(p, own(o, lengths)), "o")
    check(torch.equal(masked, own(chunked_attention(*whole, lengths=valid, **options), lengths)), "lengths")
    for t, g in zip(part[:3], expected):
        check(torch.equal(t.grad, own(g, lengths)), "grad_q, grad_k, grad_v")
    check_close(part[3].grad, expected[3], 1e-14, "grad_bias")


def check_frozen(lengths):
    """Only x has a gradient, or only one parameter, or all parameters."""
    x, weight, *others = stack_inputs(torch.float64, torch.float64)
    tables = [torch.randn(CHANNELS, 4, dtype=torch.float64) for _ in range(4)]
    for function, tensors in ((lambda *t: conv_stack(*t, shape=STACK), (x, weight, *others)),
                              (lambda *t: ema(*t, shape=EMA), (x, *tables, others[1]))):
        for chosen in ({0}, {2}, {*range(1, len(tensors))}):
            grad = torch.randn_like(x)
            whole, part = ([t.clone().requires_grad_(i in chosen) for i, t in enumerate(s)]
                           for s in (tensors, (own(x, lengths), *tensors[1:])))
            function(*whole).backward(grad)
            with sequence_parallel(part[0].shape[2], parts=3):
                y = function(*part)
            with mock.patch.object(stack_operators, "call", side_effect=stack_operators.call) as call:
                y.backward(own(grad, lengths))
            if chosen == {0}:  # sums over the next ranks' samples would be needed for parameters only
                check(call.call_count <= 1, f"{call.call_count} backward passes")
            sum_gradients(part[1:])
            for i, (t, other) in enumerate(zip(part, whole)):
                if i not in chosen:
                    check(t.grad is None, f"the gradient of frozen {i}")
                    continue
                expected = own(other.grad, lengths) if i == 0 else other.grad
                check_close(t.grad, expected, 1e-12, f"gradient {i} of {chosen}, {lengths}")


def check_sum():
    """The order of the sum: these terms have another sum in any other order."""
    terms = [2.0**53, 1.0, -2.0**53, 1.0][:dist.get_world_size()]
    p, without = torch.zeros(5, requires_grad=True, dtype=torch.float64), torch.zeros(2, requires_grad=True)
    p.grad = torch.full_like(p, terms[dist.get_rank()])
    if dist.get_rank() == 0:
        without.grad = torch.ones(2)
    sum_gradients([p, without])
    total = terms[0]
    for term in terms[1:]:
        total += term
    check(p.grad.tolist() == [total] * 5, f"{p.grad}")
    check(without.grad.tolist() == [1, 1], f"{without.grad}")


def check_errors(lengths):
    x = torch.zeros(BATCH, CHANNELS, dist.get_rank() + 5, dtype=torch.float64)
    q = torch.zeros(BATCH, 1, dist.get_rank() + 5, 16, dtype=torch.float64)
    tensors = stack_inputs(torch.float64, torch.float64)[1:]
    cases = {
        "expected positive lengths": lambda: sequence_parallel(dist.get_rank()).__enter__(),
        "the input has 4 positions, but sequence_parallel was entered with a segment of":
            lambda: conv_stack(x[:, :, :4], *tensors, shape=STACK),
        "no state, position or return_state": lambda: conv_stack(x, *tensors, shape=STACK, return_state=True),
        "must be causal": lambda: conv_stack(x, *tensors, shape=ConvStackShape(taps=3, dir="symmetric")),
    }
    if len(lengths) > 1:
        cases["must be multiples of the chunk, 8; their lengths are"] = lambda: chunked_attention(
            q, q, q, shape=ATTENTION, chunk=CHUNK)
    with sequence_parallel(x.shape[2]):
        for message, call in cases.items():
            try:
                call()
            except ValueError as error:
                check(message in str(error), str(error))
            else:
                raise AssertionError(f"no error: {message}")


def check_all(lengths):
    check_stack(lengths)
    check_ema(lengths)
    check_attention([16] * (len(lengths) - 1) + [13])
    check_frozen(lengths)
    check_sum()
    check_errors(lengths)


def make_layer(mixer, **options):
    torch.manual_seed(2)
    layer = TcncaLayer(6, 24, 16, CHUNK, mixer, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def check_layers(wrap, gather):
    """Two layers under DDP or FSDP: the gradients of the mean of all positions' losses. Frozen: nothing; the mixer of
    the second layer; the first layer, so that the second one's input has no gradient."""
    lengths, x = [16, 16], torch.randn(2, 32, 6, dtype=torch.float64)
    for mixer, frozen in itertools.product((LAYER_STACK, EMA), ("nothing", "1.mixer.", "0.")):
        layer = torch.nn.Sequential(make_layer(mixer), make_layer(mixer))
        for name, p in layer.named_parameters():
            p.requires_grad_(not name.startswith(frozen))
        trained = {n: p for n, p in layer.named_parameters() if p.requires_grad}
        expected = dict(zip(trained, torch.autograd.grad(layer(x).square().mean(), tuple(trained.values()))))
        part, valid = own(x, lengths, 1), torch.tensor([32, 20])  # valid positions of the whole sequences
        masked = own(layer[0](x, valid), lengths, 1)
        with sequence_parallel(part.shape[1]):
            check_close(layer[0](part, valid), masked, 1e-13, "lengths")
        wrapped = wrap(layer)
        with sequence_parallel(part.shape[1]):
            wrapped(part).square().mean().backward()
        for name, p in wrapped.named_parameters():
            name = name.removeprefix("module.")
            if name in expected:
                check_close(gather(p.grad), expected[name], 1e-11, name, 1e-16)  # that of mean_k is 0
            else:
                check(p.grad is None, f"the gradient of {name}, which is frozen")


def check_ddp():
    check_layers(DistributedDataParallel, lambda g: g)


def check_fsdp():
    from torch.distributed.fsdp import fully_shard

    def wrap(model):
        mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    check_layers(wrap, lambda g: g.full_tensor())


def check_nccl():
    torch.cuda.set_device(dist.get_rank())
    tensors = [t.cuda() for t in stack_inputs(torch.float32, torch.float32)]
    tables = [torch.randn(CHANNELS, 4, device="cuda") for _ in range(4)]
    for function, inputs in ((lambda *t: conv_stack(*t, shape=STACK), tensors),
                             (lambda *t: ema(*t, shape=EMA), (tensors[0], *tables, tensors[3]))):
        y, z, expected, found, _ = whole_and_segment([17, 23], function, inputs)
        check_close(z, own(y, [17, 23]), 1e-6, "y")
        check_close(found[0], own(expected[0], [17, 23]), 1e-5, "grad_x")
        for a, b in zip(found[1:], expected[1:]):
            check_close(a, b, 1e-4, "parameters")


def lose_a_rank(kill):
    x = torch.ones(1, 16, 8, dtype=torch.float64)
    parameters = [torch.ones(16, 4, dtype=torch.float64) for _ in range(4)] + [torch.ones(16, dtype=torch.float64)]
    with sequence_parallel(8):  # the first call may compile
        ema(x, *parameters, shape=EMA)
    dist.barrier()
    with sequence_parallel(8, timeout=None if kill else 5):
        if dist.get_rank() == 0:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(20)
            os._exit(0)
        ema(x, *parameters, shape=EMA)


class Distributed(unittest.TestCase):
    def passes(self, function, size, *arguments, **options):
        codes, errors = processes.run(function, size, *arguments, **options)
        self.assertEqual(codes, [0] * size, "\n".join(errors))

    def test_one_to_four_processes(self):
        for lengths in SPLITS:
            with self.subTest(lengths=lengths):
                self.passes(check_all, len(lengths), lengths)

    def test_ddp(self):
        self.passes(check_ddp, 2)

    def test_fsdp(self):
        self.passes(check_fsdp, 2)

    def test_a_rank_that_is_killed(self):
        start = time.monotonic()
        codes, errors = processes.run(lose_a_rank, 3, True)
        self.assertEqual(codes, [-signal.SIGKILL, 1, 1], errors)
        self.assertLess(time.monotonic() - start, processes.TIMEOUT)
        for rank in (1, 2):
            self.assertIn(f"RuntimeError: tcnca_torch: rank {rank} of 3 waited for rank {rank - 1} to exchange states "
                          "(ema, forward). That rank has ended, or did not make the same call within", errors[rank])

    def test_a_rank_that_does_not_answer(self):
        codes, errors = processes.run(lose_a_rank, 3, False)
        self.assertEqual(codes, [0, 1, 1], errors)
        self.assertIn("within 5 s", errors[1])

    @unittest.skipUnless(torch.cuda.device_count() > 1, "fewer than two GPUs")
    def test_nccl(self):
        self.passes(check_nccl, 2, backend="nccl")


if __name__ == "__main__":
    unittest.main()
