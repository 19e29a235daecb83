#!/usr/bin/env python3
"""Golden vectors of the layers of TCNCA and MEGA, each with its feed-forward block: JAX in fp64 on the CPU, from the
equations.

    python3 -m venv venv && venv/bin/pip install jax && venv/bin/python test/golden/make_layer_golden.py

writes layer.txt beside this script, in the format that make_golden.py describes. The loss is <y, grad_y>. Gradients are
those of JAX.

The case "inputs" has x, grad_y [batch, length, channels], lengths [batch] and all parameters, which all cases share. A
case that needs fewer rows of a parameter uses the first ones (the causal direction of a bidirectional mixer comes
first; a scalenorm has one gain). Matrices are [in, out]. The other cases have y, grad_x and the gradients grad_* of the
parameters they use. Their options:
    tcnca: 1: layernorm before, a stack of convolutions with a level residual (weight [directions * levels, taps,
        channels], tap 0 the newest sample; its result is silu(stack + omega x); causal stacks have biases), rotary
        bias; 0, MEGA: scalenorm after, the EMA as a recurrence, a table of biases.
    gates: 0: the simplified layer, y = x + silu(attention wh + bh).
    laplace: 0: softmax.
    causal: 0: both directions, and sequences are padded: only the first `lengths` positions of each are valid; at the
        others grad_y is 0 and y must not be compared.
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
BATCH, LENGTH, LENGTHS = 2, 6, np.array([6, 3])


def layer_norm(x, gain, bias):
    x = x - x.mean(-1, keepdims=True)
    return gain * x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) + bias


def scale_norm(x, gain):
    return gain[0] * x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def convolutions(p, x, direction, biases):
    y = x
    for level, dilation in enumerate(DILATIONS):
        row = direction * len(DILATIONS) + level
        total = p["bias"][row] if biases else 0
        for k in range(TAPS):
            back = min(k * dilation, y.shape[1])
            total = total + p["weight"][row, k] * jnp.pad(y, ((0, 0), (back, 0), (0, 0)))[:, : y.shape[1]]
        y = y + silu(total)
    return y


def ema(p, x, direction, _):
    rows = slice(direction * D, (direction + 1) * D)
    delta, alpha, beta, gamma = (p[key][rows] for key in ("delta", "alpha", "beta", "gamma"))
    forget = 1 - jax.nn.sigmoid(delta) * jax.nn.sigmoid(alpha)
    h, out = jnp.zeros(x.shape[:1] + forget.shape), []
    for t in range(x.shape[1]):
        h = jax.nn.sigmoid(delta) * beta * x[:, t, :, None] + forget * h
        out.append((gamma * h).sum(-1) / np.sqrt(STATES))
    return jnp.stack(out, 1)


def mix(p, x, options):
    mixer = convolutions if options["tcnca"] else ema
    y = mixer(p, x, 0, options["causal"])
    if not options["causal"]:
        y = y + mixer(p, x[:, ::-1], 1, False)[:, ::-1]
    return silu(y + p["omega"] * x)


def attend(q, k, v, table, options):
    """Attention of each query, computed separately over its valid keys."""
    rows = []
    for b in range(BATCH):
        end = LENGTH if options["causal"] else LENGTHS[b]
        for i in range(LENGTH):
            first = i // CHUNK * CHUNK
            keys = np.arange(first, min(first + CHUNK, end, i + 1 if options["causal"] else end))
            if len(keys) == 0:
                rows.append(jnp.zeros(H))
                continue
            dot, bias = k[b, keys] @ q[b, i], table[CHUNK - 1 + keys - i]
            if options["laplace"]:
                score = dot / len(keys) + bias
                weight = (1 + jax.lax.erf((score - np.sqrt(0.5)) / (np.sqrt(0.25 / np.pi) * np.sqrt(2)))) / 2
            else:
                weight = jax.nn.softmax(dot / np.sqrt(Z) + bias)
            rows.append(weight @ v[b, keys])
    return jnp.stack(rows).reshape(BATCH, LENGTH, H)


def block(p, x, options):
    tcnca = options["tcnca"]
    normed = layer_norm(x, p["norm_gain"], p["norm_bias"]) if tcnca else x
    valid = normed if options["causal"] else normed * (np.arange(LENGTH) < LENGTHS[:, None])[:, :, None]
    mixed = mix(p, valid, options)
    table = rotary_table(p["rotary_a"][None], p["rotary_b"][None], CHUNK)[0] if tcnca else p["table"]
    v = silu(normed @ p["wv"] + p["bv"])
    if options["gates"]:
        u, z, r, hx = jnp.split(mixed @ p["wm"] + p["bm"], [D, D + Z, D + Z + H], axis=-1)
    else:
        z = mixed @ p["wz"] + p["bz"]
    z = silu(z)
    o = attend(z * p["gq"] + p["mq"], z * p["gk"] + p["mk"], v, table, options)
    if options["gates"]:
        h = silu(hx + (o * silu(r)) @ p["wh"] + p["bh"])
        y = x + jax.nn.sigmoid(u) * (h - x)
    else:
        y = x + silu(o @ p["wh"] + p["bh"])
    forward = lambda a: silu(a @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    if tcnca:
        return y + forward(layer_norm(y, p["ffn_gain"], p["ffn_bias"]))
    y = scale_norm(y, p["norm_gain"])
    return scale_norm(y + forward(y), p["ffn_gain"])


def uses(options):
    """The parameters of a case and their numbers of rows."""
    d = {"bh": D, "b2": D, "omega": D, "wv": D, "bv": H, "gq": Z, "mq": Z, "gk": Z, "mk": Z, "wh": H, "w1": D,
         "b1": FFN, "w2": FFN}
    directions = 1 if options["causal"] else 2
    d |= {"wm": D, "bm": 2 * D + Z + H} if options["gates"] else {"wz": D, "bz": Z}
    if options["tcnca"]:
        d |= {key: D for key in ("norm_gain", "norm_bias", "ffn_gain", "ffn_bias")}
        d |= {"weight": directions * len(DILATIONS), "rotary_a": Z, "rotary_b": Z}
        return d | ({"bias": len(DILATIONS)} if options["causal"] else {})
    d |= {"norm_gain": 1, "ffn_gain": 1, "table": 2 * CHUNK - 1}
    return d | {key: directions * D for key in ("delta", "alpha", "beta", "gamma")}


def case(name, inputs, **options):
    params = {key: jnp.asarray(inputs[key][:rows]) for key, rows in uses(options).items()}
    params["x"] = jnp.asarray(inputs["x"])
    y, pull = jax.vjp(lambda p: block(p, p["x"], options), params)
    grad_y = inputs["grad_y"]
    if not options["causal"]:
        grad_y = grad_y * (np.arange(LENGTH) < LENGTHS[:, None])[:, :, None]
    gradients = pull(jnp.asarray(grad_y))[0]
    return name, options, {"y": y} | {"grad_" + key: gradients[key] for key in params}


def main():
    rng = np.random.default_rng(20240503)
    mixed = 2 * D + Z + H
    shapes = dict(wv=(D, H), bv=(H,), omega=(D,), wm=(D, mixed), bm=(mixed,), wz=(D, Z), bz=(Z,), gq=(Z,), mq=(Z,),
                  gk=(Z,), mk=(Z,), wh=(H, D), bh=(D,), w1=(D, FFN), b1=(FFN,), w2=(FFN, D), b2=(D,), norm_gain=(D,),
                  norm_bias=(D,), ffn_gain=(D,), ffn_bias=(D,), weight=(2 * len(DILATIONS), TAPS, D),
                  bias=(len(DILATIONS), D), rotary_a=(Z,), rotary_b=(Z,), delta=(2 * D, STATES), alpha=(2 * D, STATES),
                  beta=(2 * D, STATES), gamma=(2 * D, STATES), table=(2 * CHUNK - 1,), x=(BATCH, LENGTH, D),
                  grad_y=(BATCH, LENGTH, D))
    inputs = {key: numbers(rng, *shape) for key, shape in shapes.items()}
    cases = [("inputs", {}, inputs | {"lengths": LENGTHS})]
    for causal, laplace in ((1, 0), (1, 1), (0, 0), (0, 1)):
        name = ("causal_" if causal else "both_ways_") + ("laplace" if laplace else "softmax")
        cases.append(case("tcnca_" + name, inputs, tcnca=1, gates=1, causal=causal, laplace=laplace))
        cases.append(case("mega_" + name, inputs, tcnca=0, gates=1, causal=causal, laplace=laplace))
    cases.append(case("simple_causal_softmax", inputs, tcnca=1, gates=0, causal=1, laplace=0))
    cases.append(case("simple_both_ways_softmax", inputs, tcnca=1, gates=0, causal=0, laplace=0))
    write(os.path.join(HERE, "layer.txt"), cases)


if __name__ == "__main__":
    main()
