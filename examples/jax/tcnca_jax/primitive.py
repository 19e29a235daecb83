"""One primitive of JAX for all passes: what it computes under jit, eagerly, under vmap and in shard_map."""
import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir, xla

from . import kernels


@dataclasses.dataclass(frozen=True)
class Call:
    """The static part of a call. The axes of an array are a string with one letter for each: b, the batch; g, channels,
    columns or heads that are independent of each other; another letter, any other axis. Swapped: a sequence with its
    channels last."""
    operation: str
    name: str
    shape: object
    dtype: str
    operands: tuple  # (member, axes) of each operand; those that are no tensors of the argument struct have axes ""
    results: tuple  # (member, axes, extents, dtype)
    integers: tuple  # (member, value)
    reals: tuple
    aliases: tuple  # (index of an operand, index of a result)
    swapped: frozenset  # members


primitive = Primitive("tcnca")
primitive.multiple_results = True
primitive.def_impl(functools.partial(xla.apply_primitive, primitive))


def accumulate_type(dtype):
    """The type of sums, states and gradients of parameters."""
    return jnp.dtype("float64" if jnp.dtype(dtype) == jnp.float64 else "float32")


def run(operation, name, shape, operands, results, *, dtype, integers=None, reals=None, aliases=None, initial=None,
        swapped=()):
    """Calls a pass.

    operands: {member: (array, axes)}; an array of None is left out. results: {member: (axes, extents, dtype)}.
    integers, reals: {member: number}; an integer may be an array of `pairs`. aliases: {member of the operands: member
    of the results} whose memory is shared. initial: {member of the results: array} with what it holds where nothing is
    written. Returns {member: array}.
    """
    dtype = jnp.dtype(dtype).name
    if dtype not in kernels.ELEMENTS:
        raise ValueError(f"tcnca::{operation}: the type is {dtype}, expected one of {', '.join(kernels.ELEMENTS)}")
    arrays, described, static = [], [], []
    for member, (array, axes) in operands.items():
        if array is None:
            continue
        arrays.append(array)
        described.append((member, axes))
    for member, number in (integers or {}).items():
        if isinstance(number, int):
            static.append((member, number))
        else:
            arrays.append(number)
            described.append((member, ""))
    names = [member for member, _ in described]
    shared = [(names.index(member), list(results).index(result)) for member, result in (aliases or {}).items()]
    for result, array in (initial or {}).items():
        shared.append((len(arrays), list(results).index(result)))
        arrays.append(array)
        described.append(("", results[result][0]))
    call = Call(operation, name, shape, dtype, tuple(described),
                tuple((n, axes, tuple(extents), jnp.dtype(t).name) for n, (axes, extents, t) in results.items()),
                tuple(static), tuple((n, float(v)) for n, v in (reals or {}).items()), tuple(shared),
                frozenset(swapped))
    return dict(zip(results, primitive.bind(*vary_alike(arrays), call=call)))


def pairs(integers):
    """64-bit integers as an array of pairs of 32 bits, the lower ones first."""
    integers = jnp.asarray(integers)
    if integers.dtype.itemsize == 8:
        return jax.lax.bitcast_convert_type(integers, jnp.int32)
    high = integers >> 31 if jnp.issubdtype(integers.dtype, jnp.signedinteger) else jnp.zeros_like(integers)
    return jax.lax.bitcast_convert_type(jnp.stack([integers, high], -1), jnp.int32)


def vary_alike(arrays):
    """In shard_map: arrays that are the same on all devices are marked as different, as the others are. None stays."""
    def axes(a):
        return getattr(getattr(jax.typeof(a), "mat", None), "varying", frozenset())
    varying = functools.reduce(operator.or_, (axes(a) for a in arrays if a is not None), frozenset())
    return tuple(a if a is None or axes(a) == varying else jax.lax.pcast(a, tuple(varying - axes(a)), to="varying")
                 for a in arrays)


@primitive.def_abstract_eval
def _results(*avals, call):
    like = avals[0]  # has the axes of shard_map over which the arrays vary
    return [like.update(shape=extents, dtype=jnp.dtype(dtype), weak_type=False)
            for _, _, extents, dtype in call.results]


def _lower(context, *operands, call, platform):
    tensors, integers, reals = kernels.members(call.operation, call.name)
    index = {member: i for i, (member, _) in enumerate(call.operands)}
    index |= {member: len(call.operands) + i for i, (member, *_) in enumerate(call.results)}
    static, values = dict(call.integers), dict(call.reals)
    attributes = {
        "operation": call.operation,
        "function": kernels.load(call.operation, call.name, call.shape, call.dtype, platform),
        "members": np.array([4 * index[m] + 2 * (m in kernels.IN_PAIRS) + (m in call.swapped) if m in index else -1
                             for m in tensors], np.int64),
        # One more than there are: an empty attribute would have no type.
        "integers": np.array([static.get(m, 0) for m in integers] + [0], np.int64),
        "traced": np.array([index.get(m, -1) for m in integers] + [-1], np.int64),
        "reals": np.array([values.get(m, 0.0) for m in reals] + [0.0], np.float64),
    }
    lower = jax.ffi.ffi_lowering(kernels.TARGET, operand_output_aliases=dict(call.aliases))
    return lower(context, *operands, **attributes)


for _platform in ("cpu", "cuda"):
    mlir.register_lowering(primitive, functools.partial(_lower, platform=_platform), platform=_platform)


def _merge_axis(call, mapped):
    """The axis into which a mapped axis can be merged, so that one call does all: b or g; None if there is none.
    (Masks of dropout depend on the indices of batch and heads; elements of a map have the same masks.)"""
    if dict(call.reals).get("dropout", 0.0) > 0:
        return None
    for letter in "bg":
        axes = [a for (_, a), m in zip(call.operands, mapped) if m] + [a for _, a, *_ in call.results]
        if all(letter in a for a in axes):
            return letter
    return None


def _batch(arrays, dims, *, call):
    mapped = [d is not None for d in dims]
    size = next(a.shape[d] for a, d in zip(arrays, dims) if d is not None)
    letter = _merge_axis(call, mapped)
    if letter is None:
        return _batch_in_turn(arrays, dims, mapped, call)
    merged = []
    for array, dim, (_, axes) in zip(arrays, dims, call.operands):
        at = axes.find(letter)
        if at < 0:
            merged.append(array)
            continue
        if dim is None:
            array = jnp.broadcast_to(jnp.expand_dims(array, at), (*array.shape[:at], size, *array.shape[at:]))
        else:
            array = jnp.moveaxis(array, dim, at)
        merged.append(array.reshape(*array.shape[:at], size * array.shape[at + 1], *array.shape[at + 2:]))
    places = [axes.index(letter) for _, axes, *_ in call.results]
    results = tuple((name, axes, (*extents[:at], size * extents[at], *extents[at + 1:]), dtype)
                    for (name, axes, extents, dtype), at in zip(call.results, places))
    found = primitive.bind(*merged, call=dataclasses.replace(call, results=results))
    split = [y.reshape(*y.shape[:at], size, y.shape[at] // size, *y.shape[at + 1:]) for y, at in zip(found, places)]
    return split, places


def _batch_in_turn(arrays, dims, mapped, call):
    def one(elements):
        elements = iter(elements)
        return primitive.bind(*(next(elements) if m else a for a, m in zip(arrays, mapped)), call=call)
    found = jax.lax.map(one, [jnp.moveaxis(a, d, 0) for a, d in zip(arrays, dims) if d is not None])
    return found, [0] * len(found)


batching.primitive_batchers[primitive] = _batch
