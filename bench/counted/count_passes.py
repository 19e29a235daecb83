#!/usr/bin/env python3
"""Counts what the CUDA kernels of the gates and of the moving average execute, as count.py does for stacks.

  count_passes.py --budgets FILE [--only REGEX]   prints what was counted, and fails where a call takes more than the
                                                  file allows. --only: a regular expression for 'ema bf16'

A line of the file: source, type, its second option (gated_fusion: dropout; ema: layout), call, size, then pairs of a
metric of count.py and its budget. Sizes: gated_fusion: batch, length, columns; ema: batch, channels, length.
`issue` is the share of issue slots that the call takes of those in the time of a copy of its bytes on an H200."""
import argparse
import pathlib
import re
import sys
import tempfile

from count import MACHINES, METRICS, TYPES, ratio
from kernels import Call

OPTION = {"gated_fusion": "DROPOUT", "ema": "ORDER"}
TENSORS = {"mix": 3, "mix_backward": 4, "reset": 3, "reset_backward": 5, "update": 5, "update_backward": 9,
           "forward": 2, "backward": 3}  # read or written once
METRICS = {**METRICS, "issue": "of the issue slots in the time of a copy on an H200"}


def row(call, older, name, dtype, size):
    """The counts of one call."""
    extents = [int(n) for n in size.split("x")]
    outputs = extents[0] * extents[1] * extents[2]
    launches = call.launches([name, *extents])
    counts = [call.count(launch) for launch in launches]
    total = lambda key: sum(c[key] for c in counts)
    used, used_80 = ([of[launch.name] for launch in launches if launch.name in of] for of in (call.compiled, older))
    multiprocessors, clock, copy = MACHINES["H200"]
    slots = TENSORS[name] * TYPES[dtype][1] * outputs / copy * multiprocessors * 4 * clock * 1e9
    most = lambda of, key: max((k[key] for k in of), default=0)
    return {"w32": total("instructions") / outputs * 32, "issue": total("instructions") / slots,
            "registers": most(used, "registers"), "spilled": most(used, "spilled"),
            "registers_80": most(used_80, "registers"), "spilled_80": most(used_80, "spilled"),
            "warps": min(launch.resident * launch.warps for launch, c in zip(launches, counts)
                         if c["instructions"] > 0.02 * total("instructions")),
            "local": total("local") / outputs * 32, "generic": total("generic") / outputs * 32,
            "conflicts": ratio(total("wavefronts"), total("ideal wavefronts")),
            "sectors": ratio(total("sectors"), total("ideal sectors")),
            "bytes": (total("read bytes") + total("written bytes")) / outputs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=pathlib.Path, help="for compiled programs")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--nvdisasm", default="nvdisasm")
    args = parser.parse_args()
    calls, exceeded, checked = {}, [], 0
    with tempfile.TemporaryDirectory() as temporary:
        for line in args.budgets.read_text().splitlines():
            words = line.partition("#")[0].split()
            if not words or not re.search(args.only, " ".join(words[:2])):
                continue
            (source, dtype, option, name, size), limits = words[:5], dict(zip(words[5::2], map(float, words[6::2])))
            if (source, dtype, option) not in calls:
                folder = (args.folder or pathlib.Path(temporary)) / "_".join(words[:3])
                macros = {"TYPE": TYPES[dtype][0], OPTION[source]: option}
                call = Call(folder, macros, args.nvcc, args.nvdisasm, source=source)
                older = call.report("sm_80", ["-arch=sm_80", "-cubin", "-o", str(folder / "sm_80.cubin")])
                calls[source, dtype, option] = call, older
            counted = row(*calls[source, dtype, option], name, dtype, size)
            print(*words[:5], *(f"{m} {counted[m]:.4g}" for m in limits or counted), flush=True)
            for metric, limit in limits.items():
                checked += 1
                if counted[metric] < limit if metric == "warps" else counted[metric] > limit:
                    exceeded.append(f"{' '.join(words[:5])}: {metric} is {counted[metric]:.6g}, budget {limit:g} "
                                    f"({METRICS[metric]})")
    print(f"{checked - len(exceeded)} of {checked} budgets are kept")
    if exceeded or not checked:
        sys.exit("\n".join(exceeded) or f"{args.budgets} has no budget for {args.only}")


if __name__ == "__main__":
    main()
