"""gated_fusion: the gates around the matrix products of a layer."""
import torch

from ..kernels import Pass, accumulate_type, call
from ..shapes import GatedFusionShape
from .common import absent, along, any_of, autocast, define, in_type, random_numbers


_keys, _values, _outputs = ("mix", "mix_backward"), ("reset", "reset_backward"), ("update", "update_backward")
MIX = Pass.define("gated_fusion", "mix", "z:bnk:T gq:k:A mq:k:A gk:k:A mk:k:A q:bnk:T k:bnk:T", _keys)
MIX_BACKWARD = Pass.define(
    "gated_fusion", "mix_backward", "z:bnk:T gq:k:A gk:k:A grad_q:bnk:T grad_k:bnk:T grad_z:bnk:T grad_gq:k:A "
    "grad_mq:k:A grad_gk:k:A grad_mk:k:A", _keys)
RESET = Pass.define("gated_fusion", "reset", "o:bnc:T r:bnc:T y:bnc:T", _values)
RESET_BACKWARD = Pass.define("gated_fusion", "reset_backward",
                             "o:bnc:T r:bnc:T grad_y:bnc:T grad_o:bnc:T grad_r:bnc:T", _values)
UPDATE = Pass.define("gated_fusion", "update", "x:bnc:T u:bnc:T hx:bnc:T h:bnc:T y:bnc:T random_state:2:I", _outputs)
UPDATE_BACKWARD = Pass.define(
    "gated_fusion", "update_backward",
    "x:bnc:T u:bnc:T hx:bnc:T h:bnc:T grad_y:bnc:T grad_x:bnc:T grad_u:bnc:T grad_hx:bnc:T grad_h:bnc:T "
    "random_state:2:I", _outputs)
ANY_SHAPE = GatedFusionShape()  # mix and reset do not depend on it


def _empty(*tensors):
    """A contiguous tensor for each argument, of its extents and type; size 0 for an absent one."""
    return tuple(t.new_empty(t.shape) for t in tensors)


def _parameters(z, parameters):
    dtype = accumulate_type(z.dtype)
    return [in_type("gated_fusion", "a gain or mean", p, dtype, z.dtype) for p in parameters]


def _mix(z, gq, mq, gk, mk):
    q, k = _empty(z, z)
    call(MIX, ANY_SHAPE, z.dtype, z.device, (along(z, -1), *_parameters(z, (gq, mq, gk, mk)), q, k))
    return q, k


def _mix_backward(grad_q, grad_k, z, gq, gk, needed):
    gradients = _mix_backward_fake(grad_q, grad_k, z, gq, gk, needed)
    tensors = (along(z, -1), *_parameters(z, (gq, gk)), along(grad_q, -1), along(grad_k, -1),
               *any_of(gradients, needed))
    call(MIX_BACKWARD, ANY_SHAPE, z.dtype, z.device, tensors)
    return gradients


def _mix_backward_fake(grad_q, grad_k, z, gq, gk, needed):
    dtype = accumulate_type(z.dtype)
    return (_empty(z)[0] if needed[0] else absent(z),
            *(gq.new_empty(gq.shape, dtype=dtype) if n else absent(gq) for n in needed[1:]))


def _mix_setup(ctx, inputs, output):
    z, gq, mq, gk, mk = inputs
    ctx.save_for_backward(z, gq, gk)
    ctx.dtypes = [t.dtype for t in inputs]


def _mix_autograd(ctx, grad_q, grad_k):
    gradients = mix_backward_operator(grad_q, grad_k, *ctx.saved_tensors, ctx.needs_input_grad)
    return tuple(g.to(dtype) if n else None for g, dtype, n in zip(gradients, ctx.dtypes, ctx.needs_input_grad))


mix_operator = define("mix(Tensor z, Tensor gq, Tensor mq, Tensor gk, Tensor mk) -> (Tensor, Tensor)", _mix,
                      lambda z, gq, mq, gk, mk: _empty(z, z), _mix_setup, _mix_autograd)
mix_backward_operator = define(
    "mix_backward(Tensor grad_q, Tensor grad_k, Tensor z, Tensor gq, Tensor gk, bool[5] needed) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)", _mix_backward, _mix_backward_fake)


def _reset(o, r):
    y, = _empty(o)
    call(RESET, ANY_SHAPE, o.dtype, o.device, (along(o, -1), along(r, -1), y))
    return y


def _reset_backward(grad_y, o, r, needed):
    gradients = _reset_backward_fake(grad_y, o, r, needed)
    tensors = along(o, -1), along(r, -1), along(grad_y, -1), *any_of(gradients, needed)
    call(RESET_BACKWARD, ANY_SHAPE, o.dtype, o.device, tensors)
    return gradients


def _reset_backward_fake(grad_y, o, r, needed):
    return tuple(_empty(o)[0] if n else absent(o) for n in needed)


def _reset_autograd(ctx, grad_y):
    return any_of(reset_backward_operator(grad_y, *ctx.saved_tensors, ctx.needs_input_grad), ctx.needs_input_grad)


reset_operator = define("reset(Tensor o, Tensor r) -> Tensor", _reset, lambda o, r: _empty(o)[0],
                        lambda ctx, inputs, output: ctx.save_for_backward(*inputs), _reset_autograd)
reset_backward_operator = define(
    "reset_backward(Tensor grad_y, Tensor o, Tensor r, bool[2] needed) -> (Tensor, Tensor)", _reset_backward,
    _reset_backward_fake)


def _shape(u, hx, dropout):
    # Without a reset gate: it is a pass of its own, and update does not depend on it.
    return GatedFusionShape(update_gate=u is not None, reset_gate=False, mixer_path=hx is not None, dropout=dropout > 0)


def passes(shape, dropout, dtype, widest, backward):
    """The passes that a layer with these gates calls for activations of type dtype, those of `update` being of type
    `widest`. Forward and backward passes are compiled together."""
    found = [(MIX, ANY_SHAPE, dtype)] + [(RESET, ANY_SHAPE, dtype)] * shape.reset_gate
    for drop in (0, dropout) if dropout > 0 and backward else (0,):
        found.append((UPDATE, _shape(shape.update_gate or None, shape.mixer_path or None, drop), widest))
    return found


def _dropout(dropout, seed):
    return {"integers": {"seed": seed, "offset": 0}, "reals": {"dropout": dropout}}


def _update(h, x, u, hx, seed, dropout):
    y, = _empty(h)
    seed, random_state = random_numbers(seed)
    tensors = *(along(t, -1) for t in (x, u, hx, h)), y, random_state
    call(UPDATE, _shape(u, hx, dropout), h.dtype, h.device, tensors, **_dropout(dropout, seed))
    return y


def _update_backward(grad_y, h, x, u, hx, seed, dropout, needed):
    gradients = _update_backward_fake(grad_y, h, x, u, hx, seed, dropout, needed)
    grad_h, grad_x, grad_u, grad_hx = any_of(gradients, needed)
    seed, random_state = random_numbers(seed)
    tensors = (*(along(t, -1) for t in (x if u is not None else None, u, hx, h, grad_y)), grad_x, grad_u, grad_hx,
               grad_h, random_state)
    call(UPDATE_BACKWARD, _shape(u, hx, dropout), h.dtype, h.device, tensors, **_dropout(dropout, seed))
    return gradients


def _update_backward_fake(grad_y, h, x, u, hx, seed, dropout, needed):
    return tuple(_empty(h)[0] if n else absent(h) for n in needed)


def _update_setup(ctx, inputs, output):
    *tensors, ctx.dropout = inputs
    ctx.save_for_backward(*tensors)


def _update_autograd(ctx, grad_y):
    needed = ctx.needs_input_grad[:4]
    gradients = update_backward_operator(grad_y, *ctx.saved_tensors, ctx.dropout, needed)
    return *any_of(gradients, needed), None, None


update_operator = define(
    "update(Tensor h, Tensor x, Tensor? u, Tensor? hx, Tensor? seed, float dropout) -> Tensor", _update,
    lambda h, x, u, hx, seed, dropout: _empty(h)[0], _update_setup, _update_autograd)
update_backward_operator = define(
    "update_backward(Tensor grad_y, Tensor h, Tensor x, Tensor? u, Tensor? hx, Tensor? seed, float dropout, "
    "bool[4] needed) -> (Tensor, Tensor, Tensor, Tensor)", _update_backward, _update_backward_fake)


def mix(z, gq, mq, gk, mk):
    """q = silu(z) gq + mq, k = silu(z) gk + mk. z: [batch, length, key_dim], of type T, also a slice of a product;
    the others: [key_dim], of the type of sums or T."""
    return mix_operator(autocast(z), gq, mq, gk, mk)


def reset(o, r):
    """o silu(r), both [batch, length, value_dim]."""
    return reset_operator(autocast(o), autocast(r))


def update(h, x, u=None, hx=None, *, dropout=0.0, seed=None):
    """x + sigmoid(u) (keep silu(hx + h) - x); without u: x + keep silu(hx + h); without hx: silu(h). All are [batch,
    length, channels]; they are converted to their widest type. keep is the factor of dropout; seed: an int64 tensor on
    the CPU with one element, by default drawn from PyTorch's generator; or [2], seed and offset, on the device of h:
    the kernel reads them, so that each replay of a captured graph can have its own mask."""
    dtype = h.dtype
    for t in (x, u, hx):
        dtype = dtype if t is None else torch.promote_types(dtype, t.dtype)
    if dropout > 0 and seed is None:
        seed = new_seed()
    seed = seed if dropout > 0 else None
    return update_operator(*(None if t is None else t.to(dtype) for t in (h, x, u, hx)), seed, float(dropout))


def new_seed():
    return torch.randint(2**62, (), device="cpu")
