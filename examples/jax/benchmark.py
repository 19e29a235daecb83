#!/usr/bin/env python3
"""Times the operations of this package against JAX on the CPU, in Markdown tables. Everything is jitted.

- stack: a causal stack of depthwise convolutions, against the chain of lax.conv_general_dilated, against that chain
  written as sums of shifted products, which XLA fuses, and against what both replace in MEGA, the damped EMA: its
  convolution by jnp.fft, with the computation of its kernel, and the scan of this package.
- attention: causal softmax within chunks, against jax.nn.dot_product_attention with the chunks as a batch.

All contenders of a row run in turn, one call each, until the time of the row is over; the table has the median and, in
brackets, the minimum. "both" is a forward and a backward pass. All have the same inputs and the same result up to
rounding, which is checked, except for the EMA, another map with the same extents. For one thread, run it under
`taskset -c 0`.
"""
import argparse
import functools
import math
import statistics
import time

import jax
import jax.numpy as jnp

import tcnca_jax


def conv_chain(x, weight, shape):
    a = x
    for i in range(shape.layers):
        kernel = weight[i][::-1].T[:, None]
        history = (shape.taps - 1) * shape.dilation(i)
        a = a + jax.lax.conv_general_dilated(a, kernel, (1,), [(history, 0)], rhs_dilation=(shape.dilation(i),),
                                             feature_group_count=a.shape[1])
    return a


def shifted_products(x, weight, shape):
    a, length = x, x.shape[2]
    for i in range(shape.layers):
        history = (shape.taps - 1) * shape.dilation(i)
        padded = jnp.pad(a, ((0, 0), (0, 0), (history, 0)))
        for tap in range(shape.taps):
            first = history - tap * shape.dilation(i)
            a = a + weight[i, tap][:, None] * padded[..., first:first + length]
    return a


def fft_recurrence(x, delta, alpha, beta, gamma):
    """As in MEGA's code. In fp32 for bf16: jnp.fft has no bf16."""
    length, p = x.shape[2], jax.nn.sigmoid(delta)
    powers = jnp.exp(jnp.log1p(-p * jax.nn.sigmoid(alpha))[..., None] * jnp.arange(length))
    kernel = jnp.einsum("cn,cnl->cl", gamma * p * beta, powers) / math.sqrt(delta.shape[1])
    spectrum = jnp.fft.rfft(x.astype(jnp.float32), 2 * length) * jnp.fft.rfft(kernel, 2 * length)
    return jnp.fft.irfft(spectrum, 2 * length)[..., :length].astype(x.dtype)


def dot_product_attention(q, k, v, chunk):
    def chunks(t):
        return t.reshape(-1, chunk, 1, t.shape[3])
    return jax.nn.dot_product_attention(chunks(q), chunks(k), chunks(v), is_causal=True).reshape(v.shape)


def stack_contenders(options, dtype):
    """The title and the contenders: name, function, inputs, whether its result is that of the first."""
    keys = jax.random.split(jax.random.key(1), 6)
    extents = options.batch, options.channels, options.length
    shape = tcnca_jax.ConvStackShape(taps=4, depth=6, dilation_base=4, residuals="level")
    x = jax.random.normal(keys[0], extents, dtype)
    weight = jax.random.normal(keys[1], (shape.weight_sets, shape.taps, options.channels), dtype) / 8
    ema = tcnca_jax.EmaShape(states=16, skip=False)
    tables = [jax.random.normal(k, (options.channels, ema.states)) for k in keys[2:]]
    return f"stack, 4 taps x 6 levels, {' x '.join(map(str, extents))}", [
        ("tcnca conv_stack", lambda x, w: tcnca_jax.conv_stack(x, w, shape=shape), (x, weight), True),
        ("lax.conv_general_dilated", functools.partial(conv_chain, shape=shape), (x, weight), True),
        ("shifted products", functools.partial(shifted_products, shape=shape), (x, weight), True),
        ("tcnca ema", lambda x, *t: tcnca_jax.ema(x, *t, shape=ema), (x, *tables), False),
        ("EMA by jnp.fft", fft_recurrence, (x, *tables), False),
    ]


def attention_contenders(options, dtype):
    keys = jax.random.split(jax.random.key(1), 3)
    extents = options.batch, 1, options.positions
    q, k, v = (jax.random.normal(key, (*extents, n), dtype)
               for key, n in zip(keys, (options.key_dim, options.key_dim, options.value_dim)))
    shape, chunk = tcnca_jax.ChunkedAttentionShape(causal=True), options.chunk
    title = (f"attention, {options.batch} x {options.positions}, chunk {chunk}, keys {options.key_dim}, values "
             f"{options.value_dim}")
    contenders = [("tcnca chunked_attention",
                   lambda q, k, v: tcnca_jax.chunked_attention(q, k, v, shape=shape, chunk=chunk), (q, k, v), True)]
    if options.key_dim == options.value_dim:  # JAX has no other
        contenders.append(("jax.nn.dot_product_attention", functools.partial(dot_product_attention, chunk=chunk),
                           (q, k, v), True))
    return title, contenders


def call_of(function, inputs, both):
    if not both:
        return functools.partial(jax.jit(function), *inputs)

    def run(gradient, *inputs):
        y, backward = jax.vjp(function, *inputs)
        return y, backward(gradient)
    y = jax.eval_shape(function, *inputs)
    gradient = jax.random.normal(jax.random.key(2), y.shape, y.dtype)
    return functools.partial(jax.jit(run), gradient, *inputs)


def measure(contenders, both, seconds):
    """Median and minimum in ms of each contender."""
    calls, expected = {}, None
    for name, function, inputs, comparable in contenders:
        call = call_of(function, inputs, both)
        y = jax.block_until_ready(call())
        y = (y[0] if both else y).astype(jnp.float32)
        if comparable:
            expected = y if expected is None else expected
            difference, scale = float(jnp.abs(y - expected).max()), float(jnp.abs(expected).max())
            if difference > (0.05 if inputs[0].dtype == jnp.bfloat16 else 1e-4) * scale:
                raise SystemExit(f"{name} differs by {difference} from the first contender, whose largest is {scale}")
        calls[name] = call
    times = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or any(len(t) < 3 for t in times.values()):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: (statistics.median(t), min(t)) for name, t in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["stack", "attention"], choices=["stack", "attention"])
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--passes", nargs="+", default=["forward", "both"], choices=["forward", "both"])
    parser.add_argument("--seconds", type=float, default=5, help="of each row")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--key-dim", type=int, default=64)
    parser.add_argument("--value-dim", type=int, default=64)
    options = parser.parse_args()
    tasks = {"stack": stack_contenders, "attention": attention_contenders}
    print(f"JAX {jax.__version__}\n")
    for task in options.tasks:
        print("| type | pass | row | contender | ms | relative to tcnca |\n|---|---|---|---|---|---|")
        for dtype in options.types:
            for both in (p == "both" for p in options.passes):
                title, contenders = tasks[task](options, jnp.dtype(dtype))
                result = measure(contenders, both, options.seconds)
                first = next(iter(result.values()))[0]
                for name, (median, minimum) in result.items():
                    row = (dtype, "both" if both else "forward", title, name, f"{median:.3g} ({minimum:.3g})",
                           f"{median / first:.2f}")
                    print(f"| {' | '.join(row)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
