"""Executes the warps of an sm_90 kernel, as nvdisasm -c prints its machine code, and counts what they issue.

Integers, addresses, predicates and control flow are exact, also through shared memory. Data are not: global memory
reads as zero and floating-point results are zero, so a kernel must not branch on them. The warps of a block run in
turn, each until a barrier; waits of mbarriers never block. Lanes that diverge are groups; the one with the lowest
address runs, and groups meet at the same address, at BSYNC and at WARPSYNC."""
import collections
import re

from sass_instructions import Barrier, Meet, instruction
from sass_values import ALL, LANES, M32, M64, PARAMETERS, SHARED_WINDOW, apply, from_float, operands, signed


class Kernel:
    """The instructions of the function `name` in the text of nvdisasm."""

    def __init__(self, text, name):
        begin = text.index(f"\n.text.{name}:")
        end = text.find("\n\t.section", begin)
        self.text, self.labels, self.index = [], {}, {}
        for line in text[begin + 1:end if end > 0 else None].split("\n"):
            label = re.match(r"([.$\w]+):$", line)
            if label:
                self.labels[label[1]] = len(self.text)
            found = re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line)
            if found:
                self.index[int(found[1], 16)] = len(self.text)
                self.text.append(re.sub(r"\s*\(\*.*", "", found[2]))  # without the remark on a spill
        self.opcodes = [re.sub(r"^@!?U?P\w+\s+", "", t).split()[0] for t in self.text]


class Warp:
    def __init__(self, kernel, constants, warp, block, cluster_rank=0, watch=None, shared=None, limit=10**7):
        self.kernel, self.constants, self.watch, self.limit = kernel, constants, watch, limit
        self.r, self.u = [0] * 256, [0] * 256
        self.p, self.up = [0] * 7 + [ALL], [0] * 7 + [ALL]
        self.count = [0] * len(kernel.text)
        self.code = [None] * len(kernel.text)
        self.barriers = {}
        self.local = {}
        self.shared = {} if shared is None else shared  # words of the block that are not zero, by their number
        self.executed = 0
        self.units = collections.Counter()  # what other units do: products of warpgroups, bulk copies
        self.special = {"SR_TID.X": [warp * 32 + i for i in LANES], "SR_LANEID": list(LANES), "SR_CTAID.X": block,
                        "SR_CgaCtaId": cluster_rank, "SR_SWINHI": SHARED_WINDOW, "SRZ": 0,
                        "SR_LTMASK": [(1 << i) - 1 for i in LANES], "SR_EQMASK": [1 << i for i in LANES]}

    # --- Operands: each a function without arguments.
    def constant(self, offset, size=4):
        return int.from_bytes(self.constants[offset:offset + size].ljust(size, b"\0"), "little")

    def value(self, text, real=False):
        text = re.sub(r"\.(reuse|H[01]_H[01]|B[0-3]|64|U32|ROW|COL)", "", text)
        if re.match(r"-[^\dI0]", text):
            inner = self.value(text[1:])
            flip = (lambda x: x ^ 0x80000000) if real else (lambda x: -x & M32)
            return lambda: apply(flip, inner())
        if text[0] == "~":
            inner = self.value(text[1:])
            return lambda: apply(lambda x: ~x & M32, inner())
        if text[0] == "|":
            inner = self.value(text.strip("|"))
            size = (lambda x: x & 0x7FFFFFFF) if real else (lambda x: abs(signed(x)))
            return lambda: apply(size, inner())
        if text in ("RZ", "URZ", "SRZ"):
            return lambda: 0
        found = re.fullmatch(r"(U?)R(\d+)", text)
        if found:
            i, registers = int(found[2]), self.u if found[1] else self.r
            return lambda: registers[i]
        if re.fullmatch(r"-?0x[0-9a-f]+", text):
            number = int(text, 16) & M32
            return lambda: number
        found = re.fullmatch(r"c\[0x0\]\[(?:(U?R\w+)\+?)?(-?0x[0-9a-f]+)?\]", text)
        if found:
            offset = int(found[2] or "0", 16)
            if found[1]:
                base = self.value(found[1])
                return lambda: apply(lambda x: self.constant(x + offset & M32), base())
            number = self.constant(offset)
            return lambda: number
        number = from_float(float(text.replace("QNAN", "nan")))
        return lambda: number

    def pair(self, text):
        """A 64-bit operand."""
        text = re.sub(r"\.(reuse|64|U32)", "", text)
        if text[0] == "-" and "R" in text:
            inner = self.pair(text[1:])
            return lambda: apply(lambda x: -x & M64, inner())
        found = re.fullmatch(r"(U?)R(\d+)", text)
        if found:
            i, registers = int(found[2]), self.u if found[1] else self.r
            return lambda: apply(lambda low, high: low | high << 32, registers[i], registers[i + 1])
        found = re.fullmatch(r"c\[0x0\]\[0x([0-9a-f]+)\]", text)
        if found:
            number = self.constant(int(found[1], 16), 8)
            return lambda: number
        return self.value(text)

    def addend(self, text):
        """An operand of an addition with a carry: -x is ~x + 1, not reduced."""
        if re.match(r"-[^\d0]", text):
            inner = self.value(text[1:])
            return lambda: apply(lambda x: (~x & M32) + 1, inner())
        return self.value(text)

    def predicate(self, text):
        inverted = text[0] == "!"
        text = text.lstrip("!")
        registers = self.up if text[0] == "U" else self.p
        i = 7 if text[-1] == "T" else int(text[-1])
        return (lambda: registers[i] ^ ALL) if inverted else (lambda: registers[i])

    # --- Results: each a function of the active lanes and the value.
    def set_register(self, text, count=1):
        """Writes the low words of the value to `count` registers."""
        text = text.replace(".reuse", "")
        if text in ("RZ", "URZ"):
            return lambda mask, value: None
        uniform, first = text[0] == "U", int(text.lstrip("UR"))
        registers = self.u if uniform else self.r

        def write(mask, value):
            if uniform and type(value) is list:
                value = value[(mask & -mask).bit_length() - 1]
            for k in range(count):
                word = value
                if type(value) is list:
                    word = [v >> 32 * k & M32 for v in value]
                else:
                    word = value >> 32 * k & M32
                if mask != ALL and not uniform:
                    old = registers[first + k]
                    old = old if type(old) is list else [old] * 32
                    word = word if type(word) is list else [word] * 32
                    word = [word[i] if mask >> i & 1 else old[i] for i in LANES]
                registers[first + k] = word
        return write

    def set_predicate(self, text):
        registers, i = (self.up if text[0] == "U" else self.p), text[-1]
        uniform = text[0] == "U"
        if i == "T":
            return lambda mask, lanes: None
        i = int(i)

        def write(mask, lanes):
            registers[i] = (ALL if lanes & mask else 0) if uniform else registers[i] & ~mask | lanes & mask
        return write

    def address(self, text):
        """The sum in the last brackets of an operand."""
        inside = re.findall(r"\[([^\]]*)\]", text)[-1]
        terms = []
        wide = ".64" in inside or "desc" in text
        for term in re.findall(r"[+-]?[^+-]+", inside):
            term = term.lstrip("+")
            scaled = re.fullmatch(r"(U?R\w+)\.X(\d+)", term)
            if scaled:
                terms.append(lambda g=self.value(scaled[1]), k=int(scaled[2]): apply(lambda x: x * k, g()))
            elif ".64" in term or (wide and term.startswith("UR") and term != "URZ"):
                terms.append(self.pair(term))
            elif "R" in term:
                terms.append(self.value(term))
            else:
                terms.append(lambda n=int(term, 16): n)
        if len(terms) == 1:
            return terms[0]
        return lambda: apply(lambda *x: sum(x) & M64, *(t() for t in terms))

    # --- Execution
    def compile(self, i):
        text = self.kernel.text[i]
        guard = re.match(r"@(!?U?P\w+)\s+(.*)", text)
        opcode, _, rest = (guard[2] if guard else text).partition(" ")
        condition = self.predicate(guard[1]) if guard else None
        run = instruction(self, opcode.split("."), operands(rest))
        if condition is None:
            return run
        return lambda mask: run(mask & condition()) if mask & condition() else None

    def run(self):
        """Runs the warp alone."""
        for _ in self.steps():
            pass
        return self.executed

    def steps(self):
        """Runs the warp; yields (number, warps that arrive or None for all, whether this warp waits) at barriers."""
        groups, waiting, alive = [(0, ALL)], [], ALL
        while groups:
            groups.sort()
            pc, mask = groups.pop(0)
            while True:
                while groups and groups[0][0] == pc:
                    mask |= groups.pop(0)[1]
                if groups and groups[0][0] < pc:
                    groups.append((pc, mask))
                    break
                step = self.code[pc]
                if step is None:
                    step = self.code[pc] = self.compile(pc)
                self.count[pc] += 1
                self.executed += 1
                if self.executed > self.limit:
                    raise RuntimeError(f"more than {self.limit} instructions")
                event = step(mask)
                if event is None:
                    pc += 1
                    continue
                target, taken = event
                if type(target) is Barrier:
                    yield target.number, target.warps, target.waits
                    pc += 1
                    continue
                if type(target) is int:
                    if taken != mask:
                        groups.append((pc + 1, mask & ~taken))
                        groups.sort()
                    pc, mask = target, taken
                    continue
                if type(target) is Meet:
                    waiting.append((pc, taken, target.lanes))
                else:
                    alive &= ~taken
                if mask != taken:
                    groups.append((pc + 1, mask & ~taken))
                # Those whose partners have all arrived or exited go on together.
                for place in {w[0] for w in waiting}:
                    arrived = [w for w in waiting if w[0] == place]
                    lanes = need = 0
                    for _, own, partners in arrived:
                        lanes, need = lanes | own, need | partners
                    if need & alive & ~lanes == 0:
                        groups.append((place + 1, lanes))
                        waiting = [w for w in waiting if w[0] != place]
                break
        if waiting:
            raise RuntimeError("lanes wait for others that do not come")


def run_block(warps):
    """Runs the warps of a block together."""
    steps = {w: w.steps() for w in warps}
    ready, waiting, arrived, need = list(warps), {}, {}, {}
    while ready or waiting:
        for w in ready:
            event = next(steps[w], None)
            while event and not event[2]:  # it arrives and goes on
                arrived[event[0]], need[event[0]] = arrived.get(event[0], 0) + 1, event[1]
                event = next(steps[w], None)
            if event is None:
                del steps[w]
                continue
            waiting[w] = event[0]
            arrived[event[0]], need[event[0]] = arrived.get(event[0], 0) + 1, event[1]
        complete = {b for b, n in arrived.items() if n >= (need[b] or len(steps))}
        ready = [w for w, b in waiting.items() if b in complete]
        waiting = {w: b for w, b in waiting.items() if b not in complete}
        arrived = {b: n for b, n in arrived.items() if b not in complete}
        if waiting and not ready:
            raise RuntimeError("warps wait for others that do not come")
