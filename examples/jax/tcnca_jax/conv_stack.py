"""conv_stack: a stack of dilated depthwise convolutions."""
import dataclasses
import functools

import jax

from .arguments import (cast, check, check_parameters, integers, like, results_with_tables, rows_of_state,
                        sequence_axes, tables_of, with_tables, zeros)
from .primitive import accumulate_type, run, vary_alike
from .shared.shapes import CHANNELS_LAST, ConvStackShape

OPERATION = "conv_stack"
_sequences = ("x", "state_in", "y", "state_out", "grad_y", "grad_state_out", "grad_x", "grad_state_in")


@dataclasses.dataclass(frozen=True)
class _Static:
    shape: ConvStackShape
    return_state: bool
    integers: tuple


def _run(name, static, operands, results, traced, tables, aliases=None):
    swapped = _sequences if static.shape.order == CHANNELS_LAST else ()
    initial = zeros(results, {"y", "grad_x"} & results.keys()) if "offsets" in tables else None
    return run(OPERATION, name, static.shape, with_tables(operands, tables), results_with_tables(results, tables),
               dtype=operands["x"][0].dtype, integers=dict(static.integers) | traced, aliases=aliases, initial=initial,
               swapped=swapped)


def _inputs(shape, x, weight, bias, omega, state):
    axes = sequence_axes(shape)
    # Shapes of later versions of the library may ask for parameters in the type of sums.
    dtype = accumulate_type(x.dtype) if getattr(shape, "weights", "element") == "accumulate" else x.dtype
    weight, bias, omega = (cast(p, dtype) for p in (weight, bias, omega))
    return {"x": (x, axes), "weight": (weight, "__g"), "bias": (bias, "_g"), "omega": (omega, "g"),
            "state_in": (state, axes)}


def _run_forward(static, inputs, traced, tables, aliases=None):
    x, axes = inputs["x"]
    results = {"y": (axes, x.shape, x.dtype)}
    if static.return_state:
        rows = rows_of_state(x, inputs["state_in"][0], tables)
        results["state_out"] = axes, state_extents(static.shape, x, rows), accumulate_type(x.dtype)
    found = _run("conv_stack_forward", static, inputs, results, traced, tables, aliases)
    return found["y"], found.get("state_out")


def state_extents(shape, x, rows):
    remembered = shape.receptive_field - 1
    if shape.order == CHANNELS_LAST:
        return rows, remembered, x.shape[2]
    return rows, x.shape[1], remembered


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_stack(static, tensors, traced, tables):
    return _run_forward(static, _inputs(static.shape, *tensors), traced, tables)


def _forward(static, tensors, traced, tables):
    return _conv_stack(static, tensors, traced, tables), (tensors, traced, tables)


def _backward(static, residuals, gradients):
    tensors, traced, tables = residuals
    x, weight, bias, omega, state = tensors
    grad_y, grad_state = gradients
    axes, sums = sequence_axes(static.shape), accumulate_type(x.dtype)
    results = {"grad_x": (axes, x.shape, x.dtype), "grad_weight": ("__g", weight.shape, sums)}
    if bias is not None:
        results["grad_bias"] = "_g", bias.shape, sums
    if omega is not None:
        results["grad_omega"] = "g", omega.shape, sums
    if state is not None:
        results["grad_state_in"] = axes, state.shape, sums
    operands = _inputs(static.shape, *tensors) | {"grad_y": (grad_y, axes), "grad_state_out": (grad_state, axes)}
    found = _run("conv_stack_backward", static, operands, results, traced, tables)
    names = "grad_x", "grad_weight", "grad_bias", "grad_omega", "grad_state_in"
    return like((found.get(name) for name in names), tensors), None, None


_conv_stack.defvjp(_forward, _backward)


def _check(x, weight, bias, omega, state):
    check(OPERATION, "x", x, 3, x.dtype)
    check_parameters(OPERATION, x.dtype, weight=(weight, 3), bias=(bias, 2), omega=(omega, 1))
    check(OPERATION, "state", state, 3, accumulate_type(x.dtype))


def conv_stack(x, weight, bias=None, omega=None, *, shape, state=None, position=0, return_state=False, offsets=None,
               max_length=0, positions=None):
    """A stack of dilated depthwise convolutions (tcnca::conv_stack), with gradients.

    x: [batch, channels, length], or [batch, length, channels] if shape.order says so, of type T; y is like it. weight:
    [weight_sets, taps, channels], tap 0 the newest sample; bias: [weight_sets, channels], if shape.bias; omega:
    [channels], if shape.skip; of type T or of the type of sums, in which they then get gradients that are not rounded.
    state: [batch, channels, receptive_field - 1], what came before x, with its axes in the order of x; or None.
    position: that of x's first sample; may be traced.
    offsets: int32 [sequences + 1], the cu_seqlens of other libraries: x has a batch of 1 and holds sequences one after
    the other, of at most max_length samples (0: the length of x); states have a row for each. positions: integers
    [sequences], the position of each. Both may be traced.
    Returns y, or (y, the state after x) with return_state.
    """
    _check(x, weight, bias, omega, state)
    static, traced = integers(OPERATION, position=position, max_length=max_length)
    y, state_out = _conv_stack(_Static(shape, return_state, static), vary_alike((x, weight, bias, omega, state)),
                               traced, tables_of(OPERATION, x, offsets, None, positions))
    return (y, state_out) if return_state else y


def conv_stack_step(x, weight, bias=None, omega=None, *, shape, state, position=0, offsets=None, max_length=0,
                    slots=None, positions=None):
    """As conv_stack with return_state; the new state takes the memory of the old one. slots: int32, the row of the
    state, a pool, that each sequence or row of the batch uses; negative: none. Other rows stay as they are. For
    inference: it has no derivative."""
    _check(x, weight, bias, omega, state)
    static, traced = integers(OPERATION, position=position, max_length=max_length)
    inputs, tables = _inputs(shape, x, weight, bias, omega, state), tables_of(OPERATION, x, offsets, slots, positions)
    return _run_forward(_Static(shape, True, static), inputs, traced, tables, {"state_in": "state_out"})
