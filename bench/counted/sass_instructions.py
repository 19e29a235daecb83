"""Control flow, memory and data; and what executes any instruction: see sass.py."""
import re
import struct

from sass_integers import INTEGER, UNIFORM
from sass_values import ALL, LANES, PARAMETERS, SHARED_WINDOW, from_float, is_predicate


class Exit:
    """The target of lanes that end."""


class Meet:
    """The target of lanes that go on when `lanes` have arrived."""

    def __init__(self, lanes):
        self.lanes = lanes


class Barrier:
    """The target of warps that arrive at a barrier of `warps` warps, all if None, and may wait there."""

    def __init__(self, number, warps, waits):
        self.number, self.warps, self.waits = number, warps, waits


# Their results are data.
DATA = set("""FADD FMUL FFMA FMNMX F2FP F2F FRND FSWZADD HADD2 HMUL2 HMNMX2 HFMA2 HMMA DADD DMUL DFMA MOVM MATCH REDUX
FCHK HSETP2 DSETP LDGSTS TEX ATOM ATOMG ATOMS RED I2FP VIMNMX3""".split())
# Fences, waits, copies by other units.
NOTHING = set("""MEMBAR ERRBAR CCTL CCTLL DEPBAR LDGDEPBAR FENCE NOP YIELD BMOV UCGABAR_ARV UCGABAR_WAIT NANOSLEEP
ACQBULK PREEXIT ENDCOLLECTIVE ARRIVES USETMAXREG WARPGROUP SYNCS UTMASTG UTMAPF UTMACMDFLUSH UBLKPF WARPGROUPSET
PMTRIG STAS""".split())
MEMORY = {"LD": 0, "LDG": 0, "LDS": 0, "LDSM": 0, "ST": 1, "STG": 1, "STS": 1, "STSM": 1, "LDL": 0, "STL": 1}


def instruction(warp, op, args):
    """A function of the active lanes that executes an instruction of opcode `op` in its parts. It returns None, or the
    target of those lanes that do not go on to the next instruction, and their mask."""
    name = op[0]
    plain = name[1:] if name in UNIFORM else name
    if name in CONTROL:
        return CONTROL[name](warp, op, args)
    if plain in INTEGER:
        return INTEGER[plain](warp, op, args)
    if plain in MEMORY:
        return memory(warp, op, args)
    if name in UNITS:
        return UNITS[name](warp, op, args)
    if name in NOTHING or name in DATA:
        return data(warp, op, args)
    raise NotImplementedError(f"{'.'.join(op)} {', '.join(args)}")


def target_of(warp, args):
    label = next(re.fullmatch(r"`\((.*)\)", a)[1] for a in args if a.startswith("`"))
    return warp.kernel.labels[label]


def branch(warp, op, args):
    if "DIV" in op or "CONV" in op:  # to code for lanes that are not together
        return lambda mask: None
    target, conditions = target_of(warp, args), [warp.predicate(a) for a in args if is_predicate(a)]

    def run(mask):
        for c in conditions:
            mask &= c()
        return (target, mask) if mask else None
    return run


def leave(warp, op, args):
    conditions = [warp.predicate(a) for a in args if is_predicate(a)]

    def run(mask):
        for c in conditions:
            mask &= c()
        return (Exit, mask) if mask else None
    return run


def call(warp, op, args):
    target = target_of(warp, args)
    return lambda mask: (target, mask)


def come_back(warp, op, args):
    address = warp.value(args[0].split()[0])

    def run(mask):
        to = address()
        if type(to) is list:
            to = to[(mask & -mask).bit_length() - 1]
        return warp.kernel.index[to], mask
    return run


def open_region(warp, op, args):
    def run(mask):
        for lane in LANES:
            if mask >> lane & 1:
                warp.barriers[args[0], lane] = mask
    return run


def close_region(warp, op, args):
    return lambda mask: (Meet(warp.barriers[args[0], (mask & -mask).bit_length() - 1]), mask)


def leave_region(warp, op, args):
    register = args[-1]

    def run(mask):
        for lane in LANES:
            if (register, lane) in warp.barriers:
                warp.barriers[register, lane] &= ~mask
    return run


def meet(warp, op, args):
    if "ALL" in op:
        return lambda mask: (Meet(ALL), mask)
    lanes = warp.value(args[0])
    return lambda mask: (Meet(lanes() if type(lanes()) is int else mask), mask)


def barrier(warp, op, args):
    numbers = [warp.value(a) for a in args if not is_predicate(a)]
    waits = "ARV" not in op

    def run(mask):
        number, threads = ([n() for n in numbers] + [0, 0])[:2]
        return Barrier(number, threads // 32 or None, waits), mask
    return run


CONTROL = {"BAR": barrier, "BRA": branch, "EXIT": leave, "CALL": call, "RET": come_back, "BSSY": open_region,
           "BSYNC": close_region, "BREAK": leave_region, "WARPSYNC": meet}


def width_of(op):
    """Bytes of a lane, and registers of the result."""
    if "M88" in op or "MT88" in op:
        return 16, next((int(x) for x in op if x in ("2", "4")), 1)
    size = 16 if "128" in op else 8 if "64" in op else 2 if "U16" in op or "S16" in op or "16" in op else \
        1 if "U8" in op or "S8" in op else 4
    return size, max(1, size // 4)


def memory(warp, op, args):
    where = next(a for a in args if "[" in a)
    size, registers = width_of(op)
    name, address, store = op[0], warp.address(where), MEMORY[op[0]]
    lanes = (1 << 8 * registers) - 1 if name in ("LDSM", "STSM") else ALL
    names = [a for a in args if "[" not in a and not is_predicate(a)]
    put = [warp.set_register(f"R{int(names[0][1:]) + k}") for k in range(registers)] if names[0] != "RZ" else []
    first = int(re.search(r"\d+", names[0])[0]) if put else 0
    move = move_local if name in ("LDL", "STL") else move_shared if name in ("LDS", "STS", "LD", "ST") else None

    def run(mask):
        at = address()
        each = [at] * 32 if type(at) is int else at
        if store and move:
            move(warp, each, size, mask, [warp.r[first + k] for k in range(registers)] if put else [0] * registers)
        elif not store:
            words = move(warp, each, size, mask) if move else None
            for k, p in enumerate(put):
                p(mask, words[k] if words else 0)
        if warp.watch:
            warp.watch(name, size, each, mask & lanes, store)
    return run


def move_local(warp, at, size, mask, values=None):
    """Stores words of all lanes in local memory, or loads them. Its addresses are the same in all lanes."""
    words = range(max(1, size // 4))
    if values is None:
        return [warp.local.get(at[0] + 4 * k, 0) for k in words]
    for k in words:
        warp.local[at[0] + 4 * k] = values[k]


def move_shared(warp, at, size, mask, values=None):
    """Stores in shared memory, or loads: None if all words are zero. Does nothing at other generic addresses."""
    shared = warp.shared
    if values is None and not shared or values is not None and not shared and all(v == 0 for v in values):
        return None
    if at[0] >> 32 not in (0, SHARED_WINDOW):
        return None
    part = (1 << 8 * size) - 1 if size < 4 else 0xFFFFFFFF
    if values is None:
        numbers = [(a & 0xFFFFFFFF) // 4 for a in at]
        loaded = [[shared.get(n + k, 0) for n in numbers] for k in range(max(1, size // 4))]
        if size < 4:
            loaded = [[w >> 8 * (a & 3) & part for w, a in zip(loaded[0], at)]]
        return loaded if any(any(w) for w in loaded) else None
    for lane in LANES:
        if mask >> lane & 1:
            for k, value in enumerate(values):
                value = value[lane] if type(value) is list else value
                number, shift = (at[lane] & 0xFFFFFFFF) // 4 + k, 8 * (at[lane] & 3)
                value = (value & part) << shift | shared.get(number, 0) & ~(part << shift)
                if value:
                    shared[number] = value
                else:
                    shared.pop(number, None)


def data(warp, op, args):
    """An instruction whose results are data, which are zero; or that has none."""
    name = op[0]
    if name == "HFMA2" and all(a.lstrip("-")[:2] == "RZ" for a in args[1:3]) and len(args) == 5:
        return constant_halves(warp, op, args)
    copies = name == "LDGSTS"
    puts = [warp.set_predicate(a) for a in args[:2] if is_predicate(a)]
    waits = ALL if name in ("SYNCS", "USETMAXREG") else 0
    count = 4 if name == "HMMA" and "F32" in op else 2 if name[0] == "D" or "F64" in op else 1
    result = next((a for a in args if re.fullmatch(r"R\d+", a)), None)
    writes = result and args.index(result) == len(puts) and name in DATA and name != "RED" and not copies
    put = warp.set_register(result, count) if writes else None
    address = [warp.address(a) for a in args if "[" in a] if copies or name[:4] in ("ATOM", "RED") else []
    size = width_of(op)[0]

    def run(mask):
        for p in puts:
            p(mask, waits)
        if put:
            put(mask, 0)
        if warp.watch:
            for k, a in enumerate(address):
                at = a()
                kind = ("STS" if k == 0 else "LDGSTS") if copies else name
                warp.watch(kind, size, [at] * 32 if type(at) is int else at, mask, kind != "LDGSTS")
    return run


def constant_halves(warp, op, args):
    half = (lambda x: from_float(x) >> 16) if "BF16_V2" in op else \
        (lambda x: int.from_bytes(struct.pack("<e", x), "little"))
    number = half(float(args[3])) << 16 | half(float(args[4]))
    put = warp.set_register(args[0])
    return lambda mask: put(mask, number)


def product(warp, op, args):
    """wgmma: a quarter of a product of a warpgroup."""
    m, n, k = map(int, op[1].split("x"))
    flops, operands = m * n * k // 2, (0 if re.fullmatch(r"R\d+", args[1]) else m) + n
    result = int(args[0][1:]) if args[0] != "RZ" else None

    def run(mask):
        warp.units["wgmma flops"] += flops
        warp.units["operand bytes"] += operands * k // 2  # of 16-bit elements; b is read once for four warps
        if result is not None:
            warp.r[result:result + n // 2] = [0] * (n // 2)
    return run


def tensor_copy(warp, op, args):
    """A tile from global to shared memory; with a mask, to several blocks. recorder.cpp put its size in the map."""
    place = warp.pair(args[1].strip("[]"))
    blocks = warp.value(args[2]) if "MULTICAST" in op else (lambda: 1 << 16)  # in the upper half

    def run(mask):
        bytes_of_box = warp.constant(PARAMETERS + (place() & 0xFFFF), 8)
        if not 0 < bytes_of_box <= 1 << 16:
            raise RuntimeError("a tensor map without a box")
        warp.units["bulk bytes"] += bytes_of_box
        warp.units["bulk shared bytes"] += bytes_of_box * bin(blocks() >> 16).count("1")
    return run


def block_copy(warp, op, args):
    """Contiguous bytes; .S.S: to another block's shared memory."""
    units_of_16 = warp.value(args[2])

    def run(mask):
        size = units_of_16() * 16
        warp.units["bulk shared bytes"] += size
        if op[1:3] != ["S", "S"]:
            warp.units["bulk bytes"] += size
    return run


# What other units of the multiprocessor do; counted in warp.units.
UNITS = {"HGMMA": product, "UTMALDG": tensor_copy, "UBLKCP": block_copy}
