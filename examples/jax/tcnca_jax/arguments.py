"""What the functions share: checks and conversions of their arguments."""
import jax
import jax.numpy as jnp
import numpy as np

from .primitive import accumulate_type, pairs
from .shared.shapes import CHANNELS_LAST


def check(operation, name, array, rank, *dtypes):
    """Refuses an array of another rank or of a type that is not among dtypes. None passes."""
    if array is None:
        return
    if array.ndim != rank:
        raise ValueError(f"tcnca::{operation}: {name} has {array.ndim} dimensions, expected {rank}")
    if array.dtype not in dtypes:
        expected = " or ".join(dict.fromkeys(jnp.dtype(t).name for t in dtypes))
        raise ValueError(f"tcnca::{operation}: {name} is of type {array.dtype.name}, expected {expected}")


def check_parameters(operation, dtype, **parameters):
    """Parameters, as name=(array, rank), are of the type of the sequence or of the type of its sums."""
    for name, (array, rank) in parameters.items():
        check(operation, name, array, rank, dtype, accumulate_type(dtype))


def sequence_axes(shape):
    """The axes of a sequence: see Call."""
    return "b_g" if shape.order == CHANNELS_LAST else "bg_"


def cast(array, dtype):
    return None if array is None else array.astype(dtype)


def like(gradients, arrays):
    """Gradients in the types of what they belong to."""
    return tuple(None if a is None else cast(g, a.dtype) for g, a in zip(gradients, arrays))


def integers(operation, **numbers):
    """Integers that are known while a function is traced, and those that are not, as pairs."""
    static, traced = [], {}
    for name, number in numbers.items():
        if isinstance(number, (int, np.integer)):
            static.append((name, int(number)))
        else:
            number = jnp.asarray(number)
            if number.ndim != 0 or not jnp.issubdtype(number.dtype, jnp.integer):
                raise ValueError(f"tcnca::{operation}: {name} is {number.aval}, expected an integer")
            traced[name] = pairs(number)
    return tuple(static), traced


def tables_of(operation, x, offsets=None, slots=None, positions=None):
    """The tables of packed sequences and of pools of states, as operands; x has a batch axis first."""
    check(operation, "offsets", offsets, 1, jnp.int32)
    check(operation, "slots", slots, 1, jnp.int32)
    check(operation, "positions", positions, 1, jnp.int32, jnp.int64)
    if offsets is not None and x.shape[0] != 1:
        raise ValueError(f"tcnca::{operation}: the batch is {x.shape[0]}, expected 1: with offsets the sequences lie "
                         "one after the other")
    if offsets is not None and offsets.shape[0] == 0:
        raise ValueError(f"tcnca::{operation}: offsets is empty, expected sequences + 1 elements")
    tables = {"offsets": offsets, "slots": slots, "positions": None if positions is None else pairs(positions)}
    return {name: t for name, t in tables.items() if t is not None}


def with_tables(operands, tables):
    """All operands. A row of the batch is not independent of the tables: no axis is b, see Call."""
    if not tables:
        return operands
    return ({name: (array, axes.replace("b", "_")) for name, (array, axes) in operands.items()} |
            {name: (t, "__" if name == "positions" else "_") for name, t in tables.items()})


def results_with_tables(results, tables):
    return {n: (axes.replace("b", "_") if tables else axes, *others) for n, (axes, *others) in results.items()}


def rows_of_state(x, state, tables):
    """The rows of a state after x: one for each sequence, or those of the pool."""
    if "slots" in tables:
        return state.shape[0]
    return x.shape[0] if "offsets" not in tables else tables["offsets"].shape[0] - 1


def zeros(results, names):
    """Positions that no sequence has are not written."""
    return {n: jnp.zeros(results[n][1], results[n][2]) for n in names}


def seed_of(operation, key, dropout):
    """The seed of a mask: 64 random bits, as a pair; {} without dropout."""
    if not dropout > 0:
        return {}
    if key is None:
        raise ValueError(f"tcnca::{operation}: dropout needs a key")
    return {"seed": jax.lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)}
