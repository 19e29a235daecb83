"""Compiles a call of the library, for sm_90a or another architecture, records its launches, and counts what they
execute."""
import collections
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

import sass

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
ITEMS = 8  # of a block: so many are executed, or fewer where they are long
LONG = 300000  # warp instructions of a block that are executed if ITEMS are more

# Warp instructions that the pipes of a multiprocessor accept in a clock: fp32; integer products and packed halves;
# other integer and logical instructions; special functions and conversions; products of 16 x 8 x 16 by mma.sync, at
# 62 % of the rate of wgmma.
PIPES = {"fma": 4, "half fma": 2, "alu": 2, "special": 0.5, "tensor": 0.62}
PIPE_OF = {
    "fma": "FFMA FMUL FADD", "half fma": "IMAD HFMA2 HADD2 HMUL2", "special": "MUFU F2F F2I I2F FRND POPC FLO BREV",
    "alu": "IADD3 LOP3 SHF LEA ISETP FSETP SEL FSEL PRMT VIADD VIMNMX IMNMX FMNMX F2FP PLOP3 IABS VIADDMNMX SGXT BMSK "
           "P2R R2P MOV", "tensor": "HMMA"}
PIPE_OF = {opcode: pipe for pipe, opcodes in PIPE_OF.items() for opcode in opcodes.split()}


def reported(text):
    """What ptxas says of each kernel: registers, spilled bytes, and how often it makes products by wgmma wait where the
    source does not."""
    waits = collections.Counter(re.findall(r"\(C75\d\d\).*(?:serialized|wait is injected).*in function '(\w+)'", text))
    kernels = {}
    for part in re.split(r"Compiling entry function '", text)[1:]:
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part).groups()
        name = part[:part.index("'")]
        kernels[name] = {"registers": int(re.search(r"Used (\d+) registers", part)[1]),
                         "spilled": sum(map(int, spilled)), "serialized": waits[name]}
    return kernels


class Launch:
    """A launch as recorder.cpp prints it."""

    def __init__(self, line):
        words = line.split()
        self.name = words[0]
        self.grid, self.block, self.cluster, self.shared, self.resident = map(int, words[1:6])
        self.parameters = bytearray.fromhex(words[6])
        self.agent = re.search(r"\d(?!run_)(?:conv_stack_|chunked_attention_)?([a-z_]+?)_agent", self.name)[1]
        self.warps = (self.block + 31) // 32


class Cubin:
    """The kernels of a cubin: name -> registers, most threads, bytes of static shared memory, where the parameters
    begin in constant bank 0, and begin and size of each parameter."""

    def __init__(self, path):
        data = path.read_bytes()
        offset, (count, names) = struct.unpack_from("<Q", data, 0x28)[0], struct.unpack_from("<HH", data, 0x3C)
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, offset + 64 * i) for i in range(count)]

        def text(table, at):
            return data[table[4] + at:data.index(b"\0", table[4] + at)].decode()
        sections = {text(headers[names], h[0]): h for h in headers}
        symbols = sections[".symtab"]
        self.kernels = collections.defaultdict(lambda: {"registers": 0, "threads": 0, "shared": 0, "parameters": {}})
        for name, h in sections.items():
            if name.startswith(".nv.shared.") and len(name) > 11:
                self.kernels[name[11:]]["shared"] = max(0, h[5] - 1024)  # without the reserved part
            if not name.startswith(".nv.info"):
                continue
            own = self.kernels[name[9:]] if len(name) > 9 else None
            for kind, value in self.attributes(data[h[4]:h[4] + h[5]]):
                if own is None and kind == 0x2F:  # registers of a function
                    symbol, registers = struct.unpack("<II", value)
                    at = struct.unpack_from("<I", data, symbols[4] + 24 * symbol)[0]
                    self.kernels[text(headers[symbols[6]], at)]["registers"] = registers
                elif own and kind == 0x17:  # a parameter
                    _, ordinal, begin, packed = struct.unpack("<IHHI", value)
                    own["parameters"][ordinal] = begin, packed >> 18
                elif own and kind == 0x0A:  # the constant bank of the parameters
                    own["begin"] = struct.unpack_from("<IH", value)[1]
                elif own and kind == 0x05:  # most threads
                    own["threads"] = struct.unpack_from("<I", value)[0]

    @staticmethod
    def attributes(data):
        at = 0
        while at < len(data):
            form, kind, size = struct.unpack_from("<BBH", data, at)
            at += 4
            if form == 4:  # the others hold their value in place of the size
                yield kind, data[at:at + size]
                at += size

    def places(self, name):
        return [p for _, p in sorted(self.kernels[name]["parameters"].items())]

    def write(self, path):
        """The file that recorder.cpp reads."""
        path.write_text("".join(
            f"{name} {k['registers']} {k['threads']} {k['shared']} "
            + " ".join(f"{begin} {size}" for begin, size in self.places(name)) + "\n"
            for name, k in self.kernels.items() if k["parameters"]))


class Traffic:
    """Memory accesses of a block."""

    def __init__(self):
        self.n = collections.Counter()
        self.sectors = {False: set(), True: set()}  # read, written

    def __call__(self, name, size, addresses, mask, store):
        active = [a for lane, a in enumerate(addresses) if mask >> lane & 1]
        if not active:
            return
        if name in ("LD", "ST"):
            self.n["generic"] += 1
        if name in ("LDL", "STL"):
            self.n["local"] += 1
        elif name in ("LDS", "STS", "LDSM", "STSM") or active[0] >> 32 == sass.SHARED_WINDOW:
            # A request is served in parts of 128 bytes: 32 lanes of 4 bytes, 16 of 8 or 8 of 16. A part takes as many
            # wavefronts as the bank with most words of it has.
            lanes = {8: 16, 16: 8}.get(size, 32)
            for first in range(0, 32, lanes):
                words = {(addresses[lane] & sass.M32) // 4 + k for lane in range(first, first + lanes)
                         if mask >> lane & 1 for k in range(max(1, size // 4))}
                if words:
                    self.n["ideal wavefronts"] += 1
                    self.n["wavefronts"] += max(collections.Counter(w % 32 for w in words).values())
        else:
            touched = {(a + k) // 32 for a in active for k in (0, size - 1)}
            self.n["requests"] += 1
            self.n["sectors"] += len(touched)
            # L1 keeps what was loaded, but for copies to shared memory.
            self.n["l2 sectors"] += len(touched if store or name == "LDGSTS" else touched - self.sectors[False])
            # The sectors that the bytes of the request would fill.
            self.n["ideal sectors"] += -(-len({a + k for a in active for k in range(0, size, 2)}) // 16)
            self.sectors[store] |= touched


class Call:
    """A program of a source in this folder: its kernels, and their counts for calls."""

    def __init__(self, folder, macros, nvcc="nvcc", nvdisasm="nvdisasm", include=INCLUDE, source="conv_stack",
                 arch="90a"):
        self.folder, self.include, self.macros, self.nvcc, self.source = folder, include, macros, nvcc, source
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.compiled = self.report(f"sm_{arch}", ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-cudart", "none",
                                                   str(HERE / "recorder.cpp"), "-o", str(folder / "call")])
        self.cubin = Cubin(next(folder.glob(f"{source}*.cubin")))
        self.cubin.write(folder / "kernels")
        self.text = self.output([nvdisasm, "-c", str(next(folder.glob(f"{source}*.cubin")))])

    @staticmethod
    def output(command, **more):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
        return done.stdout

    def report(self, arch, arguments):
        """Compiles; what ptxas says of each kernel."""
        command = [self.nvcc, "-std=c++20", "-I", str(self.include), "--keep", "--keep-dir", str(self.folder),
                   "-Xptxas", "-v", *(f"-DCOUNTED_{k}={v}" for k, v in self.macros.items()), *arguments,
                   str(HERE / f"{self.source}.cu")]
        return reported(self.output(command))

    def launches(self, arguments, **environment):
        names = {**os.environ, **environment, "TCNCA_COUNTED_KERNELS": str(self.folder / "kernels")}
        lines = self.output([self.folder / "call", *map(str, arguments)], env=names).splitlines()
        return [Launch(line) for line in lines]

    def count(self, launch):
        """Counts of all blocks of a launch: the first block (or cluster) is executed for some items, and another one if
        that is quick, and the counts are scaled."""
        items, groups = self.items(launch), launch.grid // launch.cluster
        execute = lambda group, count: self.execute(launch, group, count, range(launch.cluster))
        total, counted = execute(0, 1), 1
        more = min(ITEMS, len(range(0, items, groups)), LONG // max(1, total["instructions"]))
        if more > 1:
            total, counted = execute(0, more), more
        other = groups // 2
        if other and total["instructions"] < LONG:
            more = min(more, len(range(other, items, groups))) or 1
            total, counted = total + execute(other, more), counted + more
        counts = collections.Counter({k: v * items / counted for k, v in total.items()})
        counts["items"] = items
        return counts

    def items(self, launch):
        begin, size = self.cubin.places(launch.name)[1]
        return int.from_bytes(launch.parameters[begin:begin + size], "little")

    def execute(self, launch, group, count, ranks):
        """Counts of blocks of one group (a cluster), for its first `count` items."""
        kernel = sass.Kernel(self.text, launch.name)
        parameters, places = bytearray(launch.parameters), self.cubin.places(launch.name)
        groups = launch.grid // launch.cluster
        struct.pack_into("<q", parameters, places[1][0], group + groups * (count - 1) + 1)
        constants = bytearray(self.cubin.kernels[launch.name]["begin"]) + parameters
        struct.pack_into("<6I", constants, 0, launch.block, 1, 1, launch.grid, 1, 1)
        total = collections.Counter()
        for rank in ranks:
            total.update(self.count_block(kernel, bytes(constants), launch, group * launch.cluster + rank, rank))
        return total

    @staticmethod
    def count_block(kernel, constants, launch, block, rank):
        total, traffic, shared = collections.Counter(), Traffic(), {}
        warps = [sass.Warp(kernel, constants, w, block, rank, traffic, shared) for w in range(launch.warps)]
        sass.run_block(warps)
        for warp in warps:
            total["instructions"] += warp.executed
            total.update(warp.units)
            for opcode, times in zip(kernel.opcodes, warp.count):
                if times:
                    pipe = PIPE_OF.get(opcode.split(".")[0])
                    if pipe:
                        total[pipe] += times * (0.5 if "1688" in opcode else 1)
                    total["barriers"] += times * opcode.startswith("BAR.")
                    total["divisions"] += times * opcode.startswith("F2I")  # each integer division has one
        total.update(traffic.n)
        total["read bytes"] = 32 * len(traffic.sectors[False])
        total["written bytes"] = 32 * len(traffic.sectors[True])
        return total
