"""chunked_attention: attention within chunks of a sequence, and the rotary form of its biases."""
import dataclasses
import functools

import jax
import jax.numpy as jnp

from .arguments import (cast, check, check_parameters, integers, like, results_with_tables, rows_of_state, seed_of,
                        tables_of, with_tables, zeros)
from .primitive import accumulate_type, pairs, run, vary_alike
from .shared.shapes import ChunkedAttentionShape

OPERATION = "chunked_attention"
_axes = "bg__"


@dataclasses.dataclass(frozen=True)
class _Static:
    shape: ChunkedAttentionShape
    return_state: bool
    integers: tuple
    scale: float
    dropout: float

    @property
    def chunk(self):
        return dict(self.integers)["chunk"]


def _run(name, static, operands, results, traced, tables, aliases=None, initial=()):
    """initial: results that are zeros where nothing is written."""
    if "offsets" in tables:
        initial = {*initial, *({"o", "grad_q", "grad_k", "grad_v"} & results.keys())}
    return run(OPERATION, name, static.shape, with_tables(operands, tables), results_with_tables(results, tables),
               dtype=operands["q"][0].dtype, integers=dict(static.integers) | traced,
               reals={"scale": static.scale, "dropout": static.dropout}, aliases=aliases,
               initial=zeros(results, sorted(initial)))


def _inputs(q, k, v, bias, keys, values, lengths):
    return {"q": (q, _axes), "k": (k, _axes), "v": (v, _axes), "bias": (cast(bias, accumulate_type(q.dtype)), "g_"),
            "lengths": (None if lengths is None else pairs(lengths), "b_"), "keys_in": (keys, _axes),
            "values_in": (values, _axes)}


def state_extents(static, t, rows):
    return rows, t.shape[1], static.chunk, t.shape[3]


def _run_forward(static, tensors, lengths, traced, tables, statistics=False, aliases=None):
    """o, the new state or None, and the statistics or None."""
    q, k, v, _, keys, _ = tensors
    results = {"o": (_axes, v.shape, v.dtype)}
    if statistics and static.shape.function == "softmax":
        results["lse"] = _axes, (*q.shape[:3], 2), accumulate_type(q.dtype)
    initial = ()
    if static.return_state:
        for name, t in (("keys_out", k), ("values_out", v)):
            results[name] = _axes, state_extents(static, t, rows_of_state(q, keys, tables)), t.dtype
        if aliases is None:  # places in the chunk that no position belongs to are not written
            initial = "keys_out", "values_out"
    found = _run("attention_forward", static, _inputs(*tensors, lengths), results, traced, tables, aliases, initial)
    state = (found["keys_out"], found["values_out"]) if static.return_state else None
    return found["o"], state, found.get("lse")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(static, tensors, lengths, traced, tables):
    return _run_forward(static, tensors, lengths, traced, tables)[:2]


def _forward(static, tensors, lengths, traced, tables):
    o, state, lse = _run_forward(static, tensors, lengths, traced, tables, statistics=True)
    return (o, state), (tensors, lengths, traced, tables, o if lse is not None else None, lse)


def _backward(static, residuals, gradients):
    tensors, lengths, traced, tables, o, lse = residuals
    q, k, v, bias, keys, values = tensors
    grad_o, grad_state = gradients
    sums = accumulate_type(q.dtype)
    grad_keys, grad_values = (cast(g, sums) for g in grad_state or (None, None))
    results = {f"grad_{n}": (_axes, t.shape, t.dtype) for n, t in zip("qkv", (q, k, v))}
    if bias is not None:
        results["grad_bias"] = "g_", bias.shape, sums
    initial = ()
    if keys is not None:
        initial = "grad_keys_in", "grad_values_in"  # places that the forward pass does not read are not written
        results |= {n: (_axes, t.shape, sums) for n, t in zip(initial, (keys, values))}
    operands = _inputs(*tensors, lengths) | {
        "o": (o, _axes), "lse": (lse, _axes), "grad_o": (grad_o, _axes), "grad_keys_out": (grad_keys, _axes),
        "grad_values_out": (grad_values, _axes)}
    found = _run("attention_backward", static, operands, results, traced, tables, initial=initial)
    names = "grad_q", "grad_k", "grad_v", "grad_bias", "grad_keys_in", "grad_values_in"
    return like((found.get(name) for name in names), tensors), None, None, None


_attention.defvjp(_forward, _backward)


def _check(q, k, v, bias, keys, values, lengths):
    for name, t in (("q", q), ("k", k), ("v", v), ("keys", keys), ("values", values)):
        check(OPERATION, name, t, 4, q.dtype)
    check_parameters(OPERATION, q.dtype, bias=(bias, 2))
    check(OPERATION, "lengths", lengths, 1, jnp.int32, jnp.int64)


def _static(shape, bias, return_state, numbers, scale, dropout, tables):
    shape = dataclasses.replace(shape, bias=bias is not None, dropout=dropout > 0, packed=bool(tables))
    return _Static(shape, return_state, numbers, float(scale), float(dropout))


def chunked_attention(q, k, v, bias=None, *, shape, chunk, lengths=None, state=None, position=0, scale=0.0,
                      dropout=0.0, key=None, return_state=False, offsets=None, max_length=0, positions=None):
    """Attention within chunks of a sequence (tcnca::chunked_attention), with gradients.

    q, k: [batch, heads, length, key_dim]; v: [batch, heads, length, value_dim]; of one type T. bias: [heads, 2 chunk -
    1], of the type of sums or T. lengths: integers [batch]. scale 0 stands for the default: key_dim^-1/2 for softmax.
    shape.bias and shape.dropout are set from the arguments. state: the keys and the values [batch, heads, chunk,
    key_dim | value_dim] of the chunk to which `position` belongs, or None; position may be traced. key: of jax.random,
    for dropout. offsets, max_length and positions: packed sequences, as those of conv_stack; lengths and states then
    have a row for each sequence.
    Returns o, or (o, (keys, values)) with return_state.
    """
    keys, values = state or (None, None)
    tensors = q, k, v, bias, keys, values
    _check(*tensors, lengths)
    numbers, traced = integers(OPERATION, chunk=chunk, position=position, max_length=max_length)
    tables = tables_of(OPERATION, q, offsets, None, positions)
    static = _static(shape, bias, return_state, numbers, scale, dropout, tables)
    o, state_out = _attention(static, vary_alike(tensors), lengths, traced | seed_of(OPERATION, key, dropout), tables)
    return (o, state_out) if return_state else o


def chunked_attention_step(q, k, v, bias=None, *, shape, chunk, state, position=0, lengths=None, scale=0.0,
                           offsets=None, max_length=0, slots=None, positions=None):
    """As chunked_attention with return_state; appends k and v to the state, in its memory. slots: as those of
    conv_stack_step. For inference: it has no derivative."""
    tensors = q, k, v, bias, *state
    _check(*tensors, lengths)
    numbers, traced = integers(OPERATION, chunk=chunk, position=position, max_length=max_length)
    tables = tables_of(OPERATION, q, offsets, slots, positions)
    static = _static(shape, bias, True, numbers, scale, 0.0, tables)
    aliases = {"keys_in": "keys_out", "values_in": "values_out"}
    return _run_forward(static, tensors, lengths, traced, tables, aliases=aliases)[:2]


ANY_SHAPE = ChunkedAttentionShape()  # a table of biases does not depend on it


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rotary(chunk, a, b):
    results = {"bias": ("g_", (a.shape[0], max(2 * chunk - 1, 0)), a.dtype)}
    return run(OPERATION, "rotary", ANY_SHAPE, {"a": (a, "g_"), "b": (b, "g_")}, results, dtype=a.dtype,
               integers={"chunk": chunk})["bias"]


def _rotary_backward(chunk, residuals, grad):
    a, b = residuals
    results = {"grad_a": ("g_", a.shape, a.dtype), "grad_b": ("g_", b.shape, b.dtype)}
    operands = {"a": (a, "g_"), "b": (b, "g_"), "grad_bias": (grad, "g_")}
    found = run(OPERATION, "rotary_backward", ANY_SHAPE, operands, results, dtype=a.dtype, integers={"chunk": chunk})
    return found["grad_a"], found["grad_b"]


_rotary.defvjp(lambda chunk, a, b: (_rotary(chunk, a, b), (a, b)), _rotary_backward)


def rotary_bias(a, b, chunk):
    """The table of biases [heads, 2 chunk - 1] of MEGA's rotary form. a, b: [heads, dim], dim even; the table has the
    type of sums."""
    check(OPERATION, "a", a, 2, a.dtype)
    check(OPERATION, "b", b, 2, a.dtype)
    sums = accumulate_type(a.dtype)
    return _rotary(chunk, *vary_alike((cast(a, sums), cast(b, sums))))
