"""Calls the passes of the library: generates and loads their C++, checks and converts arguments, raises errors."""
import array
import concurrent.futures
import ctypes
import dataclasses
import os

import torch

from . import compiler

ELEMENTS = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "tcnca::bf16",
            torch.float16: "tcnca::fp16"}
# Values of tcnca::status_code that do not blame an argument.
UNSUPPORTED_DEVICE, LAUNCH_FAILED = 13, 14


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def accumulate_type(dtype):
    """The type of sums, states and gradients of parameters."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclasses.dataclass(frozen=True)
class Pass:
    """A struct of native/<operation>.hpp. `arguments`: (name, extents, type) of the tensors in the order of the members
    of the C++ struct. Extents are letters, equal letters for equal extents, or digits; shape.sizes() knows some. u is
    the number of sequences, p the number of rows of their states. The type is T (the element type), A (that of sums), W
    (that of weights, which the shape names), I or N (integers of 64 or 32 bits). `unit`: the names of the passes that
    are compiled together."""
    operation: str
    name: str
    arguments: tuple
    unit: tuple

    @classmethod
    def define(cls, operation, name, arguments, unit=None):
        triples = (argument.split(":") for argument in arguments.split())
        return cls(operation, name, tuple(map(tuple, triples)), unit or (name,))


class _Call(ctypes.Structure):
    _fields_ = [("arrays", ctypes.c_void_p), ("integers", ctypes.c_void_p), ("reals", ctypes.c_void_p),
                ("threads", ctypes.c_int64), ("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
                ("workspace_bytes", ctypes.c_int64), ("message", ctypes.c_char_p), ("message_bytes", ctypes.c_int64)]


def _generate(p, shape, dtype):
    lines = [f'#include "{p.operation}.hpp"']
    for name in p.unit:
        lines += [
            f"namespace {{ using {name}_pass = tcnca_torch::{name}<{ELEMENTS[dtype]}, "
            f"tcnca::{p.operation}_shape{shape.source}>; }}",
            f'extern "C" __attribute__((visibility("default"))) tcnca::index_t {name}_workspace(tcnca_torch::call '
            f"const* c) {{ return tcnca_torch::workspace_bytes<{name}_pass>(*c); }}",
            f'extern "C" __attribute__((visibility("default"))) int {name}(tcnca_torch::call const* c) {{ return '
            f"tcnca_torch::run<{name}_pass>(*c); }}",
        ]
    return "\n".join(lines) + "\n"


_loaded = {}


def load(p, shape, dtype, device=torch.device("cpu"), check=lambda: None):
    """The workspace query and the function of a pass, compiled if necessary; `check` is called before that."""
    if dtype not in ELEMENTS:
        wanted = ", ".join(map(_name, ELEMENTS))
        raise ValueError(f"tcnca::{p.operation}: the type is {_name(dtype)}, expected one of {wanted}")
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    key = (p.name, shape, dtype, capability)
    found = _loaded.get(key)
    if found is None:
        check()
        # In several threads at once: the lock of the cache on disk serves threads too.
        found = _loaded[key] = _load(p, shape, dtype, device.type, capability)
    return found


def compile_all(passes, device, levels):
    """Compiles what is not in the cache, as many at a time as there are processors. passes: triples of Pass, shape and
    type."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_build, *p, device.type, capability, level) for level in levels for p in passes]
        for job in jobs:
            job.result()


def _build(p, shape, dtype, device_type, capability, level=None):
    what = f"{', '.join(p.unit)} for {_name(dtype)} on {device_type if level is None else level}, {shape}"
    try:
        return compiler.build(_generate(p, shape, dtype), what, device_type, capability, level=level)
    except compiler.CompilerError as error:
        if error.refusal:
            raise ValueError(error.refusal) from None
        raise


def _load(p, shape, dtype, device_type, capability):
    library = ctypes.CDLL(str(_build(p, shape, dtype, device_type, capability)))
    query, function = library[f"{p.name}_workspace"], library[p.name]
    query.restype, query.argtypes = ctypes.c_int64, [ctypes.c_void_p]
    function.restype, function.argtypes = ctypes.c_int, [ctypes.c_void_p]
    return query, function


def _type_of(kind, shape, dtype):
    if kind == "W":
        kind = "A" if shape.weights == "accumulate" else "T"
    return {"T": dtype, "A": accumulate_type(dtype), "I": torch.int64, "N": torch.int32}[kind]


def _pack(p, shape, tensors, dtype, device):
    """Nine integers for each tensor: its address, four extents, four strides."""
    packed = []
    for (name, letters, kind), tensor in zip(p.arguments, tensors, strict=True):
        if tensor is None:
            packed += [0] * 9
            continue
        rank = len(letters)
        wanted = _type_of(kind, shape, dtype)
        if tensor.dim() != rank:
            raise ValueError(f"tcnca::{p.operation}: {name} has {tensor.dim()} dimensions, expected {rank}")
        if tensor.dtype != wanted:
            raise ValueError(f"tcnca::{p.operation}: {name} is of type {tensor.dtype}, expected {wanted}")
        if tensor.device != device:
            raise ValueError(f"tcnca::{p.operation}: {name} is on {tensor.device}, expected {device}")
        zeros = [0] * (4 - rank)
        strides = tensor.stride() if tensor.numel() > 0 else [1] * rank  # no stride of an empty tensor is wrong
        packed += [tensor.data_ptr(), *tensor.shape, *zeros, *strides, *zeros]
    return array.array("q", packed)


def _check_extents(p, shape, tensors, numbers):
    """Reports a wrong extent as the library does, before a shape is compiled."""
    known = {}
    for (name, letters, _), tensor in zip(p.arguments, tensors):
        for axis, letter in enumerate(letters if tensor is not None else ""):
            if tensor is tensors[0]:
                known[letter] = tensor.shape[axis]
                continue
            if letter in "up" and letter not in known:
                known |= _rows(known, p, tensors)
            if letter not in known:
                known |= shape.sizes(known, numbers)
            expected = int(letter) if letter.isdigit() else known.setdefault(letter, tensor.shape[axis])
            if tensor.shape[axis] != expected:
                raise ValueError(f"tcnca::{p.operation}: {name}: an extent is not what the other arguments and the "
                                 f"shape ask for (extent[{axis}] is {tensor.shape[axis]}, expected {expected})")


def _rows(known, p, tensors):
    """The number of sequences and, without slots, of rows of their states."""
    tables = {name: t for (name, *_), t in zip(p.arguments, tensors)}
    offsets = tables.get("offsets")
    sequences = known["b"] if offsets is None else offsets.shape[0] - 1
    return {"u": sequences} | ({"p": sequences} if tables.get("slots") is None else {})


def call(p, shape, dtype, device, tensors, integers=None, reals=None):
    """Runs a pass. integers, reals: the numbers of the C++ struct by name, in its order. Errors of arguments are
    ValueErrors with the message of the library."""
    integers, reals = integers or {}, reals or {}
    arrays = _pack(p, shape, tensors, dtype, device)
    query, function = load(p, shape, dtype, device, lambda: _check_extents(p, shape, tensors, integers))
    numbers = array.array("q", integers.values()), array.array("d", reals.values())
    message = ctypes.create_string_buffer(1024)
    c = _Call(arrays.buffer_info()[0], *(n.buffer_info()[0] for n in numbers), torch.get_num_threads(),
              message=ctypes.cast(message, ctypes.c_char_p), message_bytes=len(message))
    if device.type == "cuda":
        with torch.cuda.device(device):
            c.stream = torch.cuda.current_stream(device).cuda_stream
            status = _run(query, function, c, device)
    else:
        status = _run(query, function, c, device)
    if status != 0:
        kind = RuntimeError if status in (UNSUPPORTED_DEVICE, LAUNCH_FAILED) else ValueError
        text = message.value.decode()
        raise kind(f"tcnca::{p.operation}: {text}{_value(text, p, tensors, integers | reals)}")


def _value(message, p, tensors, numbers):
    """The value of the argument at fault, if the message does not tell it."""
    name = message.split(":")[0]
    extents = {a[0]: tuple(t.shape) for a, t in zip(p.arguments, tensors) if t is not None}
    if message.endswith(")") or name not in numbers | extents:
        return ""
    return f" ({name} is {numbers[name]})" if name in numbers else f" (the extents of {name} are {extents[name]})"


def _run(query, function, c, device):
    size = query(ctypes.addressof(c))
    if size > 0:
        scratch = torch.empty(size, dtype=torch.uint8, device=device)  # the stream's order protects it on a GPU
        c.workspace, c.workspace_bytes = scratch.data_ptr(), size
    return function(ctypes.addressof(c))
