#!/usr/bin/env python3
"""control.py NVCC NVDISASM: whether sass.py counts what control.cu is known to execute."""
import collections
import pathlib
import struct
import subprocess
import sys
import tempfile

import sass
from kernels import HERE, Cubin, Traffic


def expected(a, b, c):
    """How often the loops run."""
    low = c & 0xFFFFFFFF
    whole = (c * 0x123456789 >> 40) & 63
    rest = c - int(c / 13) * 13
    bits = bin(low).count("1") + 32 - low.bit_length() + rest + (c >> 5 & 31) + (low * 0x80000001 >> 32 & 31)
    diverged = max(lane * lane % 7 for lane in range(32)) + max(lane // 8 for lane in range(1, 32, 2)) + 2
    return a // b - a % b % 5 + whole + bits + 1 + diverged


def main():
    nvcc, nvdisasm = sys.argv[1:]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "control.cubin"
        subprocess.run([nvcc, "-arch=sm_90a", "-cubin", "-o", path, HERE / "control.cu"], check=True)
        text = subprocess.run([nvdisasm, "-c", path], check=True, capture_output=True, text=True).stdout
        cubin = Cubin(path)
        name = next(n for n in cubin.kernels if "known" in n)
        kernel = sass.Kernel(text, name)
        for a, b, c, rows, stride in ((90 << 40, 3 << 40, 12345, 4, 1), (10**13 + 7, 10**12 // 7, 987654321, 3, 32),
                                      (99, 7, 77777, 1, 2), (1 << 63, 1 << 58 | 12345, 31, 5, 4)):
            constants = bytearray(sass.PARAMETERS + 48)
            struct.pack_into("<6I", constants, 0, 32, 1, 1, 1, 1, 1)
            for (begin, size), value in zip(cubin.places(name), (2 << 44, 1 << 44, a, b, c, rows, stride)):
                constants[sass.PARAMETERS + begin:sass.PARAMETERS + begin + size] = value.to_bytes(size, "little")
            traffic = Traffic()
            warp = sass.Warp(kernel, bytes(constants), 0, 0, 0, traffic)
            warp.run()
            ran = collections.Counter()
            for opcode, n in zip(kernel.opcodes, warp.count):
                ran[opcode] += n
            counted = {"marks": ran["MUFU.EX2"], "wavefronts": traffic.n["wavefronts"],
                       "sectors": traffic.n["sectors"], "requests": traffic.n["requests"]}
            known = {"marks": expected(a, b, c), "wavefronts": rows * stride + 2, "sectors": rows * 4 + 32,
                     "requests": rows + 1}
            failed += counted != known
            print(f"{'ok   ' if counted == known else 'WRONG'} a {a}, b {b}, c {c}, rows {rows}, stride {stride}: "
                  f"{counted}, known {known}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
