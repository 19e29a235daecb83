"""Sequences split over the processes of a group: each rank holds a contiguous segment. See DISTRIBUTED.md."""
import contextlib
import datetime

import torch
import torch.distributed as dist

from .operators import attention, common, conv_stack as stack, ema
from .operators.common import empty_sequence, layout_of
from .shapes import ConvStackShape, EmaShape, parse


@contextlib.contextmanager
def sequence_parallel(length, group=None, parts=8, timeout=None):
    """Within this context conv_stack, ema, chunked_attention and the modules made of them take their input for a
    segment of a longer sequence: that of rank r follows that of rank r - 1. All ranks of the group enter the context,
    call the same operations in the same order with the same batch and channels, and run backward passes.

    length: of this rank's segment; ranks may differ. group: by default all processes. parts: into how many parts ema
    divides channels and batch, so that ranks overlap. timeout: seconds that a rank waits for another one, by default
    that of the group. Yields the Segments. Gradients of parameters are those of the rank's own positions: see
    sum_gradients, or use DDP or FSDP.
    """
    outer, common.segments = common.segments, Segments(length, group, parts, timeout)
    try:
        yield common.segments
    finally:
        common.segments = outer


class Segments:
    """Where this rank's segment lies. first: the position of its first sample in the sequence; rest: how many samples
    follow it."""

    def __init__(self, length, group, parts, timeout):
        self.group = dist.group.WORLD if group is None else group
        self.rank, self.size, self.length = dist.get_rank(self.group), dist.get_world_size(self.group), length
        self.most_parts, self.timeout = parts, None if timeout is None else datetime.timedelta(seconds=timeout)
        device = "cuda" if dist.get_backend(self.group) == "nccl" else "cpu"
        found = [torch.empty(2, dtype=torch.int64, device=device) for _ in range(self.size)]
        with self._explained("another rank", "the lengths of all segments"):
            work = dist.all_gather(found, torch.tensor([length, parts], device=device), self.group, async_op=True)
            self._wait(work)
        self.lengths, parts = zip(*(f.tolist() for f in found))
        if min(self.lengths) < 1 or min(parts) < 1 or len(set(parts)) > 1:
            raise ValueError(f"tcnca_torch: the segments of the ranks have lengths {self.lengths} and parts {parts}, "
                             "expected positive lengths, and the same positive number of parts on all ranks")
        self.first, self.rest = sum(self.lengths[:self.rank]), sum(self.lengths[self.rank + 1:])

    @torch.compiler.disable
    def conv_stack(self, x, weight, bias, omega, shape):
        self._check("conv_stack", x, 2, shape)
        return _ConvStack.apply(self, shape.source, x, weight, bias, omega)

    @torch.compiler.disable
    def ema(self, x, delta, alpha, beta, gamma, omega, shape):
        self._check("ema", x, 2, shape)
        return _Ema.apply(self, shape.source, x, delta, alpha, beta, gamma, omega)

    def position_for_chunks(self, q, chunk):
        """The position of the first query, for attention within chunks: no chunk may lie in two segments."""
        self._check("chunked_attention", q, 2)
        ends = self.lengths[:-1]
        if any(n % chunk != 0 for n in ends):
            raise ValueError(f"tcnca::chunked_attention: the segments of all ranks but the last must be multiples of "
                             f"the chunk, {chunk}; their lengths are {self.lengths}")
        return self.first

    def _check(self, operation, x, axis, shape=None):
        if x.shape[axis] != self.length:
            raise ValueError(f"tcnca::{operation}: the input has {x.shape[axis]} positions, but sequence_parallel was "
                             f"entered with a segment of {self.length}")
        if shape is not None and shape.dir != "causal":
            raise ValueError(f"tcnca::{operation}: the shape is {shape.dir}; sequences split over processes must be "
                             "causal")

    # Messages. All of a group and direction arrive in the order of their sending.

    @contextlib.contextmanager
    def _explained(self, rank, what):
        try:
            yield
        except RuntimeError as error:
            limit = "the group's time-out" if self.timeout is None else f"{self.timeout.total_seconds():g} s"
            raise RuntimeError(f"tcnca_torch: rank {self.rank} of {self.size} waited for {rank} to exchange {what}. "
                               f"That rank has ended, or did not make the same call within {limit}. "
                               f"({str(error).splitlines()[0]})") from error

    def _wait(self, work):
        if work is not None:
            work.wait() if self.timeout is None else work.wait(self.timeout)

    def send(self, tensor, rank, what):
        """Begins to send a tensor. Returns a function that waits until it may be released."""
        tensor = tensor.contiguous()
        with self._explained(f"rank {rank}", what):
            work = dist.isend(tensor, dist.get_global_rank(self.group, rank), self.group)
        return self._waiter(work, tensor, rank, what)

    def receive(self, extents, dtype, device, rank, what):
        """Begins to receive a tensor. Returns a function that waits for it."""
        tensor = torch.empty(extents, dtype=dtype, device=device)
        with self._explained(f"rank {rank}", what):
            work = dist.irecv(tensor, dist.get_global_rank(self.group, rank), self.group)
        return self._waiter(work, tensor, rank, what)

    def _waiter(self, work, tensor, rank, what):
        def wait():
            with self._explained(f"rank {rank}", what):
                self._wait(work)
            return tensor
        return wait

    def neighbours(self, tensors, count, back, what):
        """The `count` samples of the sequence before those of the tensors, which are concatenated along the channels,
        fewer if it begins there; with `back`, those after them. Segments shorter than `count` pass on what they
        receive."""
        step, have, far = (-1, self.rest, self.first) if back else (1, self.first, self.rest)
        receives, sends = min(have, count), min(have + self.length, count) if far > 0 else 0
        own = torch.cat([_edge(t, min(sends, self.length), back) for t in tensors], 1)
        sent = self.send(own, self.rank + step, what) if 0 < sends <= self.length else None
        found = own[:, :, :0]
        if receives > 0:
            found = self.receive((*own.shape[:2], receives), own.dtype, own.device, self.rank - step, what)()
        if sends > self.length:
            both = torch.cat([own, found] if back else [found, own], 2)
            sent = self.send(_edge(both, sends, back), self.rank + step, what)
        if sent is not None:
            sent()
        return found

    def parts(self, x):
        """Slices of batch and channels: channels first, because they do not divide the sums of parameters' gradients;
        blocks of 16 channels keep vectors whole."""
        batch, channels = x.shape[:2]
        blocks = max(1, channels // 16)
        columns = min(self.most_parts, blocks)
        rows = min(max(1, batch), self.most_parts // columns)
        ends = [blocks * i // columns * 16 for i in range(columns)] + [channels]
        edges = [batch * i // rows for i in range(rows + 1)]
        return [(slice(*b), slice(*c)) for b in zip(edges, edges[1:]) for c in zip(ends, ends[1:])]


def _edge(t, count, back):
    """The first samples, with `back`, or the last ones."""
    return t[:, :, :count] if back else t[:, :, t.shape[2] - count:]


def _joined(x, after):
    """[x, after] along the sequence axis, in the layout of x."""
    length = x.shape[2]
    joined = empty_sequence(x, layout_of(x), *x.shape[:2], length + after.shape[2])
    joined[:, :, :length], joined[:, :, length:] = x, after
    return joined


def _needed(ctx, gradients, tensors):
    """The gradients of tensors that need one, in their types."""
    needed = ctx.needs_input_grad[2:]
    return *(g.to(t.dtype) if t is not None and n else None for g, t, n in zip(gradients, tensors, needed)),


class _ConvStack(torch.autograd.Function):
    """Each rank receives the samples that its outputs and gradients depend on, receptive_field - 1 on either side, and
    computes what it needs of its neighbours' activations again: no rank waits for another one's results."""

    @staticmethod
    def forward(ctx, segments, shape, x, weight, bias, omega):
        ctx.segments, ctx.shape = segments, shape
        ctx.count = parse(ConvStackShape, shape).receptive_field - 1
        before = segments.neighbours([x], ctx.count, False, "samples (conv_stack, forward)")
        ctx.position, state = before.shape[2], None
        if ctx.position > 0:
            before = _joined(x[:, :, :0], before)
            state = stack.forward_operator(before, weight, bias, omega, None, shape, 0, True)[1]
        y, after = stack.forward_operator(x, weight, bias, omega, state, shape, ctx.position, segments.rest > 0)
        ctx.save_for_backward(x, weight, bias, omega, state, after)
        return y

    @staticmethod
    def backward(ctx, grad_y):
        *tensors, state, state_after = ctx.saved_tensors
        x, *parameters = tensors
        needed = *ctx.needs_input_grad[2:], False
        after = ctx.segments.neighbours([x, grad_y], ctx.count, True, "samples and gradients (conv_stack, backward)")
        if after.shape[2] == 0:
            return None, None, *_needed(ctx, stack.backward_operator(
                grad_y, None, *tensors, state, ctx.shape, ctx.position, needed), tensors)
        length = x.shape[2]
        x_after, grad_after = after.tensor_split(2, 1)
        gradients = stack.backward_operator(_joined(grad_y, grad_after), None, _joined(x, x_after), *parameters, state,
                                            ctx.shape, ctx.position, needed)
        own = [gradients[0][:, :, :length] if needed[0] else None, *gradients[1:4]]
        if any(needed[1:]):  # the sums over this rank's positions: without those over the samples of the next ranks
            others = stack.backward_operator(grad_after, None, _joined(x[:, :, :0], x_after), *parameters, state_after,
                                             ctx.shape, ctx.position + length, (False, *needed[1:]))
            own[1:] = (a - b for a, b in zip(own[1:], others[1:4]))
        return None, None, *_needed(ctx, own, tensors)


class _Ema(torch.autograd.Function):
    """Each rank receives the state of the previous one and, backward, the gradient of the next one's state: part for
    part of the channels and the batch, so that rank r computes a part while rank r + 1 computes the part before it."""

    @staticmethod
    def forward(ctx, segments, shape, x, *parameters):
        ctx.segments, ctx.shape, ctx.parts = segments, shape, segments.parts(x)
        states = _States(segments, ctx, x, -1, "states (ema, forward)")
        y, kept = empty_sequence(x, layout_of(x), *x.shape), []
        for i, (b, c) in enumerate(ctx.parts):
            kept.append(states.received(i))
            # Always with a state: the bits of ema differ between calls with and without one.
            y[b, c], after = ema.forward_operator(x[b, c], *_rows(parameters, c), kept[i], shape, True)
            states.send(after)
        states.finish()
        ctx.save_for_backward(x, *parameters, *kept)
        return y

    @staticmethod
    def backward(ctx, grad_y):
        x, *rest = ctx.saved_tensors
        parameters, kept = rest[:5], rest[5:]
        tensors = x, *parameters
        states = _States(ctx.segments, ctx, x, 1, "gradients of states (ema, backward)")
        needed = ctx.needs_input_grad[2:]
        gradients = ema._gradients(x, parameters, None, (*needed, False))[:6]
        for g in gradients[1:]:
            g.zero_()
        for i, (b, c) in enumerate(ctx.parts):
            part = ema.backward_operator(grad_y[b, c], states.received(i), x[b, c], *_rows(parameters, c), kept[i],
                                         ctx.shape, (*needed, kept[i] is not None))
            if needed[0]:
                gradients[0][b, c] = part[0]
            for whole, g, n in zip(gradients[1:], part[1:6], needed[1:]):
                if n:
                    whole[c] += g
            states.send(part[6])
        states.finish()
        return None, None, *_needed(ctx, gradients, tensors)


def _rows(parameters, channels):
    return [None if p is None else p[channels] for p in parameters]


class _States:
    """The messages of a pass of ema: from the rank `source` away to the one on the other side."""

    def __init__(self, segments, ctx, x, source, what):
        self.segments, self.what, self.sent = segments, what, []
        self.source, self.target = segments.rank + source, segments.rank - source
        self.waiters, dtype = [], common.accumulate_type(x.dtype)
        if 0 <= self.source < segments.size:
            states = parse(EmaShape, ctx.shape).states
            for b, c in ctx.parts:
                extents = b.stop - b.start, c.stop - c.start, states
                self.waiters.append(segments.receive(extents, dtype, x.device, self.source, what))

    def received(self, part):
        return self.waiters[part]() if self.waiters else None

    def send(self, state):
        if 0 <= self.target < self.segments.size:
            self.sent.append(self.segments.send(state, self.target, self.what))

    def finish(self):
        for wait in self.sent:
            wait()


def sum_gradients(parameters, group=None):
    """Replaces the gradient of each parameter by the sum over the ranks of the group, added in the order of the ranks:
    the same bits on all ranks and from run to run. parameters: a module, or tensors; one without a gradient counts as
    zeros. Every rank adds a slice, so that memory and traffic are those of an all-reduce."""
    group = dist.group.WORLD if group is None else group
    if isinstance(parameters, torch.nn.Module):
        parameters = parameters.parameters()
    parameters = [p for p in parameters if p.requires_grad]
    for kind in sorted({(str(p.device), str(p.dtype)) for p in parameters}):
        chosen = [p for p in parameters if (str(p.device), str(p.dtype)) == kind]
        for p in chosen:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        _sum_in_rank_order([p.grad for p in chosen], group)


def _sum_in_rank_order(tensors, group):
    size = dist.get_world_size(group)
    flat = torch.cat([t.reshape(-1) for t in tensors])
    slices = torch.cat([flat, flat.new_zeros(-len(flat) % size)])
    found = torch.empty_like(slices)
    dist.all_to_all_single(found, slices, group=group)
    own, *others = found.view(size, -1)
    for other in others:
        own += other
    dist.all_gather_into_tensor(slices, own, group)
    first = 0
    for t in tensors:
        t.copy_(slices[first:first + t.numel()].view_as(t))
        first += t.numel()
