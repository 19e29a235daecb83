#!/usr/bin/env python3
"""Counts what the CUDA kernels of convolution stacks execute, without a GPU: in their machine code for sm_90a.

  count.py [--only REGEX] [--json FILE]  counts the stacks of all CASES, or those whose name matches, prints a line
                                         each and adds them to the file, for bench/results/make_tables.py
  count.py --budgets FILE --only REGEX   fails where a call takes more than the file allows

conv_stack.cu is compiled for one stack with a CUDA runtime that prints the launches of a call in place of launching
(recorder.cpp); sass.py executes some blocks of each launch. Needs nvcc, a host compiler, nvdisasm (on PyPI:
nvidia-cuda-nvdisasm).
"""
import argparse
import datetime
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

from kernels import HERE, INCLUDE, PIPES, Call

STACKS = [(4, 4, 6), (8, 8, 5), (17, 16, 4), (51, 51, 3), (4, 4, 9), (8, 8, 6)]
SIZES = ["8x1024x8192", "1x1024x131072", "2x64x131072"]  # batch, channels, length
LAYOUTS = {"channels-first": "batch_channels_length", "channels-last": "batch_length_channels"}
TYPES = {"bf16": ("bf16", 2), "fp32": ("float", 4)}
CASES = [(*stack, dtype, layout) for layout in LAYOUTS for dtype in TYPES for stack in STACKS]

# Multiprocessors, clock in GHz, bytes per second of a copy.
MACHINES = {"H100": (132, 1.755, 3.0e12), "H200": (132, 1.755, 4.3e12)}

# Metrics of the budgets. All are upper bounds but `warps`.
METRICS = {
    "w32": "warp instructions per 32 outputs, all kernels of the call",
    "registers": "of a thread",
    "warps": "resident on a multiprocessor",
    "spilled": "bytes that a thread spills",
    "local": "accesses of local memory per 32 outputs",
    "generic": "accesses with generic addresses per 32 outputs",
    "divisions": "integer divisions of a warp per item",
    "barriers": "barriers of a warp per item",
    "conflicts": "wavefronts of shared memory relative to those without bank conflicts",
    "sectors": "sectors of global accesses relative to those that their bytes fill",
    "bytes": "bytes of global memory per output, each sector once a block",
    "registers_80": "of a thread, sm_80",
    "spilled_80": "bytes that a thread spills, sm_80",
}


def name_of(case):
    k, f, d, dtype, layout = case
    return f"K {k} f {f} D {d}, {dtype}, {layout}"


def modelled(launch, counts, machine):
    """Seconds of a launch, and the resource that takes most of them: everything overlaps, the scarcest resource binds.
    Items run in waves of as many as there is place for. Latency, barriers and the launch take no time."""
    multiprocessors, clock, copy = machine
    clocks = {"issue": counts["instructions"] / 4, "shared memory": counts["wavefronts"]}
    clocks |= {pipe: counts[pipe] / rate for pipe, rate in PIPES.items()}
    items, groups = counts["items"], min(launch.grid, launch.resident * multiprocessors) / launch.cluster
    groups = max(1, min(groups, items))
    waves = math.ceil(items / groups) * max(1, groups * launch.cluster / multiprocessors)  # items that one SM does
    seconds = {k: v / items * waves / launch.cluster / clock / 1e9 for k, v in clocks.items()}
    seconds["copy"] = (counts["read bytes"] + counts["written bytes"]) / copy
    bound = max(seconds, key=seconds.get)
    return seconds[bound], bound


def ratio(a, b):
    return a / b if b else 1.0


def row(call, case, direction, size):
    """The counts of one call."""
    k, f, d, dtype, layout = case
    batch, channels, length = map(int, size.split("x"))
    outputs = batch * channels * length
    launches = call.launches([direction, batch, channels, length])
    counts = [call.count(launch) for launch in launches]
    total = lambda key: sum(c[key] for c in counts)
    walk = max(range(len(counts)), key=lambda i: counts[i]["instructions"])  # the kernel that takes most
    used = [call.compiled[launch.name] for launch in launches]
    own = {"taps": k, "dilation_base": f, "depth": d, "receptive_field": 1 + (k - 1) * sum(f**i for i in range(d)),
           "dtype": dtype, "layout": layout, "direction": direction, "batch": batch, "channels": channels,
           "length": length, "kernels": [launch.agent for launch in launches],
           "w32": total("instructions") / outputs * 32, "registers": max(u["registers"] for u in used),
           "warps": min(launch.resident * launch.warps for launch, c in zip(launches, counts)
                        if c["instructions"] > 0.02 * total("instructions")),
           "spilled": max(u["spilled"] for u in used), "local": total("local") / outputs * 32,
           "generic": total("generic") / outputs * 32,
           "divisions": max(c["divisions"] / c["items"] / launch.warps for launch, c in zip(launches, counts)),
           "barriers": counts[walk]["barriers"] / counts[walk]["items"] / launches[walk].warps / launches[walk].cluster,
           "wavefronts": total("wavefronts") / outputs * 32,
           "conflicts": ratio(total("wavefronts"), total("ideal wavefronts")),
           "sectors": ratio(total("sectors"), total("ideal sectors")),
           "bytes": (total("read bytes") + total("written bytes")) / outputs,
           "useful_bytes": (2 if direction == "forward" else 3) * TYPES[dtype][1]}
    for machine, numbers in MACHINES.items():
        parts = [modelled(launch, c, numbers) for launch, c in zip(launches, counts)]
        seconds = sum(s for s, _ in parts)
        own[machine] = {"ms": round(seconds * 1e3, 4), "bound": max(parts)[1],
                        "percent_of_copy": round(100 * own["useful_bytes"] * outputs / numbers[2] / seconds, 1)}
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in own.items()}


def compiled(case, args, folder):
    """The program of a case, in a folder of its own."""
    k, f, d, dtype, layout = case
    folder = folder / re.sub(r"\W+", "_", name_of(case))
    macros = {"TYPE": TYPES[dtype][0], "TAPS": k, "BASE": f, "DEPTH": d, "ORDER": LAYOUTS[layout]}
    return Call(folder, macros, args.nvcc, args.nvdisasm, args.include)


def add_to_file(path, rows, note):
    """Rows of the file with the same stack, direction and size are replaced."""
    key = lambda r: tuple(r[k] for k in ("layout", "dtype", "direction", "batch", "length", "taps", "depth"))
    old = json.loads(path.read_text()) if path.exists() else {"rows": []}
    merged = {key(r): r for r in old["rows"] + rows}
    stacks = [(k, d) for k, f, d in STACKS]
    order = lambda r: (list(LAYOUTS).index(r["layout"]), list(TYPES).index(r["dtype"]), r["direction"] == "backward",
                       stacks.index((r["taps"], r["depth"])), r["length"], -r["channels"])
    lines = ",\n".join(json.dumps(r) for r in sorted(merged.values(), key=order))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"kind": "counted", "machine": {json.dumps(note)},\n"rows": [\n{lines}\n]}}\n')


def provenance(args):
    git = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude", "*"],
                         capture_output=True, text=True)
    nvcc = subprocess.run([args.nvcc, "--version"], capture_output=True, text=True).stdout
    return {"compiler": "nvcc " + re.search(r"release ([\d.]+)", nvcc)[1] + ", sm_90a", "commit": git.stdout.strip(),
            "date": datetime.date.today().isoformat()}


def budgets(path):
    """A line each: K f D, type, layout, direction, size, then pairs of a metric and its budget."""
    for line in path.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words:
            case = (*map(int, words[:3]), words[3], words[4])
            yield case, words[5], words[6], dict(zip(words[7::2], map(float, words[8::2])))


def check(args, folder):
    """Prints what was counted in the form of the file."""
    calls, exceeded, checked = {}, [], 0
    for case, direction, size, limits in budgets(args.budgets):
        if not re.search(args.only, name_of(case)):
            continue
        if case not in calls:
            calls[case] = call = compiled(case, args, folder)
            call.on_sm_80 = call.report("sm_80", ["-arch=sm_80", "-cubin", "-o", str(call.folder / "sm_80.cubin")])
        counted = row(calls[case], case, direction, size)
        older = calls[case].on_sm_80
        launched = [launch.name for launch in calls[case].launches([direction, *size.split("x")])]
        used = [older[n] for n in launched if n in older] or [k for n, k in older.items() if direction in n]
        counted["registers_80"], counted["spilled_80"] = (max(k[m] for k in used) for m in ("registers", "spilled"))
        print(*case, direction, size, *(f"{m} {counted[m]:.6g}" for m in limits), flush=True)
        for metric, limit in limits.items():
            checked += 1
            if counted[metric] < limit if metric == "warps" else counted[metric] > limit:
                exceeded.append(f"{name_of(case)}, {direction}, {size}: {metric} is {counted[metric]:.6g}, budget "
                                f"{limit:g} ({METRICS[metric]})")
    if not checked:
        sys.exit(f"{args.budgets} has no budget for {args.only}")
    print(f"{checked - len(exceeded)} of {checked} budgets are kept")
    if exceeded:
        sys.exit("\n".join(exceeded))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression for 'K 4 f 4 D 6, bf16, channels-first'")
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES, help="batch, channels and length")
    parser.add_argument("--direction", choices=("forward", "backward"), help="count only this direction")
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
        for case in CASES:
            if not re.search(args.only, name_of(case)):
                continue
            call = compiled(case, args, folder)
            for direction in ("forward", "backward"):
                for size in args.size if args.direction in (None, direction) else ():
                    counted = row(call, case, direction, size)
                    print(f"{name_of(case)}, {direction}, {size}: w/32 {counted['w32']}, {counted['kernels']}",
                          {k: counted[k] for k in (*METRICS, *MACHINES) if k in counted}, flush=True)
                    if args.json:
                        add_to_file(args.json, [counted], provenance(args))


if __name__ == "__main__":
    main()
