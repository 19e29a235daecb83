"""ema: MEGA's damped exponential moving average, as a recurrence."""
import dataclasses
import functools

import jax

from .arguments import (cast, check, check_parameters, like, results_with_tables, rows_of_state, sequence_axes,
                        tables_of, with_tables, zeros)
from .primitive import accumulate_type, run, vary_alike
from .shared.shapes import CHANNELS_LAST, EmaShape

OPERATION = "ema"
_tables = ("delta", "alpha", "beta", "gamma")


@dataclasses.dataclass(frozen=True)
class _Static:
    shape: EmaShape
    return_state: bool
    max_length: int


def _run(name, static, operands, results, tables, aliases=None):
    swapped = ("x", "y", "grad_y", "grad_x") if static.shape.order == CHANNELS_LAST else ()
    initial = zeros(results, {"y", "grad_x"} & results.keys()) if "offsets" in tables else None
    return run(OPERATION, name, static.shape, with_tables(operands, tables), results_with_tables(results, tables),
               dtype=operands["x"][0].dtype, integers={"max_length": static.max_length}, aliases=aliases,
               initial=initial, swapped=swapped)


def _table_axes(shape):
    return "g_" if shape.directions == 1 else "__"  # rows of both directions: not one for each channel


def _inputs(shape, x, delta, alpha, beta, gamma, omega, state):
    sums = accumulate_type(x.dtype)
    tables = {n: (cast(t, sums), _table_axes(shape)) for n, t in zip(_tables, (delta, alpha, beta, gamma))}
    return {"x": (x, sequence_axes(shape)), **tables, "omega": (cast(omega, sums), "g"), "state_in": (state, "bg_")}


def _run_forward(static, inputs, tables, aliases=None):
    shape, (x, axes) = static.shape, inputs["x"]
    results = {"y": (axes, x.shape, x.dtype)}
    if static.return_state:
        channels = x.shape[2 if shape.order == CHANNELS_LAST else 1]
        rows = rows_of_state(x, inputs["state_in"][0], tables)
        results["state_out"] = "bg_", (rows, channels, shape.states), accumulate_type(x.dtype)
    found = _run("ema_forward", static, inputs, results, tables, aliases)
    return found["y"], found.get("state_out")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ema(static, tensors, tables):
    return _run_forward(static, _inputs(static.shape, *tensors), tables)


def _forward(static, tensors, tables):
    return _ema(static, tensors, tables), (tensors, tables)


def _backward(static, residuals, gradients):
    tensors, tables = residuals
    shape, (x, *parameters, omega, state) = static.shape, tensors
    grad_y, grad_state = gradients
    axes, sums = sequence_axes(shape), accumulate_type(x.dtype)
    results = {"grad_x": (axes, x.shape, x.dtype)}
    results |= {f"grad_{n}": (_table_axes(shape), t.shape, sums) for n, t in zip(_tables, parameters)}
    if omega is not None:
        results["grad_omega"] = "g", omega.shape, sums
    if state is not None:
        results["grad_state_in"] = "bg_", state.shape, sums
    operands = _inputs(shape, *tensors) | {"grad_y": (grad_y, axes), "grad_state_out": (grad_state, "bg_")}
    found = _run("ema_backward", static, operands, results, tables)
    names = "grad_x", *(f"grad_{n}" for n in _tables), "grad_omega", "grad_state_in"
    return like((found.get(name) for name in names), tensors), None


_ema.defvjp(_forward, _backward)


def _check(x, delta, alpha, beta, gamma, omega, state):
    check(OPERATION, "x", x, 3, x.dtype)
    check_parameters(OPERATION, x.dtype, delta=(delta, 2), alpha=(alpha, 2), beta=(beta, 2), gamma=(gamma, 2),
                     omega=(omega, 1))
    check(OPERATION, "state", state, 3, accumulate_type(x.dtype))


def ema(x, delta, alpha, beta, gamma, omega=None, *, shape, state=None, return_state=False, offsets=None,
        max_length=0):
    """MEGA's damped exponential moving average (tcnca::ema), with gradients.

    x: [batch, channels, length], or [batch, length, channels] if shape.order says so, of type T; y is like it. delta,
    alpha, beta, gamma: [shape.directions * channels, states]; omega: [channels], if shape.skip; of the type of sums
    (fp32, or fp64 for fp64) or T. state: [batch, channels, states] of the type of sums, or None. offsets and
    max_length: packed sequences, as those of conv_stack.
    Returns y, or (y, the state after x) with return_state.
    """
    tensors = x, delta, alpha, beta, gamma, omega, state
    _check(*tensors)
    y, state_out = _ema(_Static(shape, return_state, max_length), vary_alike(tensors), tables_of(OPERATION, x, offsets))
    return (y, state_out) if return_state else y


def ema_step(x, delta, alpha, beta, gamma, omega=None, *, shape, state, offsets=None, max_length=0, slots=None):
    """As ema with return_state; the new state takes the memory of the old one. slots: as those of conv_stack_step. For
    inference: it has no derivative."""
    tensors = x, delta, alpha, beta, gamma, omega, state
    _check(*tensors)
    return _run_forward(_Static(shape, True, max_length), _inputs(shape, *tensors),
                        tables_of(OPERATION, x, offsets, slots), {"state_in": "state_out"})
