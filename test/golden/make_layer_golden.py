#!/usr/bin/env python3
"""Golden vectors of a TCNCA and of a MEGA layer, each with its feed-forward block: JAX in fp64 on the CPU, from the equations.

    python3 -m venv venv && venv/bin/pip install jax && venv/bin/python test/golden/make_layer_golden.py

writes layer.txt beside this script, in the format that make_golden.py describes. The loss is <y, grad_y>, gradients are JAX's own.

Tensors: x, y, grad_y, grad_x [batch, length, channels]; the parameters, and their gradients grad_*. Matrices are [in, out].
    tcnca: layernorm before, a stack of convolutions with a level residual (weight [levels, taps, channels], tap 0 the newest sample; its result
        is silu(stack + omega x)), softmax, rotary bias. mega: scalenorm after, the average as a recurrence, laplace, a table of biases.
"""
import os

import jax
import jax.numpy as jnp
import numpy as np

from make_attention_golden import rotary_table, write
from make_golden import HERE, numbers

silu = jax.nn.silu
D, H, Z, FFN, CHUNK, STATES = 5, 16, 16, 6, 4, 2
DILATIONS, TAPS = (1, 3), 3


def layer_norm(x, gain, bias):
    x = x - x.mean(-1, keepdims=True)
    return gain * x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) + bias


def scale_norm(x, gain):
    return gain * x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def convolutions(p, x):
    y = x
    for level, dilation in enumerate(DILATIONS):
        total = p["bias"][level]
        for k in range(TAPS):
            back = min(k * dilation, y.shape[1])
            total = total + p["weight"][level, k] * jnp.pad(y, ((0, 0), (back, 0), (0, 0)))[:, : y.shape[1]]
        y = y + silu(total)
    return silu(y + p["omega"] * x)


def average(p, x):
    forget = 1 - jax.nn.sigmoid(p["delta"]) * jax.nn.sigmoid(p["alpha"])
    h, out = jnp.zeros(x.shape[:1] + forget.shape), []
    for t in range(x.shape[1]):
        h = jax.nn.sigmoid(p["delta"]) * p["beta"] * x[:, t, :, None] + forget * h
        out.append((p["gamma"] * h).sum(-1) / np.sqrt(STATES))
    return silu(jnp.stack(out, 1) + p["omega"] * x)


def attend(q, k, v, table, softmax):
    length = q.shape[1]
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    mask = (i // CHUNK == j // CHUNK) & (j <= i)
    bias = table[np.clip(CHUNK - 1 + j - i, 0, 2 * CHUNK - 2)]
    dot = jnp.einsum("bik,bjk->bij", q, k)
    if softmax:
        weight = jax.nn.softmax(jnp.where(mask, dot / np.sqrt(Z) + bias, -jnp.inf), axis=-1)
    else:
        score = dot / mask.sum(1)[:, None] + bias
        weight = mask * (1 + jax.lax.erf((score - np.sqrt(0.5)) / (np.sqrt(0.25 / np.pi) * np.sqrt(2)))) / 2
    return weight @ v


def block(p, x, tcnca):
    if tcnca:
        normed = layer_norm(x, p["norm_gain"], p["norm_bias"])
        mixed, table = convolutions(p, normed), rotary_table(p["rotary_a"][None], p["rotary_b"][None], CHUNK)[0]
    else:
        normed = x
        mixed, table = average(p, normed), p["table"]
    v = silu(normed @ p["wv"] + p["bv"])
    u, z, r, hx = jnp.split(mixed @ p["wm"] + p["bm"], [D, D + Z, D + Z + H], axis=-1)
    z, r = silu(z), silu(r)
    o = attend(z * p["gq"] + p["mq"], z * p["gk"] + p["mk"], v, table, softmax=tcnca)
    h = silu(hx + (o * r) @ p["wh"] + p["bh"])
    y = x + jax.nn.sigmoid(u) * (h - x)
    forward = lambda a: silu(a @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    if tcnca:
        return y + forward(layer_norm(y, p["ffn_gain"], p["ffn_bias"]))
    y = scale_norm(y, p["norm_gain"])
    return scale_norm(y + forward(y), p["ffn_gain"])


def case(rng, tcnca, batch, length):
    wide = 2 * D + Z + H
    shapes = dict(wv=(D, H), bv=(H,), omega=(D,), wm=(D, wide), bm=(wide,), gq=(Z,), mq=(Z,), gk=(Z,), mk=(Z,), wh=(H, D), bh=(D,), w1=(D, FFN), b1=(FFN,),
                  w2=(FFN, D), b2=(D,))
    if tcnca:
        shapes.update(norm_gain=(D,), norm_bias=(D,), weight=(len(DILATIONS), TAPS, D), bias=(len(DILATIONS), D), rotary_a=(Z,), rotary_b=(Z,), ffn_gain=(D,),
                      ffn_bias=(D,))
    else:
        shapes.update(norm_gain=(1,), delta=(D, STATES), alpha=(D, STATES), beta=(D, STATES), gamma=(D, STATES), table=(2 * CHUNK - 1,), ffn_gain=(1,))
    given = {key: numbers(rng, *shape) for key, shape in shapes.items()}
    given["x"] = numbers(rng, batch, length, D)
    y, pull = jax.vjp(lambda p: block(p, p["x"], tcnca), {key: jnp.asarray(value) for key, value in given.items()})
    grad_y = numbers(rng, *y.shape)
    gradients = pull(jnp.asarray(grad_y))[0]
    return "tcnca" if tcnca else "mega", {}, dict(**given, y=y, grad_y=grad_y, **{"grad_" + key: gradients[key] for key in given})


def main():
    rng = np.random.default_rng(20240503)
    write(os.path.join(HERE, "layer.txt"), [case(rng, True, 2, 6), case(rng, False, 2, 6)])


if __name__ == "__main__":
    main()
