#!/usr/bin/env python3
"""control.py NVCC NVDISASM: whether sass.py counts what control.cu is known to execute."""
import collections
import pathlib
import struct
import subprocess
import sys
import tempfile

import sass
from kernels import HERE, INCLUDE, Cubin, Traffic, reported


def expected(a, b, c):
    """How often the loops run."""
    low = c & 0xFFFFFFFF
    whole = (c * 0x123456789 >> 40) & 63
    rest = c - int(c / 13) * 13
    bits = bin(low).count("1") + 32 - low.bit_length() + rest + (c >> 5 & 31) + (low * 0x80000001 >> 32 & 31)
    diverged = max(lane * lane % 7 for lane in range(32)) + max(lane // 8 for lane in range(1, 32, 2)) + 2
    return a // b - a % b % 5 + whole + bits + 1 + diverged


def constants_of(cubin, name, threads, values):
    """The constant bank of a launch of one block: parameters are numbers or bytes."""
    constants = bytearray(sass.PARAMETERS + 256)
    struct.pack_into("<6I", constants, 0, threads, 1, 1, 1, 1, 1)
    for (begin, size), value in zip(cubin.places(name), values):
        value = value if type(value) is bytes else value.to_bytes(size, "little")
        constants[sass.PARAMETERS + begin:sass.PARAMETERS + begin + len(value)] = value
    return bytes(constants)


def compare(what, counted, known):
    print(f"{'ok   ' if counted == known else 'WRONG'} {what}: {counted}, known {known}")
    return counted != known


def main():
    nvcc, nvdisasm = sys.argv[1:]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "control.cubin"
        compiled = reported(subprocess.run(
            [nvcc, "-std=c++20", "-I", INCLUDE, "-arch=sm_90a", "-cubin", "-Xptxas", "-v", "-o", path,
             HERE / "control.cu"], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout)
        text = subprocess.run([nvdisasm, "-c", path], check=True, capture_output=True, text=True).stdout
        cubin = Cubin(path)
        find = lambda part: next(n for n in cubin.kernels if part in n)
        kernel = sass.Kernel(text, find("known"))
        for a, b, c, rows, stride in ((90 << 40, 3 << 40, 12345, 4, 1), (10**13 + 7, 10**12 // 7, 987654321, 3, 32),
                                      (99, 7, 77777, 1, 2), (1 << 63, 1 << 58 | 12345, 31, 5, 4)):
            constants = constants_of(cubin, find("known"), 32, (2 << 44, 1 << 44, a, b, c, rows, stride))
            traffic = Traffic()
            warp = sass.Warp(kernel, constants, 0, 0, 0, traffic)
            warp.run()
            ran = collections.Counter()
            for opcode, n in zip(kernel.opcodes, warp.count):
                ran[opcode] += n
            counted = {"marks": ran["MUFU.EX2"], "wavefronts": traffic.n["wavefronts"],
                       "sectors": traffic.n["sectors"], "requests": traffic.n["requests"]}
            known = {"marks": expected(a, b, c), "wavefronts": rows * stride + 2, "sectors": rows * 4 + 32,
                     "requests": rows + 1}
            failed += compare(f"a {a}, b {b}, c {c}, rows {rows}, stride {stride}", counted, known)
        times, box = 7, 4096
        constants = constants_of(cubin, find("products"), 128, (1 << 44, struct.pack("<Q", box), times))
        total = collections.Counter()
        for number in range(4):
            warp = sass.Warp(sass.Kernel(text, find("products")), constants, number, 0)
            warp.run()
            total.update(warp.units)
            total["mma"] += sum(n for opcode, n in zip(warp.kernel.opcodes, warp.count) if opcode.startswith("HMMA"))
        failed += compare("products", dict(total), {
            "wgmma flops": times * 2 * 64 * 64 * 16, "operand bytes": times * 2 * (64 + 64) * 16,
            "bulk bytes": times * box, "bulk shared bytes": times * box * 2, "mma": times * 2 * 4})
        for metric in ("serialized", "spilled"):  # also the names of the kernels
            used = {k: compiled[find(k)][metric] > 0 for k in ("known", "products", metric)}
            failed += compare(metric, used, {"known": False, "products": False, metric: True})
    sys.exit(failed)


if __name__ == "__main__":
    main()
