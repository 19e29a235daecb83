"""conv_stack: a stack of dilated depthwise convolutions."""
import dataclasses

from ..kernels import Pass, accumulate_type, call
from ..shapes import ConvStackShape, parse
from . import common
from .common import (absent, along, any_of, autocast, axis_of, clear_outside, define, empty_sequence, extents, in_type,
                     in_types, layout_of, refuse_gradients, sequences_of)

_inputs = "x:bcn:T weight:wtc:W bias:wc:W omega:c:W state_in:pcs:A "
_tables = "offsets:z:N slots:u:N positions:u:I"
FORWARD = Pass.define("conv_stack", "conv_stack_forward", _inputs + "y:bcn:T state_out:pcs:A " + _tables)
BACKWARD = Pass.define(
    "conv_stack", "conv_stack_backward", _inputs +
    "grad_y:bcn:T grad_state_out:pcs:A grad_x:bcn:T grad_weight:wtc:A grad_bias:wc:A grad_omega:c:A "
    "grad_state_in:pcs:A " + _tables)


def _parameters(x, shape, *parameters):
    sums = accumulate_type(x.dtype)
    dtype, other = (sums, x.dtype) if shape.weights == "accumulate" else (x.dtype, sums)
    names = ("weight", "bias", "omega")
    return [in_type("conv_stack", n, p, dtype, other) for n, p in zip(names, parameters)]


def _shape(shape, order):
    return dataclasses.replace(parse(ConvStackShape, shape), order=order)


def _run_forward(x, parameters, state_in, y, state_out, shape, order, position, offsets, slots, positions, max_length):
    axis, shape = axis_of(order), _shape(shape, order)
    tensors = (along(x, axis), *_parameters(x, shape, *parameters), along(state_in, axis), y, state_out, offsets, slots,
               positions)
    call(FORWARD, shape, x.dtype, x.device, tensors, {"position": position, "max_length": max_length})


def _results(x, state, shape, return_state, offsets, slots, max_length):
    batch, channels, length = extents("conv_stack", "x", x, 3)
    order = layout_of(x)
    sequences = sequences_of("conv_stack", "x", x, state, return_state, offsets, slots, max_length)
    y = empty_sequence(x, order, batch, channels, length)
    if not return_state:
        return y, absent(x)
    rows, remembered = sequences if slots is None else state.shape[0], parse(ConvStackShape, shape).receptive_field - 1
    return y, empty_sequence(x, order, rows, channels, remembered, accumulate_type(x.dtype))


def _forward(x, weight, bias, omega, state, shape, position, return_state, offsets=None, slots=None, positions=None,
             max_length=0):
    y, state_out = _results(x, state, shape, return_state, offsets, slots, max_length)
    clear_outside(y, offsets, 2)
    if return_state and slots is not None:
        state_out.copy_(state)  # rows that no sequence has
    _run_forward(x, (weight, bias, omega), state, y, state_out if return_state else None, shape, layout_of(x), position,
                 offsets, slots, positions, max_length)
    return y, state_out


def _forward_fake(x, weight, bias, omega, state, shape, position, return_state, offsets=None, slots=None,
                  positions=None, max_length=0):
    return _results(x, state, shape, return_state, offsets, slots, max_length)


def _gradients(x, weight, bias, omega, state, needed):
    """Uninitialized gradients; those of parameters in the type of sums."""
    order, dtype = layout_of(x), accumulate_type(x.dtype)
    makers = (lambda: empty_sequence(x, order, *x.shape), lambda: weight.new_empty(weight.shape, dtype=dtype),
              lambda: bias.new_empty(bias.shape, dtype=dtype), lambda: omega.new_empty(omega.shape, dtype=dtype),
              lambda: empty_sequence(x, order, *state.shape, dtype))
    return tuple(make() if n else absent(x) for make, n in zip(makers, needed, strict=True))


def _backward(grad_y, grad_state, x, weight, bias, omega, state, shape, position, needed, offsets=None, slots=None,
              positions=None, max_length=0):
    order = layout_of(x)
    axis, shape = axis_of(order), _shape(shape, order)
    gradients = _gradients(x, weight, bias, omega, state, needed)
    if needed[0]:
        clear_outside(gradients[0], offsets, 2)
    if needed[4] and slots is not None:  # of rows that no sequence has: they are the same after the call
        gradients[4].zero_() if grad_state is None else gradients[4].copy_(grad_state)
    tensors = (along(x, axis), *_parameters(x, shape, weight, bias, omega), along(state, axis), along(grad_y, axis),
               along(grad_state, axis), *any_of(gradients, needed), offsets, slots, positions)
    call(BACKWARD, shape, x.dtype, x.device, tensors, {"position": position, "max_length": max_length})
    return gradients


def _backward_fake(grad_y, grad_state, x, weight, bias, omega, state, shape, position, needed, offsets=None, slots=None,
                   positions=None, max_length=0):
    return _gradients(x, weight, bias, omega, state, needed)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.shape, ctx.position, ctx.return_state, offsets, slots, positions, ctx.max_length = inputs
    ctx.save_for_backward(*tensors, offsets, slots, positions)


def _autograd(ctx, grad_y, grad_state):
    *tensors, offsets, slots, positions = ctx.saved_tensors
    needed = ctx.needs_input_grad[:5]
    gradients = backward_operator(grad_y, grad_state if ctx.return_state else None, *tensors, ctx.shape, ctx.position,
                                  needed, offsets, slots, positions, ctx.max_length)
    return *in_types(gradients, tensors, needed), *(None for _ in range(7))


def _step(x, weight, bias, omega, state, shape, position, offsets=None, slots=None, positions=None, max_length=0):
    y = _step_fake(x, weight, bias, omega, state, shape, position, offsets, slots, positions, max_length)
    clear_outside(y, offsets, 2)
    _run_forward(x, (weight, bias, omega), state, y, state, shape, layout_of(state), position, offsets, slots,
                 positions, max_length)
    return y


def _step_fake(x, weight, bias, omega, state, shape, position, offsets=None, slots=None, positions=None, max_length=0):
    batch, channels, length = extents("conv_stack", "x", x, 3)
    sequences_of("conv_stack", "x", x, state, True, offsets, slots, max_length)
    return empty_sequence(x, layout_of(state), batch, channels, length)


_table_arguments = "Tensor? offsets=None, Tensor? slots=None, Tensor? positions=None, SymInt max_length=0"
forward_operator = define(
    "conv_stack(Tensor x, Tensor weight, Tensor? bias, Tensor? omega, Tensor? state, str shape, SymInt position, "
    f"bool return_state, {_table_arguments}) -> (Tensor, Tensor)", _forward, _forward_fake, _setup_context, _autograd)
backward_operator = define(
    "conv_stack_backward(Tensor grad_y, Tensor? grad_state, Tensor x, Tensor weight, Tensor? bias, Tensor? omega, "
    f"Tensor? state, str shape, SymInt position, bool[5] needed, {_table_arguments}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)", _backward, _backward_fake)
step_operator = define(
    "conv_stack_step(Tensor x, Tensor weight, Tensor? bias, Tensor? omega, Tensor(a!) state, str shape, "
    f"SymInt position, {_table_arguments}) -> Tensor", _step, _step_fake)


def conv_stack(x, weight, bias=None, omega=None, *, shape, state=None, position=0, return_state=False, offsets=None,
               max_length=0, slots=None, positions=None):
    """A stack of dilated depthwise convolutions (tcnca::conv_stack), with gradients.

    x: [batch, channels, length], of type T, channels or length contiguous; y has its extents, type and layout.
    weight: [weight_sets, taps, channels], tap 0 the newest sample; bias: [weight_sets, channels], if shape.bias; omega:
    [channels], if shape.skip; of type T or of the type of sums, in which they then get gradients that are not rounded.
    One of these types needs no conversion: that which shape.weights names.
    state: [batch, channels, receptive_field - 1], what came before x, or None; position: that of x's first sample.
    offsets: int32 [sequences + 1], the cu_seqlens of other libraries: x has a batch of 1 and holds sequences one after
    the other, of at most max_length samples (0: the length of x); states have a row for each. slots: int32, the row of
    the states that each sequence (or row of the batch) uses, negative for none; the state after x is then a copy of
    `state` with these rows replaced. positions: int64, the position of each sequence. These three are on x's device.
    Returns y, or (y, the state after x) with return_state.
    """
    if common.segments is not None:
        common.refuse_states("conv_stack", state, position, return_state, offsets, slots, positions)
        return common.segments.conv_stack(autocast(x), weight, bias, omega, shape)
    y, state_out = forward_operator(autocast(x), weight, bias, omega, state, shape.source, position, return_state,
                                    offsets, slots, positions, max_length)
    return (y, state_out) if return_state else y


def conv_stack_step(x, weight, bias=None, omega=None, *, shape, state, position=0, offsets=None, max_length=0,
                    slots=None, positions=None):
    """As conv_stack, and overwrites `state` with the state after x: with slots, the rows of a pool. For inference: it
    has no derivative. One of the last two axes of the state must be contiguous; y has that layout."""
    refuse_gradients("conv_stack_step", x, weight, bias, omega, state)
    return step_operator(autocast(x), weight, bias, omega, state, shape.source, position, offsets, slots, positions,
                         max_length)
