"""Values of registers and predicates; see sass.py. A register is one number for all lanes or a list of 32, a predicate
is a mask of lanes."""
import itertools
import re
import struct

ALL = M32 = 0xFFFFFFFF
M64 = (1 << 64) - 1
LANES = range(32)
PARAMETERS = 0x210  # where they begin in constant bank 0 of sm_90
SHARED_WINDOW = 0x7F00  # the upper half of generic addresses of shared memory


def signed(x):
    return x - (1 << 32) if x & 0x80000000 else x


def to_float(bits):
    return struct.unpack("<f", struct.pack("<I", bits & M32))[0]


def from_float(value, up=False):
    try:
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0x7F800000
    return bits + 1 if up and to_float(bits) < value else bits


def apply(f, *values):
    """f of values that are one number for all lanes or a list of 32."""
    for v in values:
        if type(v) is list:
            return list(map(f, *[v if type(v) is list else itertools.repeat(v) for v in values]))
    return f(*values)


def lanes_of(value, test):
    """The mask of lanes in which test(value) holds."""
    if type(value) is list:
        return sum(1 << i for i, v in enumerate(value) if test(v))
    return ALL if test(value) else 0


def operands(text):
    parts, depth, part = [], 0, ""
    for c in text:
        depth += (c in "[(") - (c in "])")
        if c == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += c
    return parts + [part.strip()] if part.strip() else parts


def is_predicate(operand):
    return re.fullmatch(r"!?U?P[0-9T]", operand) is not None


COMPARE = {"GE": lambda a, b: a >= b, "GT": lambda a, b: a > b, "LE": lambda a, b: a <= b, "LT": lambda a, b: a < b,
           "EQ": lambda a, b: a == b, "NE": lambda a, b: a != b, "T": lambda a, b: True, "F": lambda a, b: False}
COMBINE = {"AND": lambda a, b: a & b, "OR": lambda a, b: a | b, "XOR": lambda a, b: a ^ b}
