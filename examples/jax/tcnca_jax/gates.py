"""gated_fusion: the gates around the matrix products of a layer."""
import dataclasses
import functools

import jax
import jax.numpy as jnp

from .arguments import cast, check, check_parameters, like, seed_of
from .primitive import accumulate_type, run, vary_alike
from .shared.shapes import GatedFusionShape

OPERATION = "gated_fusion"
ANY_SHAPE = GatedFusionShape()  # mix and reset do not depend on it
_axes = "b_g"


def _run(name, shape, operands, results, **options):
    """A pass whose first operand has the type T."""
    first, _ = next(iter(operands.values()))
    return run(OPERATION, name, shape, operands, results, dtype=first.dtype, **options)


@jax.custom_vjp
def _mix(z, gq, mq, gk, mk):
    sums = accumulate_type(z.dtype)
    parameters = {n: (cast(p, sums), "g") for n, p in zip(("gq", "mq", "gk", "mk"), (gq, mq, gk, mk))}
    results = {n: (_axes, z.shape, z.dtype) for n in ("q", "k")}
    return tuple(_run("mix", ANY_SHAPE, {"z": (z, _axes), **parameters}, results).values())


def _mix_backward(tensors, gradients):
    z, gq, mq, gk, mk = tensors
    sums = accumulate_type(z.dtype)
    grad_q, grad_k = gradients
    operands = {"z": (z, _axes), "gq": (cast(gq, sums), "g"), "gk": (cast(gk, sums), "g"), "grad_q": (grad_q, _axes),
                "grad_k": (grad_k, _axes)}
    results = {"grad_z": (_axes, z.shape, z.dtype)}
    results |= {f"grad_{n}": ("g", gq.shape, sums) for n in ("gq", "mq", "gk", "mk")}
    return like(_run("mix_backward", ANY_SHAPE, operands, results).values(), tensors)


_mix.defvjp(lambda *tensors: (_mix(*tensors), tensors), _mix_backward)


def mix(z, gq, mq, gk, mk):
    """q = silu(z) gq + mq, k = silu(z) gk + mk. z: [batch, length, key_dim], of type T; the others: [key_dim], of the
    type of sums or T."""
    check(OPERATION, "z", z, 3, z.dtype)
    check_parameters(OPERATION, z.dtype, gq=(gq, 1), mq=(mq, 1), gk=(gk, 1), mk=(mk, 1))
    return _mix(*vary_alike((z, gq, mq, gk, mk)))


@jax.custom_vjp
def _reset(o, r):
    return _run("reset", ANY_SHAPE, {"o": (o, _axes), "r": (r, _axes)}, {"y": (_axes, o.shape, o.dtype)})["y"]


def _reset_backward(tensors, grad_y):
    o, r = tensors
    operands = {"o": (o, _axes), "r": (r, _axes), "grad_y": (grad_y, _axes)}
    results = {"grad_o": (_axes, o.shape, o.dtype), "grad_r": (_axes, r.shape, r.dtype)}
    return tuple(_run("reset_backward", ANY_SHAPE, operands, results).values())


_reset.defvjp(lambda o, r: (_reset(o, r), (o, r)), _reset_backward)


def reset(o, r):
    """o silu(r), both [batch, length, value_dim] and of one type."""
    check(OPERATION, "o", o, 3, o.dtype)
    check(OPERATION, "r", r, 3, o.dtype)
    return _reset(*vary_alike((o, r)))


def _shape(u, hx, dropout):
    # Without a reset gate: it is a pass of its own, and update does not depend on it.
    return GatedFusionShape(update_gate=u is not None, reset_gate=False, mixer_path=hx is not None, dropout=dropout > 0)


def _update_inputs(h, x, u, hx):
    return {"h": (h, _axes), "x": (x, _axes), "u": (u, _axes), "hx": (hx, _axes)}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _update(dropout, tensors, seed):
    h, _, u, hx = tensors
    return _run("update", _shape(u, hx, dropout), _update_inputs(*tensors), {"y": (_axes, h.shape, h.dtype)},
                integers=seed, reals={"dropout": dropout})["y"]


def _update_backward(dropout, residuals, grad_y):
    (h, x, u, hx), seed = residuals
    operands = _update_inputs(h, None if u is None else x, u, hx) | {"grad_y": (grad_y, _axes)}
    given = {"h": True, "x": True, "u": u is not None, "hx": hx is not None}
    results = {f"grad_{n}": (_axes, h.shape, h.dtype) for n, there in given.items() if there}
    found = _run("update_backward", _shape(u, hx, dropout), operands, results, integers=seed,
                 reals={"dropout": dropout})
    return tuple(found.get(f"grad_{n}") for n in given), None


_update.defvjp(lambda dropout, tensors, seed: (_update(dropout, tensors, seed), (tensors, seed)), _update_backward)


def update(h, x, u=None, hx=None, *, dropout=0.0, key=None):
    """x + sigmoid(u) (keep silu(hx + h) - x); without u: x + keep silu(hx + h); without hx: silu(h). All are [batch,
    length, channels]; they are converted to their widest type. keep is the factor of dropout; key: of jax.random."""
    dtype = functools.reduce(jnp.promote_types, (t.dtype for t in (h, x, u, hx) if t is not None))
    tensors = [cast(t, dtype) for t in (h, x, u, hx)]
    for name, t in zip(("h", "x", "u", "hx"), tensors):
        check(OPERATION, name, t, 3, dtype)
    return _update(float(dropout), vary_alike(tensors), seed_of(OPERATION, key, dropout))
