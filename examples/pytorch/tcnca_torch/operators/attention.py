"""chunked_attention: attention within chunks of a sequence, and the rotary form of its biases."""
import dataclasses

import torch

from ..kernels import Pass, accumulate_type, call
from ..shapes import ChunkedAttentionShape, parse
from . import common
from .common import (absent, along, any_of, autocast, clear_outside, define, extents, in_type, in_types,
                     random_numbers, refuse_gradients, sequences_of)
from .gates import new_seed

_inputs = ("q:bhnk:T k:bgnk:T v:bgnv:T bias:ht:A alibi_slopes:uh:A lengths:u:I head_lengths:uh:I keys_in:pgmk:T "
           "values_in:pgmv:T ")
_tables = "offsets:z:N slots:u:N positions:u:I random_state:2:I"
FORWARD = Pass.define("chunked_attention", "attention_forward",
                      _inputs + "o:bhnv:T lse:bhn2:A keys_out:pgmk:T values_out:pgmv:T " + _tables)
BACKWARD = Pass.define(
    "chunked_attention", "attention_backward", _inputs + "o:bhnv:T lse:bhn2:A grad_o:bhnv:T "
    "grad_keys_out:pgmk:A grad_values_out:pgmv:A grad_q:bhnk:T grad_k:bgnk:T grad_v:bgnv:T grad_bias:ht:A "
    "grad_keys_in:pgmk:A grad_values_in:pgmv:A " + _tables)
_both = "rotary", "rotary_backward"
ROTARY = Pass.define("chunked_attention", "rotary", "a:hd:A b:hd:A bias:ht:A", _both)
ROTARY_BACKWARD = Pass.define("chunked_attention", "rotary_backward",
                              "a:hd:A b:hd:A grad_bias:ht:A grad_a:hd:A grad_b:hd:A", _both)


def _state_like(t, rows, chunk, zeros):
    shape = rows, t.shape[1], chunk, t.shape[3]
    return t.new_zeros(shape) if zeros else t.new_empty(shape)


def _output_like(q, v):
    """o: the layout of v, the heads of q."""
    if q.shape[1] == v.shape[1]:
        return torch.empty_like(along(v, 3))
    return q.new_empty((*q.shape[:3], v.shape[3]))


def _results(q, k, v, keys, shape, chunk, return_state, zeros, offsets, slots, max_length):
    batch, heads, length, _ = extents("chunked_attention", "q", q, 4)
    extents("chunked_attention", "k", k, 4), extents("chunked_attention", "v", v, 4)
    rows = sequences_of("chunked_attention", "q", q, keys, return_state, offsets, slots, max_length)
    if slots is not None and keys is not None:
        rows = keys.shape[0]
    softmax = parse(ChunkedAttentionShape, shape).function == "softmax"
    lse = q.new_empty((batch, heads, length, 2), dtype=accumulate_type(q.dtype)) if softmax else absent(q)
    states = (_state_like(t, rows, chunk, zeros) if return_state else absent(t) for t in (k, v))
    return _output_like(q, v), lse, *states


def _call(p, q, k, v, bias, lengths, keys, values, results, shape, seed, chunk, position, scale, dropout, alibi_slopes,
          window, head_lengths, offsets, slots, positions, max_length):
    """results(shape): the tensors between the inputs and the tables."""
    if q.dim() == k.dim() == 4 and (k.shape[1] == 0 or q.shape[1] % k.shape[1] != 0):
        raise ValueError(f"tcnca::chunked_attention: q has {q.shape[1]} heads, which is no multiple of the "
                         f"{k.shape[1]} heads of k")
    shape, sums = parse(ChunkedAttentionShape, shape), accumulate_type(q.dtype)
    if window > 0 and not shape.causal:
        raise ValueError("tcnca::chunked_attention: a window needs a causal shape")
    seed, random_state = random_numbers(seed)
    tables = offsets, slots, positions, random_state
    shape = dataclasses.replace(
        shape, bias=bias is not None, dropout=dropout > 0, alibi=alibi_slopes is not None, window=window > 0,
        grouped=shape.grouped or q.shape[1] != k.shape[1], head_lengths=head_lengths is not None,
        packed=any(t is not None for t in tables))
    bias = in_type("chunked_attention", "bias", bias, sums, q.dtype)
    q, k, v, keys, values = (along(t, 3) for t in (q, k, v, keys, values))
    integers = {"chunk": chunk, "position": position, "window": window, "seed": seed, "offset": 0,
                "max_length": max_length}
    tensors = q, k, v, bias, alibi_slopes, lengths, head_lengths, keys, values, *results(shape), *tables
    call(p, shape, q.dtype, q.device, tensors, integers, {"scale": scale, "dropout": dropout})


def _run(q, k, v, bias, lengths, keys, values, o, lse, keys_out, values_out, shape, *arguments, offsets):
    clear_outside(o, offsets, 2)
    _call(FORWARD, q, k, v, bias, lengths, keys, values,
          lambda shape: (o, lse if shape.function == "softmax" else None, keys_out, values_out), shape, *arguments)


def _forward(q, k, v, bias, lengths, keys, values, seed, shape, chunk, position, scale, dropout, return_state,
             alibi_slopes=None, window=0, head_lengths=None, offsets=None, slots=None, positions=None, max_length=0):
    # With zeros: slots that no position belongs to are not written.
    results = _results(q, k, v, keys, shape, chunk, return_state, True, offsets, slots, max_length)
    o, lse, keys_out, values_out = results
    if return_state and slots is not None:
        keys_out.copy_(keys), values_out.copy_(values)  # rows that no sequence has
    states = (keys_out, values_out) if return_state else (None, None)
    _run(q, k, v, bias, lengths, keys, values, o, lse, *states, shape, seed, chunk, position, scale, dropout,
         alibi_slopes, window, head_lengths, offsets, slots, positions, max_length, offsets=offsets)
    return results


def _forward_fake(q, k, v, bias, lengths, keys, values, seed, shape, chunk, position, scale, dropout, return_state,
                  alibi_slopes=None, window=0, head_lengths=None, offsets=None, slots=None, positions=None,
                  max_length=0):
    return _results(q, k, v, keys, shape, chunk, return_state, False, offsets, slots, max_length)


def _gradients(q, k, v, bias, keys, values, needed):
    """Of the inputs that need one; those of the states are zeros where no query reads them."""
    dtype = accumulate_type(q.dtype)
    return (*(torch.empty_like(along(t, 3)) if n else absent(q) for t, n in zip((q, k, v), needed)),
            bias.new_empty(bias.shape, dtype=dtype) if needed[3] else absent(q),
            *(t.new_zeros(t.shape, dtype=dtype) if n else absent(q) for t, n in zip((keys, values), needed[4:])))


def _backward(grad_o, grad_keys, grad_values, q, k, v, bias, lengths, keys, values, seed, o, lse, shape, chunk,
              position, scale, dropout, needed, alibi_slopes=None, window=0, head_lengths=None, offsets=None,
              slots=None, positions=None, max_length=0):
    dtype = accumulate_type(q.dtype)
    gradients = _gradients(q, k, v, bias, keys, values, needed)
    for g, n in zip(gradients[:3], needed):
        if n:
            clear_outside(g, offsets, 2)
    states = [None if g is None else along(g.to(dtype), 3) for g in (grad_keys, grad_values)]
    if slots is not None:
        for before, after, n in zip((grad_keys, grad_values), gradients[4:], needed[4:]):
            if n and before is not None:
                _pass_other_rows(before, after, slots)

    def results(shape):
        softmax = shape.function == "softmax"
        return (o if softmax else None, lse if softmax else None, along(grad_o, 3), *states,
                *any_of(gradients, needed))
    _call(BACKWARD, q, k, v, bias, lengths, keys, values, results, shape, seed, chunk, position, scale, dropout,
          alibi_slopes, window, head_lengths, offsets, slots, positions, max_length)
    return gradients


def _pass_other_rows(grad_out, grad_in, slots):
    """The gradient of rows that no sequence has: they are the same after the call."""
    used = torch.zeros(grad_in.shape[0] + 1, dtype=torch.bool, device=slots.device)
    used[torch.where(slots < 0, grad_in.shape[0], slots).long()] = True
    grad_in.copy_(torch.where(used[:-1, None, None, None], 0, grad_out))


def _backward_fake(grad_o, grad_keys, grad_values, q, k, v, bias, lengths, keys, values, seed, o, lse, shape, chunk,
                   position, scale, dropout, needed, *others):
    return _gradients(q, k, v, bias, keys, values, needed)


def _setup_context(ctx, inputs, output):
    (*tensors, ctx.shape, ctx.chunk, ctx.position, ctx.scale, ctx.dropout, ctx.return_state, alibi_slopes, ctx.window,
     head_lengths, offsets, slots, positions, ctx.max_length) = inputs
    ctx.save_for_backward(*tensors, output[0], output[1], alibi_slopes, head_lengths, offsets, slots, positions)


def _autograd(ctx, grad_o, grad_lse, grad_keys, grad_values):
    *tensors, alibi_slopes, head_lengths, offsets, slots, positions = ctx.saved_tensors
    states = (grad_keys, grad_values) if ctx.return_state else (None, None)
    inputs = 0, 1, 2, 3, 5, 6  # those that have a gradient: not the lengths
    needed = [ctx.needs_input_grad[i] for i in inputs]
    found = backward_operator(grad_o, *states, *tensors, ctx.shape, ctx.chunk, ctx.position, ctx.scale, ctx.dropout,
                              needed, alibi_slopes, ctx.window, head_lengths, offsets, slots, positions, ctx.max_length)
    gradients = [None] * 21
    for i, g in zip(inputs, in_types(found, [tensors[i] for i in inputs], needed)):
        gradients[i] = g
    return tuple(gradients)


def _step(q, k, v, bias, lengths, keys, values, shape, chunk, position, scale, alibi_slopes=None, window=0,
          head_lengths=None, offsets=None, slots=None, positions=None, max_length=0):
    sequences_of("chunked_attention", "q", q, keys, True, offsets, slots, max_length)
    o = _output_like(q, v)
    _run(q, k, v, bias, lengths, keys, values, o, None, keys, values, shape, None, chunk, position, scale, 0.0,
         alibi_slopes, window, head_lengths, offsets, slots, positions, max_length, offsets=offsets)
    return o


def _step_fake(q, k, v, *others):
    return _output_like(q, v)


_schema = "Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? lengths, "
_numbers = "str shape, SymInt chunk, SymInt position, float scale"
_options = ("Tensor? alibi_slopes=None, SymInt window=0, Tensor? head_lengths=None, Tensor? offsets=None, "
            "Tensor? slots=None, Tensor? positions=None, SymInt max_length=0")
forward_operator = define(
    f"chunked_attention({_schema}Tensor? keys, Tensor? values, Tensor? seed, {_numbers}, float dropout, "
    f"bool return_state, {_options}) -> (Tensor, Tensor, Tensor, Tensor)", _forward, _forward_fake, _setup_context,
    _autograd)
backward_operator = define(
    f"chunked_attention_backward(Tensor grad_o, Tensor? grad_keys, Tensor? grad_values, {_schema}Tensor? keys, "
    f"Tensor? values, Tensor? seed, Tensor o, Tensor lse, {_numbers}, float dropout, bool[6] needed, {_options}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)", _backward, _backward_fake)
step_operator = define(
    f"chunked_attention_step({_schema}Tensor(a!) keys, Tensor(b!) values, {_numbers}, {_options}) -> Tensor", _step,
    _step_fake)


def chunked_attention(q, k, v, bias=None, *, shape, chunk, lengths=None, state=None, position=0, scale=0.0,
                      dropout=0.0, seed=None, return_state=False, alibi_slopes=None, window=0, head_lengths=None,
                      offsets=None, max_length=0, slots=None, positions=None):
    """Attention within chunks of a sequence (tcnca::chunked_attention), with gradients.

    q, k: [batch, heads, length, key_dim]; v: [batch, heads, length, value_dim]; of one type T, the last axis
    contiguous, for example split from a product. k and v may have fewer heads than q, a divisor of them, which groups
    of heads share. bias: [heads, 2 chunk - 1], of the type of sums or T. lengths: [batch], int64; head_lengths: [batch,
    heads], int64. alibi_slopes: [batch, heads], of the type of sums, without a gradient. window: how many keys a query
    sees at most, 0 for all. scale 0 stands for the default: key_dim^-1/2 for softmax. The members of the shape that
    belong to these options are set from the arguments.
    state: the keys and the values [batch, heads, chunk, key_dim | value_dim] of the chunk to which `position` belongs,
    or None. seed: as that of update. offsets, max_length, slots and positions: as those of conv_stack; lengths,
    head_lengths and alibi_slopes then have a row for each sequence.
    Returns o, or (o, (keys, values)) with return_state.
    """
    if common.segments is not None:
        common.refuse_states("chunked_attention", state, position, return_state, offsets, slots, positions)
        position = common.segments.position_for_chunks(q, chunk)
    if dropout > 0 and seed is None:
        seed = new_seed()
    q, k, v = autocast(q), autocast(k), autocast(v)
    o, _, *state_out = forward_operator(
        q, k, v, bias, lengths, *(state or (None, None)), seed if dropout > 0 else None, shape.source, chunk, position,
        float(scale), float(dropout), return_state, alibi_slopes, window, head_lengths, offsets, slots, positions,
        max_length)
    return (o, tuple(state_out)) if return_state else o


def chunked_attention_step(q, k, v, bias=None, *, shape, chunk, state, position=0, lengths=None, scale=0.0,
                           alibi_slopes=None, window=0, head_lengths=None, offsets=None, max_length=0, slots=None,
                           positions=None):
    """As chunked_attention, and appends k and v to the state, a pair of tensors: with slots, to rows of a pool. For
    inference: it has no derivative."""
    refuse_gradients("chunked_attention_step", q, k, v, bias, *state)
    return step_operator(autocast(q), autocast(k), autocast(v), bias, lengths, *state, shape.source, chunk, position,
                         float(scale), alibi_slopes, window, head_lengths, offsets, slots, positions, max_length)


ANY_SHAPE = ChunkedAttentionShape()  # a table of biases does not depend on it


def _rotary(a, b, chunk):
    table = _rotary_fake(a, b, chunk)
    call(ROTARY, ANY_SHAPE, a.dtype, a.device, (a, b, table), {"chunk": chunk})
    return table


def _rotary_fake(a, b, chunk):
    heads, _ = extents("chunked_attention", "a", a, 2)
    return a.new_empty((heads, max(2 * chunk - 1, 0)))


def _rotary_backward(grad, a, b, chunk):
    gradients = a.new_empty(a.shape), b.new_empty(b.shape)
    call(ROTARY_BACKWARD, ANY_SHAPE, a.dtype, a.device, (a, b, grad, *gradients), {"chunk": chunk})
    return gradients


def _rotary_setup(ctx, inputs, output):
    *tensors, ctx.chunk = inputs
    ctx.save_for_backward(*tensors)


def _rotary_autograd(ctx, grad):
    return *rotary_backward_operator(grad, *ctx.saved_tensors, ctx.chunk), None


rotary_operator = define("rotary_bias(Tensor a, Tensor b, SymInt chunk) -> Tensor", _rotary, _rotary_fake,
                         _rotary_setup, _rotary_autograd)
rotary_backward_operator = define(
    "rotary_bias_backward(Tensor grad, Tensor a, Tensor b, SymInt chunk) -> (Tensor, Tensor)", _rotary_backward,
    lambda grad, a, b, chunk: (a.new_empty(a.shape), b.new_empty(b.shape)))


def rotary_bias(a, b, chunk):
    """The table of biases [heads, 2 chunk - 1] of MEGA's rotary form. a, b: [heads, dim], dim even; the table has the
    type of sums."""
    kind = accumulate_type(a.dtype)
    return rotary_operator(a.to(kind), b.to(kind), chunk)
