#!/usr/bin/env python3
"""FFT convolution and convolutions by level in PyTorch, for the shapes of conv_vs_fft: prints a JSON array of rows.

- fft_given, fft_generated: y = irfft(rfft(x, 2L) * rfft(kappa, 2L))[:L] in fp32 by torch.fft, as frameworks compute
  MEGA's EMA; generated computes kappa from the EMA's parameters (16 states) in the timed call.
- levels: the stack as torch.nn.functional.conv1d, dilated and depthwise, level by level (cuDNN or PyTorch's kernels).

Milliseconds are medians between CUDA events; backward is the time of both passes minus forward. Needs torch.
"""
import argparse
import json
import math

import torch
import torch.nn.functional as F

STACKS = [(4, 4, 6), (8, 8, 5), (17, 16, 4), (51, 51, 3), (4, 4, 9), (8, 8, 6)]  # taps, dilation base, depth


def milliseconds(call, device, repetitions):
    """Median of several calls, after two to warm up."""
    times = []
    for i in range(repetitions + 2):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        else:
            import time
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times[2:])[repetitions // 2]


def ema_kernel(delta, alpha, beta, gamma, length):
    """kappa[c, l] = sum_n gamma s p beta q^l"""
    p = torch.sigmoid(delta)
    q = 1 - p * torch.sigmoid(alpha)
    powers = torch.exp(torch.log(q).unsqueeze(-1) * torch.arange(length, device=q.device, dtype=q.dtype))
    return torch.einsum("cn,cnl->cl", gamma * math.sqrt(1 / delta.shape[1]) * p * beta, powers)


def fft_convolution(x, kappa):
    length = x.shape[-1]
    spectrum = torch.fft.rfft(x.float(), n=2 * length) * torch.fft.rfft(kappa, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length].to(x.dtype)


def stack(x, weights, base):
    for level, w in enumerate(weights):
        d = base**level
        x = F.conv1d(F.pad(x, ((w.shape[-1] - 1) * d, 0)), w, dilation=d, groups=x.shape[1])
    return x


def measure(function, inputs, device, repetitions):
    """Milliseconds forward and backward; None if there is not enough memory."""
    try:
        with torch.no_grad():
            forward = milliseconds(function, device, repetitions)
        y = function()
        grad = torch.randn_like(y)
        both = milliseconds(lambda: torch.autograd.grad(function(), inputs, grad), device, repetitions)
        return {"forward": forward, "backward": both - forward}
    except torch.cuda.OutOfMemoryError:
        return {"forward": None, "backward": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 65536, 131072])
    parser.add_argument("--dtype", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--repetitions", type=int, default=11)
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    rows = []
    for dtype in args.dtype:
        element = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        for length in args.lengths:
            x = torch.randn(args.batch, args.channels, length, device=device, dtype=element, requires_grad=True)
            ema = [torch.randn(args.channels, 16, device=device, requires_grad=True) for _ in range(4)]
            kappa = ema_kernel(*ema, length).detach().requires_grad_()
            found = {
                "fft_given": measure(lambda: fft_convolution(x, kappa), (x, kappa), device, args.repetitions),
                "fft_generated": measure(lambda: fft_convolution(x, ema_kernel(*ema, length)), (x, *ema), device,
                                         args.repetitions),
            }
            for taps, base, depth in STACKS:
                shape = (args.channels, 1, taps)
                w = [torch.randn(shape, device=device, dtype=element, requires_grad=True) for _ in range(depth)]
                levels = measure(lambda: stack(x, w, base), (x, *w), device, args.repetitions)
                for direction in ("forward", "backward"):
                    row = {"direction": direction, "backend": f"torch {torch.__version__} {device}", "dtype": dtype}
                    row |= {"taps": taps, "depth": depth, "dilation_base": base}
                    row |= {"batch": args.batch, "channels": args.channels, "length": length}
                    row |= {f"{name}_ms": times[direction] for name, times in found.items()}
                    rows.append(row | {"levels_ms": levels[direction]})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
