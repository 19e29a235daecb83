#!/usr/bin/env python3
"""Counts what the CUDA kernels of chunked attention in bf16 execute, as count.py does for stacks: by softmax without a
mask, forward and backward, on sm_90a (wgmma) and sm_80 (mma.sync).

  count_attention.py [--arch ARCH] [--json FILE]  counts all SIZES, prints a line for each kernel and for the call, and
                                                  adds them to the file, for bench/results/make_tables.py
  count_attention.py --budgets FILE [--arch ARCH] fails where a kernel takes more than the file allows, or where the
                                                  kernels of sm_80 do not exceed the budgets of sm_90a

A size: batch, heads, length, key dimension, value dimension, chunk. A line of the file: architecture, direction, size,
kernel or `all`, then pairs of a metric and its budget, an upper bound.

Of each kernel one block is executed, for one item of each kind: without a mask, the blocks of a cluster do the same
work, and so do items of the same kind."""
import argparse
import collections
import json
import pathlib
import sys
import tempfile

from count import provenance, ratio
from kernels import INCLUDE, PIPES, Call

SIZES = {"sm_90a": ["1x1x2048x128x1024x2048", "1x1x128x64x512x128"],
         "sm_80": ["1x1x512x128x1024x512", "1x1x128x64x512x128"]}
COLUMNS = 256  # of the values, per item of wgmma_products

METRICS = {
    "flops": "operations on tensor cores per useful operation of the call",
    "shared": "bytes of shared memory per 1000 useful operations: of wavefronts, of operands of wgmma, of bulk copies",
    "l2": "bytes between L2 and the multiprocessors per 1000 useful operations: a multicast once, loads once a block",
    "instructions": "warp instructions per 1000 useful operations",
    "conflicts": "wavefronts of shared memory relative to those without bank conflicts",
    "registers": "of a thread",
    "spilled": "bytes that a thread spills",
    "serialized": "waits for products by wgmma that ptxas has inserted",
    "local": "accesses of local memory",
    "generic": "accesses with generic addresses",
}

# A GPU: multiprocessors, clock in GHz, bytes per second from L2 and of a copy, and what pipes accept in a clock, as
# PIPES; `wgmma` in operations. bench/results/make_tables.py states these numbers.
MACHINES = {"sm_90a": ("H100", 132, 1.755, 5.5e12, 3.0e12, {**PIPES, "wgmma": 4096}),
            "sm_80": ("A100", 108, 1.41, 5120 * 1.41e9, 1.4e12, {**PIPES, "fma": 2, "tensor": 0.5, "wgmma": 1})}


def useful(direction, size):
    """Operations of the products of all queries and keys of a chunk, each computed once."""
    batch, heads, length, key_dim, value_dim, chunk = size
    products = key_dim + value_dim if direction == "forward" else 3 * key_dim + 2 * value_dim
    return 2 * batch * heads * length * chunk * products


def least_bytes(direction, arch, size):
    """What must cross device memory: each tensor once; on sm_90a also the weights and the gradients of scores of the
    backward pass, out and in."""
    batch, heads, length, key_dim, value_dim, chunk = size
    rows = batch * heads * length
    if direction == "forward":
        return rows * (4 * (key_dim + value_dim) + 8)
    return rows * (8 * key_dim + 8 * value_dim + 8 + (8 * chunk if arch == "sm_90a" else 0))


def name_of(launch):
    """The kernel's name; mma_scores computes gradients of queries or of keys."""
    side = {"attention_sideE0": "_queries", "attention_sideE1": "_keys"}
    return launch.agent + next((s for k, s in side.items() if k in launch.name), "")


def count(call, launch, value_dim):
    """The counts of all blocks of a launch."""
    kinds = -(-value_dim // COLUMNS) + 2 if launch.agent == "wgmma_products" else 1
    total = collections.Counter()
    for group in range(kinds):
        total.update(call.execute(launch, group, 1, [0]))
    scale = launch.cluster * call.items(launch) / kinds
    return collections.Counter({k: v * scale for k, v in total.items()})


def rows(call, arch, direction, size, **environment):
    """A row for each kernel, and one for the call."""
    extents = [int(n) for n in size.split("x")]
    operations = useful(direction, extents)
    gpu, multiprocessors, clock, l2, copy, pipes = MACHINES[arch]
    l2_bytes_per_clock = l2 / multiprocessors / clock / 1e9
    found, all_clocks, total = [], 0, collections.Counter()

    def row(kernel, c, used, **more):
        shared = 128 * c["wavefronts"] + c["operand bytes"] + c["bulk shared bytes"]
        numbers = {"flops": (c["wgmma flops"] + 4096 * c["tensor"]) / operations, "shared": 1000 * shared / operations,
                   "l2": 1000 * (32 * c["l2 sectors"] + c["bulk bytes"]) / operations,
                   "instructions": 1000 * c["instructions"] / operations,
                   "conflicts": ratio(c["wavefronts"], c["ideal wavefronts"]),
                   "local": c["local"], "generic": c["generic"], **used}
        return {"arch": arch, "direction": direction, "size": size, "kernel": kernel, **numbers, **more}

    for launch in call.launches([direction, *extents], **environment):
        c = count(call, launch, extents[4])
        clocks = {pipe: c["wgmma flops" if pipe == "wgmma" else pipe] / rate for pipe, rate in pipes.items()}
        clocks["tensor"] += clocks.pop("wgmma")
        clocks["issue"] = c["instructions"] / 4
        clocks["shared memory"] = (128 * c["wavefronts"] + c["operand bytes"] + c["bulk shared bytes"]) / 128
        clocks["L2"] = (32 * c["l2 sectors"] + c["bulk bytes"]) / l2_bytes_per_clock
        bound = max(clocks, key=clocks.get)
        found.append(row(name_of(launch), c, call.compiled[launch.name], bound=bound, clocks=clocks[bound]))
        total.update(c)
        all_clocks += clocks[bound]
    used = {k: max(r[k] for r in found) for k in ("registers", "spilled", "serialized")}
    seconds = max(all_clocks / multiprocessors / clock / 1e9, least_bytes(direction, arch, extents) / copy)
    longest = max(found, key=lambda r: r["clocks"])["bound"] if seconds > least_bytes(direction, arch, extents) / copy \
        else "copy"
    for r in found:
        r["share"] = r.pop("clocks") / all_clocks
    found.append(row("all", total, used, bound=longest, share=1, gpu=gpu, tflops=operations / seconds / 1e12))
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()} for r in found]


def line_of(row, metrics):
    names = [row[k] for k in ("arch", "direction", "size", "kernel")]
    return " ".join(names + [f"{m} {row[m]:.4g}" for m in metrics])


def exceeded_in(row, limits):
    return {m: limit for m, limit in limits.items() if row[m] > limit}


def check(args, folder):
    """Prints what was counted in the form of the file."""
    budgets = collections.defaultdict(dict)
    for line in args.budgets.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words and words[0] in args.arch:
            budgets[tuple(words[:3])][words[3]] = dict(zip(words[4::2], map(float, words[5::2])))
    calls, failed, checked = {}, [], 0
    for (arch, direction, size), kernels in budgets.items():
        if arch not in calls:
            calls[arch] = compiled(arch, args, folder)
        counted = rows(calls[arch], arch, direction, size)
        failed += [f"{arch} {direction}: {k} is not launched" for k in set(kernels) - {r["kernel"] for r in counted}]
        for r in counted:
            limits = kernels.get(r["kernel"], {})
            if not limits:
                failed.append(f"{arch} {direction}: no budget for {r['kernel']}")
            print(line_of(r, limits), flush=True)
            checked += len(limits)
            failed += [f"{arch} {direction} {size} {r['kernel']}: {m} is {r[m]:.6g}, budget {limit:g} ({METRICS[m]})"
                       for m, limit in exceeded_in(r, limits).items()]
        if arch == "sm_90a" and direction == "forward":
            # The kernels that a device with the shared memory of an A100 uses.
            other = rows(calls[arch], arch, direction, size, TCNCA_COUNTED_SHARED=str(163 * 1024))[-1]
            exceeded = exceeded_in(other, kernels["all"])
            print("control:", line_of(other, kernels["all"]), "| exceeded:", *exceeded, flush=True)
            if not {"flops", "shared", "instructions"} <= set(exceeded):
                failed.append("the kernels by mma.sync are within the budgets of those by wgmma")
    print(f"{checked} budgets")
    if failed or not checked:
        sys.exit("\n".join(failed) or f"{args.budgets} has no budget")


def write(path, counted, args):
    """Rows of the file with the same architecture, direction and size are replaced."""
    key = lambda r: (r["arch"], r["direction"], r["size"])
    new = {key(r) for r in counted}
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    order = lambda r: (list(SIZES).index(r["arch"]), SIZES[r["arch"]].index(r["size"]), r["direction"] == "backward")
    merged = sorted([r for r in old if key(r) not in new] + counted, key=order)
    note = {**provenance(args), "compiler": provenance(args)["compiler"].partition(",")[0]}
    lines = ",\n".join(map(json.dumps, merged))
    path.write_text(f'{{"kind": "counted", "machine": {json.dumps(note)},\n"rows": [\n{lines}\n]}}\n')


def compiled(arch, args, folder):
    return Call(folder / arch, {"TYPE": "bf16"}, args.nvcc, args.nvdisasm, args.include, "chunked_attention",
                arch.removeprefix("sm_"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--budgets", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, help="for compiled programs")
    parser.add_argument("--include", type=pathlib.Path, default=INCLUDE, help="the headers of the library")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--nvdisasm", default="nvdisasm")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or pathlib.Path(temporary)
        if args.budgets:
            return check(args, folder)
        counted = []
        for arch in args.arch:
            call = compiled(arch, args, folder)
            for size in SIZES[arch]:
                for direction in ("forward", "backward"):
                    new = rows(call, arch, direction, size)
                    print(*new, sep="\n", flush=True)
                    counted += new
        if args.json:
            write(args.json, counted, args)


if __name__ == "__main__":
    main()
