#!/usr/bin/env python3
"""Golden vectors of chunked attention from an independent implementation: JAX in fp64 on the CPU.

    python3 -m venv venv && venv/bin/pip install jax && venv/bin/python test/golden/make_attention_golden.py

writes chunked_attention.txt beside this script, in the format that make_golden.py describes (numbers without trailing
zeros). Attention is computed over the whole sequence with one mask. Gradients are those of JAX.

Options: function (0 softmax, 1 laplace, 2 relu2), causal, bias, chunk, position, rotary.
Tensors:
    q, k [batch, heads, length, key_dim], v, o [batch, heads, length, value_dim]
    bias [heads, 2 chunk - 1]; if rotary is 1, the table computed from a, b [heads, key_dim]
    lengths [batch]: if some keys are masked
    lse [batch, heads, length]: softmax only
    keys_in, keys_out [batch, heads, chunk, key_dim], values_in, values_out: if position is not 0; slots without a key
        hold 0
    grad_*: gradients of all except lengths and lse; if rotary is 1, of a and b instead of bias
The loss is <o, grad_o> + <keys_out, grad_keys_out> + <values_out, grad_values_out>.
"""
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from make_golden import HERE, numbers

jax.config.update("jax_enable_x64", True)


def write(path, cases):
    short = lambda v: re.sub(r"\.?0*p", "p", float(v).hex()) if v != 0 else "0"
    with open(path, "w") as out:
        for name, options, tensors in cases:
            out.write(f"case {name}\n")
            for key, value in options.items():
                out.write(f"option {key} {int(value)}\n")
            for key, value in tensors.items():
                value = np.asarray(value, dtype=np.float64)
                extents, elements = " ".join(map(str, value.shape)), " ".join(map(short, value.ravel()))
                out.write(f"tensor {key} {extents} : {elements}\n")
            out.write("end\n")


def rotary_table(a, b, chunk):
    half = a.shape[1] // 2
    theta = 10000.0 ** (-jnp.arange(half) / half)
    angle = (chunk - 1 - jnp.arange(2 * chunk - 1))[:, None] * theta  # i - j
    a = a[:, :half] + 1j * a[:, half:]  # the real part of conj(a) b e^(-i angle)
    b = b[:, :half] + 1j * b[:, half:]
    return jnp.real(jnp.einsum("hk,tk->ht", jnp.conj(a) * b, jnp.exp(-1j * angle)))


def attend(options, lengths, inputs):
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    chunk, position, causal = options["chunk"], options["position"], options["causal"]
    filled = position % chunk
    if filled:
        k = jnp.concatenate([inputs["keys_in"][:, :, :filled], k], 2)
        v = jnp.concatenate([inputs["values_in"][:, :, :filled], v], 2)
    at_key = jnp.arange(position - filled, position + q.shape[2])
    at_query = jnp.arange(position, position + q.shape[2])
    mask = at_key[None, :] // chunk == at_query[:, None] // chunk
    if causal:
        mask = mask & (at_key[None, :] <= at_query[:, None])
    mask = (mask[None] & (at_key[None, None, :] < lengths[:, None, None]))[:, None]  # [batch, 1, query, key]
    dot = jnp.einsum("bhid,bhjd->bhij", q, k)
    if options["function"] == 0:
        dot = dot / np.sqrt(q.shape[3])
    else:
        dot = dot / jnp.maximum(jnp.sum(mask, 3, keepdims=True), 1)
    if options["bias"]:
        table = rotary_table(inputs["a"], inputs["b"], chunk) if options["rotary"] else inputs["bias"]
        apart = jnp.clip(at_key[None, :] - at_query[:, None], 1 - chunk, chunk - 1)
        dot = dot + table[:, chunk - 1 + apart]
    lse = jnp.zeros(0)
    if options["function"] == 0:
        dot = jnp.where(mask, dot, -jnp.inf)
        weight = jax.nn.softmax(dot, axis=3)
        lse = jax.scipy.special.logsumexp(dot, axis=3)
    elif options["function"] == 1:
        weight = jax.scipy.stats.norm.cdf(dot, loc=np.sqrt(0.5), scale=np.sqrt(0.25 / np.pi)) * mask
    else:
        weight = jnp.square(jax.nn.relu(dot)) * mask
    out = {"o": jnp.einsum("bhij,bhjd->bhid", weight, v)}
    if position:
        end = (position + q.shape[2]) % chunk
        pad = ((0, 0), (0, 0), (0, chunk - end), (0, 0))
        out["keys_out"] = jnp.pad(k[:, :, k.shape[2] - end :], pad)
        out["values_out"] = jnp.pad(v[:, :, v.shape[2] - end :], pad)
    return out, lse


def case(rng, name, function, length, chunk, heads=1, causal=0, bias=1, position=0, lengths=None, rotary=0, key_dim=16,
         value_dim=16):
    options = dict(function=function, causal=causal, bias=bias, chunk=chunk, position=position, rotary=rotary)
    batch = 1
    inputs = dict(q=numbers(rng, batch, heads, length, key_dim), k=numbers(rng, batch, heads, length, key_dim),
                  v=numbers(rng, batch, heads, length, value_dim))
    if rotary:
        inputs.update(a=numbers(rng, heads, key_dim), b=numbers(rng, heads, key_dim))
    elif bias:
        inputs.update(bias=numbers(rng, heads, 2 * chunk - 1))
    if position:
        slots = (np.arange(chunk) < position % chunk)[:, None]
        inputs.update(keys_in=numbers(rng, batch, heads, chunk, key_dim) * slots,
                      values_in=numbers(rng, batch, heads, chunk, value_dim) * slots)
    end = np.asarray([position + length] if lengths is None else lengths)
    arrays = {key: jnp.asarray(value) for key, value in inputs.items()}
    out, pull, lse = jax.vjp(lambda i: attend(options, end, i), arrays, has_aux=True)
    grads = {key: numbers(rng, *value.shape) for key, value in out.items()}
    input_grads = pull({key: jnp.asarray(value) for key, value in grads.items()})[0]
    tensors = inputs | out | {"grad_" + key: value for key, value in (grads | input_grads).items()}
    if rotary:
        tensors["bias"] = rotary_table(arrays["a"], arrays["b"], chunk)
    if lengths is not None:
        tensors["lengths"] = end
    if function == 0:
        tensors["lse"] = lse
    return name, options, tensors


def main():
    rng = np.random.default_rng(20240502)
    write(os.path.join(HERE, "chunked_attention.txt"), [
        case(rng, "softmax_bias", 0, 6, chunk=4, rotary=1),
        case(rng, "softmax_causal_bias", 0, 6, chunk=5, causal=1, position=3, lengths=[8]),
        case(rng, "laplace_causal_bias", 1, 6, chunk=4, causal=1, lengths=[5]),
        case(rng, "relu2_causal", 2, 3, chunk=2, heads=2, causal=1, bias=0),
        case(rng, "laplace", 1, 3, chunk=3, bias=0, value_dim=24),
    ])


if __name__ == "__main__":
    main()
