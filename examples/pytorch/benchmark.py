#!/usr/bin/env python3
"""Times the operations of this package against PyTorch on the CPU, in Markdown tables.

- stack: a causal stack of depthwise convolutions, against the chain of conv1d, eager and compiled, and against what
  both replace in MEGA, the damped EMA: its convolution by torch.fft, with and without the computation of its kernel,
  and the scan of this package.
- attention: causal softmax within chunks, against scaled_dot_product_attention with the chunks as a batch: PyTorch's
  choice of kernel, the one made of matrix products ("math"), and the latter compiled.

All contenders of a row run in turn, one call each, until the time of the row is over; the table has the median and, in
brackets, the minimum. Forward is without gradients; "both" is a forward and a backward pass. All have the same inputs
and the same result up to rounding, which is checked, except for the EMA, another map with the same extents.
"""
import argparse
import functools
import math
import statistics
import time

import torch
import torch.nn.functional as F

import tcnca_torch

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def conv1d_chain(x, weight, shape):
    a = x
    for i in range(shape.layers):
        history = (shape.taps - 1) * shape.dilation(i)
        kernel = weight[i].flip(0).t().unsqueeze(1)
        a = a + F.conv1d(F.pad(a, (history, 0)), kernel, dilation=shape.dilation(i), groups=a.shape[1])
    return a


def fft_recurrence(x, delta, alpha, beta, gamma):
    """As in MEGA's code. In fp32 for bf16: torch.fft has no bf16."""
    length, p = x.shape[2], torch.sigmoid(delta)
    powers = torch.exp(torch.log1p(-p * torch.sigmoid(alpha)).unsqueeze(-1) * torch.arange(length))
    return fft_convolution(x, torch.einsum("cn,cnl->cl", gamma * p * beta, powers) / math.sqrt(delta.shape[1]))


def fft_convolution(x, kernel):
    length = x.shape[2]
    spectrum = torch.fft.rfft(x.float(), 2 * length) * torch.fft.rfft(kernel, 2 * length)
    return torch.fft.irfft(spectrum, 2 * length)[..., :length].to(x.dtype)


def sdpa(q, k, v, chunk):
    q, k, v = (t.unflatten(2, (-1, chunk)).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def sdpa_math(q, k, v, chunk):
    q, k, v = (t.unflatten(2, (-1, chunk)).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    seen = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(~seen, -math.inf), -1) @ v


def stack_rows(options, dtype):
    """Pairs of a title and contenders: name, function, inputs, whether its results are those of the first."""
    for length in options.lengths:
        shape = tcnca_torch.ConvStackShape(taps=4, depth=6, dilation_base=4, residuals="level")
        x = torch.randn(options.batch, options.channels, length).to(dtype)
        weight = (torch.randn(shape.weight_sets, shape.taps, options.channels) / 8).to(dtype)
        ema = tcnca_torch.EmaShape(states=16, skip=False)
        tables = [torch.randn(options.channels, ema.states) for _ in range(4)]
        chain = functools.partial(conv1d_chain, shape=shape)
        yield f"stack, 4 taps x 6 levels, {options.batch} x {options.channels} x {length}", [
            ("tcnca conv_stack", lambda x, w, s=shape: tcnca_torch.conv_stack(x, w, shape=s), (x, weight), True),
            ("conv1d chain", chain, (x, weight), True),
            ("conv1d chain, compiled", torch.compile(chain, dynamic=False), (x, weight), True),
            ("tcnca ema", lambda x, *t, s=ema: tcnca_torch.ema(x, *t, shape=s), (x, *tables), False),
            ("EMA by torch.fft", fft_recurrence, (x, *tables), False),
            ("torch.fft with a given kernel", fft_convolution, (x, torch.randn(options.channels, length)), False),
        ]


def attention_rows(options, dtype):
    for chunk in options.chunks:
        extents = options.batch, 1, options.positions
        q, k, v = (torch.randn(*extents, n).to(dtype) for n in (options.key_dim, options.key_dim, options.value_dim))
        shape = tcnca_torch.ChunkedAttentionShape(causal=True)
        title = (f"attention, {options.batch} x {options.positions}, chunk {chunk}, keys {options.key_dim}, values "
                 f"{options.value_dim}")

        def chunked(q, k, v, chunk=chunk, shape=shape):
            return tcnca_torch.chunked_attention(q, k, v, shape=shape, chunk=chunk)
        products = functools.partial(sdpa_math, chunk=chunk)
        yield title, [
            ("tcnca chunked_attention", chunked, (q, k, v), True),
            ("SDPA", functools.partial(sdpa, chunk=chunk), (q, k, v), True),
            ("SDPA math", products, (q, k, v), True),
            ("SDPA math, compiled", torch.compile(products, dynamic=False), (q, k, v), True),
        ]


def calls_of(function, inputs, both):
    if not both:
        def call():
            with torch.no_grad():
                return function(*inputs)
        return call
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    gradient = torch.randn_like(function(*leaves))

    def call():
        y = function(*leaves)
        torch.autograd.grad(y, leaves, gradient)
        return y
    return call


def measure(contenders, both, seconds):
    """Median and minimum in ms of each contender, or the error of one that does not work here."""
    calls, expected = {}, None
    for name, function, inputs, comparable in contenders:
        try:
            call = calls_of(function, inputs, both)
            y = call().detach().float().flatten()
            call()
        except Exception as error:  # torch.compile raises many types where it has no compiler
            calls[name] = f"{type(error).__name__}"
            continue
        if comparable:
            expected = y if expected is None else expected
            difference, scale = (y - expected).abs().max().item(), expected.abs().max().item()
            if difference > (0.05 if inputs[0].dtype == torch.bfloat16 else 1e-4) * scale:
                raise SystemExit(f"{name} differs by {difference} from the first contender, whose largest is {scale}")
        calls[name] = call
    times = {name: [] for name, call in calls.items() if callable(call)}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or any(len(t) < 3 for t in times.values()):
        for name in times:
            start = time.perf_counter()
            calls[name]()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: (statistics.median(times[name]), min(times[name])) if name in times else call
            for name, call in calls.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["stack", "attention"], choices=["stack", "attention"])
    parser.add_argument("--types", nargs="+", default=["fp32", "bf16"], choices=list(TYPES))
    parser.add_argument("--passes", nargs="+", default=["forward", "both"], choices=["forward", "both"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="of each row")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16384, 131072])
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--chunks", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--key-dim", type=int, default=64)
    parser.add_argument("--value-dim", type=int, default=256)
    options = parser.parse_args()
    rows = {"stack": stack_rows, "attention": attention_rows}
    print(f"PyTorch {torch.__version__}\n")
    for task in options.tasks:
        print("| type | threads | pass | row | contender | ms | relative to tcnca |\n|---|---|---|---|---|---|---|")
        for dtype in options.types:
            for threads in options.threads:
                torch.set_num_threads(threads)
                for both in (p == "both" for p in options.passes):
                    torch._dynamo.reset()  # compiled functions keep the number of threads they were compiled for
                    torch.manual_seed(1)
                    for title, contenders in rows[task](options, TYPES[dtype]):
                        result = measure(contenders, both, options.seconds)
                        first = next(iter(result.values()))[0]
                        for name, value in result.items():
                            ms, ratio = f"does not run: {value}", ""
                            if not isinstance(value, str):
                                ms, ratio = f"{value[0]:.3g} ({value[1]:.3g})", f"{value[0] / first:.2f}"
                            row = dtype, threads, "both" if both else "forward", title, name, ms, ratio
                            print(f"| {' | '.join(map(str, row))} |", flush=True)
        print()


if __name__ == "__main__":
    main()
