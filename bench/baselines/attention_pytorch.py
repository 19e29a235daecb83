#!/usr/bin/env python3
"""Chunked attention in PyTorch, for the shapes of attention_vs_gemm: prints a JSON array of rows.

- softmax: torch.nn.functional.scaled_dot_product_attention with chunks as a batch, by each backend that accepts the
  shape (math, mem_efficient, flash, cudnn); and eager: two matrix products and a softmax.
- laplace: two matrix products and the function between them, eager and compiled. PyTorch has no fused operation.

Milliseconds are medians between CUDA events; backward is the time of both passes minus forward. Operations are those
of valid pairs of a query and a key: forward 2 (z + h) per pair, backward 2 (3 z + 2 h). The peak is a product of
8192 x 8192 x 8192 in the same run. Needs torch and a GPU; otherwise it prints the reason on stderr and fails.
"""
import argparse
import itertools
import json
import math
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

MU, SIGMA = math.sqrt(1 / 2), math.sqrt(1 / (4 * math.pi))


def milliseconds(call, repetitions):
    """Median of several calls, after three to warm up."""
    times = []
    for _ in range(repetitions + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times[3:])[repetitions // 2]


def measure(function, inputs, repetitions):
    """Milliseconds forward and backward, and the error of a backend that rejects the shape."""
    found = {"forward": None, "backward": None, "error": None}
    try:
        with torch.no_grad():
            found["forward"] = milliseconds(lambda: function(*inputs), repetitions)
        grad = torch.randn_like(function(*inputs))
        both = milliseconds(lambda: torch.autograd.grad(function(*inputs), inputs, grad), repetitions)
        found["backward"] = both - found["forward"]
    except Exception as e:  # backends raise many types; the message is the result
        found["error"] = f"{type(e).__name__}: {e}".split("\n")[0][:200]
        torch.cuda.empty_cache()
    return found


def visible(chunk, device):
    return torch.ones(chunk, chunk, device=device, dtype=torch.bool).tril()


def eager_softmax(causal):
    def attend(q, k, v):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(~visible(q.shape[-2], q.device), -math.inf)
        return torch.softmax(scores, -1) @ v
    return attend


def laplace(causal):
    def attend(q, k, v):
        n = q.shape[-2]
        keys = torch.arange(1, n + 1, device=q.device, dtype=torch.float32).unsqueeze(-1) if causal else float(n)
        scores = (q @ k.transpose(-1, -2)).float() / keys
        weights = 0.5 * (1 + torch.erf((scores - MU) / (SIGMA * math.sqrt(2))))
        if causal:
            weights = weights * visible(n, q.device)
        return weights.to(v.dtype) @ v
    return attend


def backend_softmax(backend, causal):
    from torch.nn.attention import sdpa_kernel

    def attend(q, k, v):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return attend


def contenders(function, causal):
    if function == "laplace":
        torch._dynamo.reset()  # otherwise the compiler falls back to eager after a few shapes
        return {"eager": laplace(causal), "compiled": torch.compile(laplace(causal), dynamic=False)}
    found = {"eager": eager_softmax(causal)}
    try:
        from torch.nn.attention import SDPBackend
        names = {"math": "MATH", "mem_efficient": "EFFICIENT_ATTENTION", "flash": "FLASH_ATTENTION",
                 "cudnn": "CUDNN_ATTENTION"}
        known = {k: getattr(SDPBackend, n) for k, n in names.items() if hasattr(SDPBackend, n)}
        found |= {k: backend_softmax(backend, causal) for k, backend in known.items()}
    except ImportError:
        print("this torch has no torch.nn.attention: only the eager softmax is measured", file=sys.stderr)
    return found


def matmul_rate(element):
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=element) for _ in range(2))
    return 2 * 8192**3 / (milliseconds(lambda: a @ b.T, 11) * 1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--length", type=int, default=32768)
    parser.add_argument("--chunks", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--key-dims", type=int, nargs="+", default=[128])
    parser.add_argument("--value-dims", type=int, nargs="+", default=[1024])
    parser.add_argument("--functions", nargs="+", default=["softmax", "laplace"], choices=["softmax", "laplace"])
    parser.add_argument("--masks", nargs="+", default=["full", "causal"], choices=["full", "causal"])
    parser.add_argument("--dtype", nargs="+", default=["bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--all", action="store_true",
                        help="key dimensions 64, 128, value dimensions 256, 1024, 2048, fp32 and bf16")
    args = parser.parse_args()
    if args.all:
        args.key_dims, args.value_dims, args.dtype = [64, 128], [256, 1024, 2048], ["fp32", "bf16"]
    if torch is None:
        sys.exit("attention_pytorch: torch is not installed; there is nothing to compare")
    if not torch.cuda.is_available():
        sys.exit("attention_pytorch: torch finds no GPU; its fused attention is compared on a GPU only")
    if any(args.length % chunk for chunk in args.chunks):
        sys.exit("attention_pytorch: the length must be a multiple of each chunk")

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = []
    for dtype in args.dtype:
        element = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        peak = matmul_rate(element)
        shapes = itertools.product(args.functions, args.masks, args.key_dims, args.value_dims, args.chunks)
        for function, mask, z, h, chunk in shapes:
            causal = mask == "causal"
            blocks = args.batch * args.length // chunk
            inputs = [torch.randn(blocks, args.heads, chunk, dim, device="cuda", dtype=element, requires_grad=True)
                      for dim in (z, z, h)]
            pairs = blocks * args.heads * (chunk * (chunk + 1) / 2 if causal else chunk * chunk)
            operations = {"forward": 2 * (z + h) * pairs, "backward": 2 * (3 * z + 2 * h) * pairs}
            for name, call in contenders(function, causal).items():
                times = measure(call, inputs, args.repetitions)
                for direction in ("forward", "backward"):
                    row = {"direction": direction}
                    row |= {"backend": f"torch {torch.__version__}, {torch.cuda.get_device_name()}"}
                    row |= {"dtype": dtype, "function": function, "causal": causal, "contender": name}
                    row |= {"batch": args.batch, "heads": args.heads, "length": args.length, "chunk": chunk}
                    row |= {"key_dim": z, "value_dim": h, "ms": times[direction], "error": times["error"]}
                    rate = operations[direction] / (times[direction] * 1e-3) if times[direction] else None
                    row |= {"tflops": rate and rate * 1e-12, "percent_of_peak": rate and 100 * rate / peak}
                    rows.append(row | {"peak_tflops": peak * 1e-12})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
