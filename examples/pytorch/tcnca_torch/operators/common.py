"""What the definitions of all operators share."""
import torch
from torch.autograd import forward_ad

from ..kernels import accumulate_type
from ..shapes import CHANNELS_FIRST, CHANNELS_LAST

segments = None  # the Segments of an active sequence_parallel
LIBRARY = torch.library.Library("tcnca", "DEF")


def define(schema, compute, fake, setup_context=None, backward=None):
    """Defines the operator tcnca::<name>, for CPU and CUDA, and returns it. `fake` gives the extents, strides and types
    of its results. Without `backward` its results have no gradient: asking for one is an error."""
    name = schema.split("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, compute, key)
    torch.library.register_fake(f"tcnca::{name}", fake, lib=LIBRARY)
    if "!" not in schema:  # operators that write their arguments cannot have a formula
        torch.library.register_autograd(f"tcnca::{name}", backward or _no_formula(name), setup_context=setup_context,
                                        lib=LIBRARY)
    operator = getattr(torch.ops.tcnca, name).default

    def call(*arguments):
        _refuse_tangents(name, arguments)
        return operator(*arguments)
    return call


def _refuse_tangents(name, arguments):
    """PyTorch would drop the tangents of arguments silently."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    for a in arguments:
        if isinstance(a, torch.Tensor) and forward_ad.unpack_dual(a).tangent is not None:
            raise NotImplementedError(f"tcnca::{name} has no forward-mode derivative")


def _no_formula(name):
    def backward(ctx, *grads):
        raise NotImplementedError(f"tcnca::{name} has no derivative")
    return backward


def autocast(x):
    """x in the type of the autocast region, if there is one."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(kind))
    return x


def refuse_gradients(name, *tensors):
    """For operators in place: a result without its gradient would be a silent error."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError(f"tcnca::{name} has no derivative: call it under torch.no_grad()")


def in_type(operation, name, parameter, dtype, other):
    """A parameter converted to dtype; it may be of the type `other` instead."""
    if parameter is None or parameter.dtype == dtype:
        return parameter
    if parameter.dtype != other:
        raise ValueError(f"tcnca::{operation}: {name} is of type {parameter.dtype}, expected {dtype} or {other}")
    return parameter.to(dtype)


def extents(operation, name, tensor, rank):
    if tensor.dim() != rank:
        raise ValueError(f"tcnca::{operation}: {name} has {tensor.dim()} dimensions, expected {rank}")
    return tensor.shape


def layout_of(sequence):
    """The layout of a sequence [batch, channels, length]: the axis that is contiguous in memory. Channels first if it
    is both axes, or none: then the operators copy it."""
    last = sequence.stride(1) == 1 and sequence.stride(2) != 1
    return CHANNELS_LAST if last else CHANNELS_FIRST


def axis_of(order):
    return 2 if order == CHANNELS_FIRST else 1


def along(tensor, axis):
    """The tensor, copied unless it is contiguous along the axis."""
    if tensor is None or tensor.stride(axis) == 1 or tensor.size(axis) <= 1:
        return tensor
    return tensor.transpose(axis, -1).contiguous().transpose(axis, -1)


def empty_sequence(like, order, batch, channels, length, dtype=None):
    """A contiguous sequence in a layout."""
    if order == CHANNELS_FIRST:
        return like.new_empty((batch, channels, length), dtype=dtype)
    return like.new_empty((batch, length, channels), dtype=dtype).transpose(1, 2)


def absent(like):
    """Stands for a result that there is not: operators return a fixed number of tensors."""
    return like.new_empty((0,))


def refuse_states(operation, *arguments):
    """Within sequence_parallel, states come from other ranks."""
    if any(a is not None and a is not False and not (isinstance(a, int) and a == 0) for a in arguments):
        raise ValueError(f"tcnca::{operation}: no state, position or return_state within sequence_parallel, and no "
                         "packed sequences: the group passes states on")


def sequences_of(operation, name, tensor, state, return_state, offsets, slots, max_length):
    """The number of sequences in a tensor with a batch axis. Refuses tables that do not fit together; `name` is that of
    the tensor in messages."""
    if offsets is None:
        if max_length != 0:
            raise ValueError(f"tcnca::{operation}: max_length is {max_length}, but there are no offsets")
    elif tensor.shape[0] != 1:
        raise ValueError(f"tcnca::{operation}: {name} has a batch of {tensor.shape[0]}, expected 1: with offsets the "
                         "sequences lie one after the other")
    elif offsets.dim() != 1 or offsets.shape[0] == 0:
        raise ValueError(f"tcnca::{operation}: the extents of offsets are {tuple(offsets.shape)}, expected sequences + "
                         "1")
    if slots is not None and state is None and return_state:
        raise ValueError(f"tcnca::{operation}: slots are rows of a state, but there is none")
    return tensor.shape[0] if offsets is None else offsets.shape[0] - 1


def clear_outside(tensor, offsets, axis):
    """Zeros for the positions before the first and after the last of packed sequences, which the library does not
    write. Where the host cannot read the offsets, for all."""
    if offsets is None:
        return
    known = offsets.device.type == "cpu"
    if not known or offsets[0].item() != 0 or offsets[-1].item() != tensor.shape[axis]:
        tensor.zero_()


def random_numbers(seed):
    """The seed and the random_state of a call, of which one is used: a seed of two elements, seed and offset, is read
    by the kernel."""
    if seed is None:
        return 0, None
    return (0, seed) if seed.dim() == 1 and seed.shape[0] == 2 else (int(seed), None)


def any_of(gradients, needed):
    """Gradients that are needed; absent views for the others."""
    return tuple(g if n else None for g, n in zip(gradients, needed, strict=True))


def in_types(gradients, tensors, needed):
    """What a formula of autograd returns: gradients in the types of what they belong to, None where not needed."""
    return tuple(g.to(t.dtype) if n else None for g, t, n in zip(gradients, tensors, needed))
