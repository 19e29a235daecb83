"""ema: MEGA's damped exponential moving average, as a recurrence."""
import dataclasses

from ..kernels import Pass, accumulate_type, call
from ..shapes import EmaShape, parse
from . import common
from .common import (absent, along, any_of, autocast, axis_of, clear_outside, define, empty_sequence, extents, in_type,
                     in_types, layout_of, refuse_gradients, sequences_of)

NAMES = ("delta", "alpha", "beta", "gamma", "omega")
_inputs = "x:bcn:T delta:rs:A alpha:rs:A beta:rs:A gamma:rs:A omega:c:A state_in:pcs:A "
_tables = "offsets:z:N slots:u:N"
FORWARD = Pass.define("ema", "ema_forward", _inputs + "y:bcn:T state_out:pcs:A " + _tables)
BACKWARD = Pass.define(
    "ema", "ema_backward", _inputs + "grad_y:bcn:T grad_state_out:pcs:A grad_x:bcn:T grad_delta:rs:A grad_alpha:rs:A "
    "grad_beta:rs:A grad_gamma:rs:A grad_omega:c:A grad_state_in:pcs:A " + _tables)


def _inputs_of(x, parameters, state):
    dtype = accumulate_type(x.dtype)
    return along(x, axis_of(layout_of(x))), *(in_type("ema", n, p, dtype, x.dtype)
                                              for n, p in zip(NAMES, parameters)), state


def _shape(x, shape):
    return dataclasses.replace(parse(EmaShape, shape), order=layout_of(x))


def _results(x, state, shape, return_state, offsets, slots, max_length):
    batch, channels, length = extents("ema", "x", x, 3)
    sequences = sequences_of("ema", "x", x, state, return_state, offsets, slots, max_length)
    y = empty_sequence(x, layout_of(x), batch, channels, length)
    if not return_state:
        return y, absent(x)
    rows = sequences if slots is None else state.shape[0]
    return y, x.new_empty((rows, channels, parse(EmaShape, shape).states), dtype=accumulate_type(x.dtype))


def _run_forward(x, parameters, state_in, y, state_out, shape, offsets, slots, max_length):
    clear_outside(y, offsets, 2)
    tensors = *_inputs_of(x, parameters, state_in), y, state_out, offsets, slots
    call(FORWARD, _shape(x, shape), x.dtype, x.device, tensors, {"max_length": max_length})


def _forward(x, delta, alpha, beta, gamma, omega, state, shape, return_state, offsets=None, slots=None, max_length=0):
    y, state_out = _results(x, state, shape, return_state, offsets, slots, max_length)
    if return_state and slots is not None:
        state_out.copy_(state)  # rows that no sequence has
    _run_forward(x, (delta, alpha, beta, gamma, omega), state, y, state_out if return_state else None, shape, offsets,
                 slots, max_length)
    return y, state_out


def _forward_fake(x, delta, alpha, beta, gamma, omega, state, shape, return_state, offsets=None, slots=None,
                  max_length=0):
    return _results(x, state, shape, return_state, offsets, slots, max_length)


def _gradients(x, parameters, state, needed):
    """Uninitialized gradients of x, the parameters and the state."""
    dtype = accumulate_type(x.dtype)
    return (empty_sequence(x, layout_of(x), *x.shape) if needed[0] else absent(x),
            *(p.new_empty(p.shape, dtype=dtype) if n else absent(x) for p, n in zip(parameters, needed[1:6])),
            state.new_empty(state.shape) if needed[6] else absent(x))


def _backward(grad_y, grad_state, x, delta, alpha, beta, gamma, omega, state, shape, needed, offsets=None, slots=None,
              max_length=0):
    parameters = delta, alpha, beta, gamma, omega
    gradients = _gradients(x, parameters, state, needed)
    if needed[0]:
        clear_outside(gradients[0], offsets, 2)
    if needed[6] and slots is not None:  # of rows that no sequence has: they are the same after the call
        gradients[6].zero_() if grad_state is None else gradients[6].copy_(grad_state)
    tensors = (*_inputs_of(x, parameters, state), along(grad_y, axis_of(layout_of(x))), grad_state,
               *any_of(gradients, needed), offsets, slots)
    call(BACKWARD, _shape(x, shape), x.dtype, x.device, tensors, {"max_length": max_length})
    return gradients


def _backward_fake(grad_y, grad_state, x, delta, alpha, beta, gamma, omega, state, shape, needed, offsets=None,
                   slots=None, max_length=0):
    return _gradients(x, (delta, alpha, beta, gamma, omega), state, needed)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.shape, ctx.return_state, offsets, slots, ctx.max_length = inputs
    ctx.save_for_backward(*tensors, offsets, slots)


def _autograd(ctx, grad_y, grad_state):
    *tensors, offsets, slots = ctx.saved_tensors
    needed = ctx.needs_input_grad[:7]
    gradients = backward_operator(grad_y, grad_state if ctx.return_state else None, *tensors, ctx.shape, needed,
                                  offsets, slots, ctx.max_length)
    return *in_types(gradients, tensors, needed), None, None, None, None, None


def _step(x, delta, alpha, beta, gamma, omega, state, shape, offsets=None, slots=None, max_length=0):
    y = _step_fake(x, delta, alpha, beta, gamma, omega, state, shape, offsets, slots, max_length)
    _run_forward(x, (delta, alpha, beta, gamma, omega), state, y, state, shape, offsets, slots, max_length)
    return y


def _step_fake(x, delta, alpha, beta, gamma, omega, state, shape, offsets=None, slots=None, max_length=0):
    return _results(x, state, shape, False, offsets, slots, max_length)[0]


_schema = "Tensor x, Tensor delta, Tensor alpha, Tensor beta, Tensor gamma, Tensor? omega, "
_table_arguments = "Tensor? offsets=None, Tensor? slots=None, SymInt max_length=0"
forward_operator = define(
    f"ema({_schema}Tensor? state, str shape, bool return_state, {_table_arguments}) -> (Tensor, Tensor)", _forward,
    _forward_fake, _setup_context, _autograd)
backward_operator = define(
    f"ema_backward(Tensor grad_y, Tensor? grad_state, {_schema}Tensor? state, str shape, bool[7] needed, "
    f"{_table_arguments}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)", _backward, _backward_fake)
step_operator = define(f"ema_step({_schema}Tensor(a!) state, str shape, {_table_arguments}) -> Tensor", _step,
                       _step_fake)


def ema(x, delta, alpha, beta, gamma, omega=None, *, shape, state=None, return_state=False, offsets=None, max_length=0,
        slots=None):
    """MEGA's damped exponential moving average (tcnca::ema), with gradients.

    x: [batch, channels, length], of type T, channels or length contiguous; y has its extents, type and layout. delta,
    alpha, beta, gamma: [shape.directions * channels, states]; omega: [channels], if shape.skip; of the type of sums
    (fp32, or fp64 for fp64) or T. state: [batch, channels, states] of the type of sums, or None. offsets, max_length
    and slots: as those of conv_stack.
    Returns y, or (y, the state after x) with return_state.
    """
    if common.segments is not None:
        common.refuse_states("ema", state, return_state, offsets, slots)
        return common.segments.ema(autocast(x), delta, alpha, beta, gamma, omega, shape)
    y, state_out = forward_operator(autocast(x), delta, alpha, beta, gamma, omega, state, shape.source, return_state,
                                    offsets, slots, max_length)
    return (y, state_out) if return_state else y


def ema_step(x, delta, alpha, beta, gamma, omega=None, *, shape, state, offsets=None, max_length=0, slots=None):
    """As ema, and overwrites `state` with the state after x: with slots, the rows of a pool. For inference: it has no
    derivative."""
    refuse_gradients("ema_step", x, delta, alpha, beta, gamma, omega, state)
    return step_operator(autocast(x), delta, alpha, beta, gamma, omega, state, shape.source, offsets, slots, max_length)
