"""Integer instructions, predicates and exchanges between lanes; see sass.py. Each function makes the function of the
active lanes that executes one instruction, of opcode `op` in its parts."""
import math
import re

from sass_values import (ALL, COMBINE, COMPARE, LANES, M32, M64, apply, from_float, is_predicate, lanes_of, signed,
                         to_float)


def take_predicates(warp, args):
    """Splits off the predicates that are results before the first register."""
    results = []
    while is_predicate(args[0]):
        results.append(warp.set_predicate(args[0]))
        args = args[1:]
    return results, args


def move(warp, op, args):
    put, get = warp.set_register(args[0]), warp.value([a for a in args if not is_predicate(a)][1])
    return lambda mask: put(mask, get())


def special(warp, op, args):
    wide = op[0] == "CS2R" and "32" not in op
    put, number = warp.set_register(args[0], 2 if wide else 1), warp.special.get(args[1], 0)
    return lambda mask: put(mask, number)


def from_bank(warp, op, args):
    size = 8 if "64" in op else 2 if "U16" in op or "S16" in op else 1 if "U8" in op or "S8" in op else 4
    put = warp.set_register(args[0], 2 if size == 8 else 1)
    found = re.fullmatch(r"c\[0x0\]\[(?:(U?R\w+)\+?)?(-?0x[0-9a-f]+)?\]", args[1])
    base, offset = warp.value(found[1]) if found[1] else (lambda: 0), int(found[2] or "0", 16)
    return lambda mask: put(mask, apply(lambda x: warp.constant(x + offset & M32, size), base()))


def with_carry(put, carries):
    """Writes a sum, and its carries beyond 32 bits."""
    def write(mask, total):
        put(mask, total)
        for k, carry in enumerate(carries):
            carry(mask, lanes_of(total, lambda x: x >> 32 > k))
    return write


def in_lanes(mask):
    """A predicate as a number for each lane."""
    return 1 if mask == ALL else 0 if mask == 0 else [mask >> i & 1 for i in LANES]


def multiply_add(warp, op, args):
    to, args = args[0], args[1:]
    carries, args = take_predicates(warp, args)
    a, b = warp.value(args[0]), warp.value(args[1])
    carry = warp.predicate(args[3]) if len(args) > 3 else (lambda: 0)
    factor = (lambda x: x) if "U32" in op else signed
    if "WIDE" in op or "HI" in op:
        c = warp.pair(args[2])
        put = warp.set_register(to, 2 if "WIDE" in op else 1)
        shift = 32 if "HI" in op else 0

        def run(mask):
            total = apply(lambda x, y, z, k: (factor(x) * factor(y) & M64) + z + k, a(), b(), c(), in_lanes(carry()))
            put(mask, apply(lambda t: t >> shift, total) if shift else total)
            for set_carry in carries:
                set_carry(mask, lanes_of(total, lambda t: t >> 64))
        return run
    c, put = warp.value(args[2]), with_carry(warp.set_register(to), carries)
    if args[0] == args[1] == "RZ" and len(args) == 3:
        return lambda mask: put(mask, c())
    return lambda mask: put(mask, apply(lambda x, y, z, k: (x * y & M32) + z + k, a(), b(), c(), in_lanes(carry())))


def add(warp, op, args):
    put, args = warp.set_register(args[0]), args[1:]
    carries, args = take_predicates(warp, args)
    read = warp.value if "X" in op or not carries else warp.addend
    a, b, c = (read(x) for x in args[:3])
    carry = [warp.predicate(x) for x in args[3:]]
    write = with_carry(put, carries) if carries else put
    if not carry:
        return lambda mask: write(mask, apply(lambda x, y, z: x + y + z, a(), b(), c()))

    def run(mask):
        k = apply(lambda *x: sum(x), *(in_lanes(p()) for p in carry))
        write(mask, apply(lambda x, y, z, k: x + y + z + k, a(), b(), c(), k))
    return run


def function(f, count):
    """An instruction whose result is f of `count` operands."""
    def make(warp, op, args):
        put, values = warp.set_register(args[0]), [warp.value(x) for x in args[1:1 + count]]
        return lambda mask: put(mask, apply(f, *(v() for v in values)))
    return make


def extreme(warp, op, args):
    put, values = warp.set_register(args[0]), [warp.value(x) for x in args[1:-1] if not is_predicate(x)]
    least, relu = warp.predicate(args[-1]), "RELU" in op
    number = (lambda x: x) if "U32" in op else signed
    plus = op[0].endswith("VIADDMNMX")

    def run(mask):
        def f(minimum, *x):
            x = [x[0] + x[1] & M32, x[2]] if plus else x
            x = [number(v) for v in x]
            best = min(x) if minimum else max(x)
            return (max(best, 0) if relu else best) & M32
        put(mask, apply(f, in_lanes(least()), *(v() for v in values)))
    return run


def logic(table, a, b, c):
    result = 0
    for k in range(8):
        if table >> k & 1:
            result |= (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
    return result & M32


def bitwise(warp, op, args):
    results, args = take_predicates(warp, args)
    put, (a, b, c), table = warp.set_register(args[0]), (warp.value(x) for x in args[1:4]), int(args[4], 16)
    also = warp.predicate(args[5]) if len(args) > 5 else (lambda: 0)
    short = {0xC0: lambda x, y, z: x & y, 0xFC: lambda x, y, z: x | y, 0x3C: lambda x, y, z: x ^ y}
    f = short.get(table, lambda x, y, z: logic(table, x, y, z))

    def run(mask):
        value = apply(f, a(), b(), c())
        put(mask, value)
        for p in results:
            p(mask, lanes_of(value, lambda x: x != 0) | also())
    return run


def predicate_logic(warp, op, args):
    puts, inputs = [warp.set_predicate(x) for x in args[:2]], [warp.predicate(x) for x in args[2:5]]
    tables = [int(x, 16) for x in args[5:7]]

    def run(mask):
        values = [p() for p in inputs]
        for put, table in zip(puts, tables):
            put(mask, logic(table, *values))
    return run


def shift(warp, op, args):
    put, (low, by, high) = warp.set_register(args[0]), (warp.value(x) for x in args[1:4])
    left, width = "L" in op, 64 if "U64" in op or "S64" in op else 32
    wrap, upper, sign = "W" in op, "HI" in op, "S32" in op or "S64" in op

    def f(x, n, y):
        n = n % width if wrap else min(n, width)
        both = x | y << 32
        if sign and both >> 63:
            both -= 1 << 64
        both = both << n if left else both >> n
        return (both >> 32 if upper else both) & M32
    return lambda mask: put(mask, apply(f, low(), by(), high()))


def scaled_add(warp, op, args):
    put, args = warp.set_register(args[0]), args[1:]
    carries, args = take_predicates(warp, args)
    a, b = warp.value(args[0]), warp.addend(args[1]) if carries else warp.value(args[1])
    rest = args[2:]
    high = (lambda: 0)
    if "HI" in op:
        if "SX32" in op:
            high = (lambda: apply(lambda x: M32 if x >> 31 else 0, a()))
        else:
            high, rest = warp.value(rest[0]), rest[1:]
    by, upper = int(rest[0], 16), 32 if "HI" in op else 0
    carry = warp.predicate(rest[1]) if len(rest) > 1 else (lambda: 0)
    write = with_carry(put, carries)
    f = (lambda x, y, z, k: ((x | z << 32) << by >> upper & M32) + y + k)
    return lambda mask: write(mask, apply(f, a(), b(), high(), in_lanes(carry())))


def compare(warp, op, args):
    puts = [warp.set_predicate(x) for x in args[:2]]
    a, b, also = warp.value(args[2]), warp.value(args[3]), warp.predicate(args[4])
    extended = warp.predicate(args[5]) if "EX" in op else None
    test, combine = COMPARE[op[1]], COMBINE[next(x for x in op if x in COMBINE)]
    number = (lambda x: x) if "U32" in op else signed
    strict = {"GE": "GT", "LE": "LT"}.get(op[1], op[1])

    def whole(x, y, low):
        x, y = number(x), number(y)
        if op[1] == "NE":
            return x != y or low
        return low if x == y else COMPARE[strict](x, y)

    def run(mask):
        if extended is None:
            result = lanes_of(apply(lambda x, y: test(number(x), number(y)), a(), b()), bool)
        else:
            result = lanes_of(apply(whole, a(), b(), in_lanes(extended())), bool)
        puts[0](mask, combine(result, also()))
        puts[1](mask, combine(result ^ ALL, also()))
    return run


def compare_floats(warp, op, args):
    puts = [warp.set_predicate(x) for x in args[:2]]
    a, b, also = warp.value(args[2], True), warp.value(args[3], True), warp.predicate(args[4])
    combine = COMBINE[next(x for x in op if x in COMBINE)]

    def test(x, y):
        x, y = to_float(x), to_float(y)
        unordered = x != x or y != y
        if op[1] in ("NUM", "NAN"):
            return unordered == (op[1] == "NAN")
        return op[1][-1] == "U" if unordered else COMPARE[op[1].rstrip("U")](x, y)

    def run(mask):
        result = lanes_of(apply(test, a(), b()), bool)
        puts[0](mask, combine(result, also()))
        puts[1](mask, combine(result ^ ALL, also()))
    return run


def select(warp, op, args):
    real = "FSEL" in op[0]
    put, a, b = warp.set_register(args[0]), warp.value(args[1], real), warp.value(args[2], real)
    condition = warp.predicate(args[3])
    return lambda mask: put(mask, apply(lambda k, x, y: x if k else y, in_lanes(condition()), a(), b()))


def permute(a, selector, b):
    both, result = a | b << 32, 0
    for k in range(4):
        s = selector >> 4 * k & 15
        byte = both >> 8 * (s & 7) & 255
        result |= ((255 if byte & 128 else 0) if s & 8 else byte) << 8 * k
    return result


def predicates_to_register(warp, op, args):
    put, base, chosen = warp.set_register(args[0]), warp.value(args[2]), warp.value(args[3])
    by = next((8 * int(x[1]) for x in op if re.fullmatch("B[1-3]", x)), 0)

    def run(mask):
        bits = [sum((warp.p[k] >> lane & 1) << k for k in range(7)) for lane in LANES]
        put(mask, apply(lambda old, m, new: old & ~((m & 255) << by) | (new & m) << by, base(), chosen(), bits))
    return run


def register_to_predicates(warp, op, args):
    source, chosen = warp.value(args[1]), warp.value(args[2])
    by = next((8 * int(x) for x in re.findall(r"\.B([1-3])", args[1])), 0)
    puts = [warp.set_predicate(f"P{k}") for k in range(7)]

    def run(mask):
        for k, put in enumerate(puts):
            put(mask & lanes_of(chosen(), lambda x: x >> k & 1), lanes_of(source(), lambda x: x >> by + k & 1))
    return run


def integer_to_float(warp, op, args):
    wide, up = "U64" in op or "S64" in op, "RP" in op
    put, get = warp.set_register(args[0]), warp.pair(args[1]) if wide else warp.value(args[1])
    number = (lambda x: x) if wide or "U32" in op else signed
    return lambda mask: put(mask, apply(lambda x: from_float(float(number(x)), up), get()))


def float_to_integer(warp, op, args):
    wide = "U64" in op
    put, get, most = warp.set_register(args[0], 2 if wide else 1), warp.value(args[1], True), M64 if wide else M32

    def f(x):
        x = to_float(x)
        return 0 if x != x or x < 0 else most if x == math.inf else min(int(x), most)
    return lambda mask: put(mask, apply(f, get()))


def reciprocal(warp, op, args):
    put, get = warp.set_register(args[0]), warp.value(args[1], True)
    if "RCP" not in op:
        return lambda mask: put(mask, 0)
    return lambda mask: put(mask, apply(lambda x: from_float(1 / to_float(x)) if to_float(x) else 0x7F800000, get()))


def shuffle(warp, op, args):
    inside, put = warp.set_predicate(args[0]), warp.set_register(args[1])
    source, by, bounds = (warp.value(x) for x in args[2:5])
    at = {"IDX": lambda i, n: n & 31, "BFLY": lambda i, n: i ^ n, "UP": lambda i, n: i - n,
          "DOWN": lambda i, n: i + n}[op[1]]

    def run(mask):
        value, n, bound = source(), by(), bounds()
        value, n = (x if type(x) is list else [x] * 32 for x in (value, n))
        segment = (bound if type(bound) is int else bound[0]) >> 8 & 31
        results, valid = [], 0
        for i in LANES:
            j = at(i & ~segment if op[1] == "IDX" else i, n[i])
            j = (i & segment) | (j & ~segment) if op[1] == "IDX" else j
            inside_segment = 0 <= j < 32 and (j & segment) == (i & segment)
            results.append(value[j] if inside_segment else value[i])
            valid |= inside_segment << i
        put(mask, results)
        inside(mask, valid)
    return run


def vote(warp, op, args):
    source = warp.predicate(args[-1])
    register = [warp.set_register(x) for x in args[:-1] if not is_predicate(x)]
    results = [warp.set_predicate(x) for x in args[:-1] if is_predicate(x)]
    every = "ALL" in op

    def run(mask):
        ballot = source() & mask
        for put in register:
            put(mask, ballot)
        for put in results:
            put(mask, ALL if (ballot == mask if every else ballot) else 0)
    return run


def elect(warp, op, args):
    results = [warp.set_predicate(x) for x in args if is_predicate(x)][:1]
    return lambda mask: [p(mask, mask & -mask) for p in results] and None


def bit_length(x):
    return x.bit_length() - 1 & M32


INTEGER = {"MOV": move, "R2UR": move, "S2R": special, "S2UR": special, "CS2R": special, "LDC": from_bank,
           "IMAD": multiply_add, "IADD3": add, "VIADD": function(lambda x, y: x + y & M32, 2), "VIMNMX": extreme,
           "VIADDMNMX": extreme, "IMNMX": extreme, "IABS": function(lambda x: abs(signed(x)), 1), "LOP3": bitwise,
           "PLOP3": predicate_logic, "SHF": shift, "LEA": scaled_add, "ISETP": compare, "FSETP": compare_floats,
           "SEL": select, "FSEL": select, "PRMT": function(permute, 3), "P2R": predicates_to_register,
           "R2P": register_to_predicates, "I2F": integer_to_float, "F2I": float_to_integer, "MUFU": reciprocal,
           "SHFL": shuffle, "VOTE": vote, "VOTEU": vote, "ELECT": elect,
           "POPC": function(lambda x: bin(x).count("1"), 1), "FLO": function(bit_length, 1),
           "BREV": function(lambda x: int(f"{x:032b}"[::-1], 2), 1),
           "BMSK": function(lambda x, n: ((1 << n) - 1) << x & M32, 2),
           "SGXT": function(lambda x, n: x & (1 << n) - 1 | (-(x >> n - 1 & 1) << n & M32), 2)}
UNIFORM = {"U" + x for x in INTEGER}
