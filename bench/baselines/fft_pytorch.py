#!/usr/bin/env python3
"""PyTorch's contenders of conv_vs_fft, called on request: conv_vs_fft starts this program and owns both its ends.

  fft_pytorch.py cpu|cuda THREADS

First it writes "ready" and its version, or "no" and the reason. Then each line of standard input is a request and
gets a line: the result, or "no" and the reason.

  data BATCH CHANNELS LENGTH FILE  x and grad_y [batch, channels, length], kappa [channels, length]
  stack TAPS BASE LEVELS FILE      weight [levels, taps, channels], tap 0 the newest sample
  time NAME PASS SECONDS           calls for that long, at least once; the seconds of the best undisturbed call, or inf
  result NAME PASS FILE            y; or grad_x and the gradients of the parameters, in the order of kappa or weight

Files are fp32 without a header. PASS is forward or backward. NAME is one of
  fft     y = irfft(rfft(x, 2L) * rfft(kappa, 2L))[:L], as frameworks compute MEGA's EMA; the kernel is given
  conv1d  the stack as torch.nn.functional.conv1d, dilated and depthwise, level by level
Backward is torch.autograd.grad on a saved graph: forward is not in its time.
"""
import math
import os
import resource
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    torch, reason = None, error


def read(file, *shape):
    return torch.from_file(file, size=math.prod(shape), dtype=torch.float32).reshape(shape).clone()


def fft_convolution(x, kappa):
    length = x.shape[-1]
    spectrum = torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(kappa, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length]


class Contenders:
    def __init__(self, device, threads):
        self.device, self.threads, self.calls = device, threads, {}

    def data(self, batch, channels, length, file):
        batch, channels, length = int(batch), int(channels), int(length)
        count = batch * channels * length
        all_of_it = read(file, 2 * count + channels * length).to(self.device)
        x, grad, self.kappa = all_of_it.split([count, count, channels * length])
        self.x, self.grad = x.reshape(batch, channels, length), grad.reshape(batch, channels, length)
        self.kappa = self.kappa.reshape(channels, length)
        self.calls.clear()
        return "ok"

    def stack(self, taps, base, levels, file):
        weight = read(file, int(levels), int(taps), self.x.shape[1]).to(self.device)
        self.base = int(base)
        self.weights = [w.flip(0).T.unsqueeze(1).contiguous() for w in weight]  # [channels, 1, taps], oldest first
        self.calls.pop(("conv1d", "forward"), None), self.calls.pop(("conv1d", "backward"), None)
        return "ok"

    def convolutions(self, x, *weights):
        for level, w in enumerate(weights):
            d = self.base**level
            x = F.conv1d(F.pad(x, ((w.shape[-1] - 1) * d, 0)), w, dilation=d, groups=x.shape[1])
        return x

    def call(self, name, direction):
        """The call without arguments; backward with the graph that one forward pass leaves."""
        if (name, direction) not in self.calls:
            function, parameters = {"fft": (fft_convolution, [self.kappa]),
                                    "conv1d": (self.convolutions, getattr(self, "weights", None))}[name]
            if direction == "forward":
                self.calls[name, direction] = lambda: function(self.x, *parameters)
            else:
                inputs = [t.detach().requires_grad_() for t in (self.x, *parameters)]
                y = function(*inputs)
                self.calls[name, direction] = lambda: torch.autograd.grad(y, inputs, self.grad, retain_graph=True)
        return self.calls[name, direction]

    def seconds(self, call):
        """Of one call; inf if threads were not running for part of it because another program was."""
        before, cpu = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        if self.device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        if self.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter() - begin
        wall = time.perf_counter() - begin
        preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > before.ru_nivcsw
        return math.inf if preempted and time.process_time() - cpu < 0.8 * self.threads * wall else wall

    def time(self, name, direction, seconds):
        call, best = self.call(name, direction), math.inf
        begin, budget = time.perf_counter(), float(seconds)
        with torch.set_grad_enabled(direction == "backward"):
            first = self.seconds(call)
            if time.perf_counter() - begin >= budget:
                best = first
            while time.perf_counter() - begin < 0.2 * budget:  # to warm up
                self.seconds(call)
            while time.perf_counter() - begin < budget:
                best = min(best, self.seconds(call))
        self.rest()
        return repr(best)

    def rest(self):
        """Returns when the threads no longer wait actively for work, which takes the next contender's processor."""
        for _ in range(10):
            cpu = time.process_time()
            time.sleep(0.005)
            if time.process_time() - cpu < 0.001:
                break

    def result(self, name, direction, file):
        with torch.set_grad_enabled(direction == "backward"):
            found = self.call(name, direction)()
        if name == "conv1d" and direction == "backward":
            found = [found[0]] + [g.squeeze(1).T.flip(0) for g in found[1:]]
        found = torch.cat([t.flatten() for t in found] if direction == "backward" else [found.flatten()]).cpu()
        torch.from_file(file, shared=True, size=found.numel(), dtype=torch.float32).copy_(found)
        return "ok"


def main():
    device, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    if torch is None:
        print(f"no {reason}", file=answers)
        return
    if device == "cuda" and not torch.cuda.is_available():
        print("no torch finds no GPU", file=answers)
        return
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    contenders = Contenders(device, threads)
    print(f"ready PyTorch {torch.__version__}", file=answers)
    for line in sys.stdin:
        request, *arguments = line.split()
        try:
            print(getattr(contenders, request)(*arguments), file=answers)
        except (RuntimeError, MemoryError) as error:  # torch's errors of memory are RuntimeErrors
            print("no", str(error).split("\n")[0], file=answers)


if __name__ == "__main__":
    main()
