"""Generates and loads the C++ of passes, and registers them with the handler that XLA calls."""
import ctypes
import functools
import pathlib
import re
import threading

import jax

from .shared import compiler

PACKAGE = pathlib.Path(__file__).parent
NATIVE = PACKAGE / "native"  # headers of passes: what is in it is part of the name of their libraries
ELEMENTS = {"float32": "float", "float64": "double", "bfloat16": "tcnca::bf16", "float16": "tcnca::fp16"}
IN_PAIRS = "lengths", "head_lengths", "positions"  # tensors of 64-bit integers, which come as pairs of 32 bits
# Members of the argument structs that are numbers; all others are tensors.
INTEGERS, REALS = ("chunk", "position", "window", "seed", "offset", "max_length"), ("scale", "dropout")
TARGET = "tcnca"  # of custom calls


@functools.cache
def members(operation, name):
    """The members of the argument struct of a pass, in order: tensors, integers, reals."""
    text = (compiler.PACKAGE / "native" / f"{operation}.hpp").read_text()
    names = re.findall(r"\.(\w+) = r", re.search(rf"struct {name} {{.*?_args{{(.*?)}};", text, re.DOTALL)[1])
    numbers = INTEGERS + REALS
    return ([n for n in names if n not in numbers], [n for n in names if n in INTEGERS],
            [n for n in names if n in REALS])


def _unit(operation, name):
    """The passes that are compiled together: the small ones, with their backward passes."""
    if operation != "gated_fusion" and not name.startswith("rotary"):
        return [name]
    forward = name.removesuffix("_backward")
    return [forward, f"{forward}_backward"]


def _generate(operation, unit, shape, dtype):
    lines = [f'#include "{operation}.hpp"', '#include "pool.hpp"']
    for name in unit:
        lines += [
            f"namespace {{ using {name}_pass = tcnca_torch::{name}<{ELEMENTS[dtype]}, "
            f"tcnca::{operation}_shape{shape.source}>; }}",
            f'extern "C" __attribute__((visibility("default"))) tcnca::index_t {name}_workspace(tcnca_jax::call const* '
            f"c) {{ return tcnca_torch::workspace_bytes<{name}_pass>(tcnca_jax::executor(*c), *c); }}",
            f'extern "C" __attribute__((visibility("default"))) int {name}(tcnca_jax::call const* c) {{ return '
            f"tcnca_torch::run<{name}_pass>(tcnca_jax::executor(*c), *c); }}",
        ]
    return "\n".join(lines) + "\n"


def _capability(platform):
    if platform != "cuda":
        return None
    return tuple(map(int, jax.devices("cuda")[0].compute_capability.split(".")))


_lock = threading.RLock()  # of the functions below; that of the cache on disk serves other processes


@functools.cache
def _handler(platform, capability):
    source = (PACKAGE / "handler.cpp").read_text()
    include = NATIVE, pathlib.Path(jax.ffi.include_dir())
    library = ctypes.CDLL(str(compiler.build(source, f"the calls of XLA on {platform}", platform, capability, include)))
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(library.tcnca_handler),
                                platform={"cpu": "cpu", "cuda": "CUDA"}[platform])
    library.tcnca_register.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    return library


@functools.cache
def _load(operation, name, shape, dtype, platform, capability):
    unit = _unit(operation, name)
    what = f"{', '.join(unit)} for {dtype} on {platform}, {shape}"
    try:
        path = compiler.build(_generate(operation, unit, shape, dtype), what, platform, capability, (NATIVE,))
    except compiler.CompilerError as error:
        if error.refusal:
            raise ValueError(error.refusal) from None
        raise
    library = ctypes.CDLL(str(path))
    handler = _handler(platform, capability)
    query, run = (ctypes.cast(library[n], ctypes.c_void_p) for n in (f"{name}_workspace", name))
    key = f"{name}.{path.stem}"
    handler.tcnca_register(key.encode(), query, run)
    return key


def load(operation, name, shape, dtype, platform):
    """Compiles a pass if necessary. Returns the name that its custom call refers to; it is the same in all processes
    that use the same cache."""
    with _lock:
        return _load(operation, name, shape, dtype, platform, _capability(platform))
