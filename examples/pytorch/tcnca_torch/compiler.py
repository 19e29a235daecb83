"""Compiles C++ source to a shared library, once for each machine: results are kept in a cache on disk. Free of PyTorch:
the package for JAX uses it too."""
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parent
NAME = __name__.split(".")[0]  # of the package: tcnca_torch or tcnca_jax
CPU_FLAGS = ("-O3", "-fopenmp", "-std=c++20", "-fPIC", "-shared", "-fvisibility=hidden")
# Levels of the x86-64 ABI for which the library has own kernels, best first, and what /proc/cpuinfo calls them.
LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
}


class CompilerError(RuntimeError):
    """There is no compiler, or it failed. `output` is what it printed."""

    def __init__(self, message, output=""):
        super().__init__(message)
        self.output = output

    @property
    def refusal(self):
        """What the library says against the shape, or None."""
        wrong = re.search(r'static.assert[^\n]*?(tcnca::\w+: [^\n"]*)', self.output)
        return wrong and wrong.group(1)


@functools.cache
def header_folder():
    """The folder that contains tcnca/: in the package, or in a checkout of the library."""
    for folder in (PACKAGE / "include", PACKAGE.parents[2] / "include"):
        if (folder / "tcnca" / "tcnca.hpp").is_file():
            return folder
    raise CompilerError(f"{NAME}: the headers of tcnca are neither in {PACKAGE / 'include'} nor in a checkout")


@functools.cache
def digest_of_headers(include=()):
    digest = hashlib.sha256()
    for folder in (header_folder() / "tcnca", PACKAGE / "native", *include):
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def cache_folder():
    """TCNCA_TORCH_CACHE (of the package for JAX: TCNCA_JAX_CACHE), or tcnca_torch in the user's folder for caches."""
    chosen = os.environ.get(f"{NAME.upper()}_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(chosen or os.path.join(base, NAME))


@functools.cache
def processor():
    """What -march=native depends on."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("vendor_id", "cpu family", "model\t", "flags", "Features", "CPU implementer", "CPU part")
        return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    return f"{platform.machine()} {platform.processor()}"


@functools.cache
def own_levels():
    """The levels that this processor has, best first."""
    flags = set(" ".join(re.findall(r"^flags\s*:(.*)", processor(), re.MULTILINE)).split())
    names = list(LEVELS)
    return [n for i, n in enumerate(names) if all(LEVELS[lower] <= flags for lower in names[i:])]


@functools.cache
def version_of(command):
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout


def find_compiler(device_type):
    """The command of the compiler for a device, as a tuple: its path and further arguments, if the environment variable
    that names it has some ("ccache g++")."""
    kind, names = ("NVCC", ["nvcc"]) if device_type == "cuda" else ("CXX", ["c++", "g++", "clang++"])
    variable = f"{NAME.upper()}_{kind}"
    chosen = os.environ.get(variable) or (os.environ.get("CXX") if device_type == "cpu" else None)
    folders = os.environ.get("PATH", os.defpath) + (os.pathsep + "/usr/local/cuda/bin" if device_type == "cuda" else "")
    for name, *arguments in [shlex.split(chosen)] if chosen else [[n] for n in names]:
        path = shutil.which(name, path=folders)
        if path:
            return path, *arguments
    raise CompilerError(
        f"{NAME}: no compiler for {device_type} tensors: {chosen or ', '.join(names)} was not found. Operations "
        f"are compiled when they are first used. Install g++ 12 or clang++ 14 or newer (for GPUs: nvcc 13.0), or name "
        f"a compiler in {variable}.")


def cuda_flags(capability):
    major, minor = capability
    feature = "a" if major == 9 else ""
    return ("-O3", f"-arch=sm_{major}{minor}{feature}", "-std=c++20", "-shared", "-Xcompiler",
            "-fPIC,-fvisibility=hidden")


def build(source, what, device_type="cpu", capability=None, include=(), level=None):
    """The path of a shared library compiled from the source. `what` describes it in the progress line; `include`:
    further folders of headers, as a tuple; `level`: "native" or one of LEVELS. Without a level the best library that
    the cache has for this processor, otherwise one that is compiled for it. A library that is in the cache does not
    need a compiler."""
    if level not in (None, "native", *LEVELS):
        raise ValueError(f"{NAME}: the level is {level!r}, expected one of native, {', '.join(LEVELS)}")
    folder, missing = cache_folder(), None
    try:
        command = find_compiler(device_type)
        version = hashlib.sha256(json.dumps([version_of(command), command[1:]]).encode()).hexdigest()[:8]
    except CompilerError as error:
        command, version, missing = None, "*", error  # the newest library, of any compiler
    levels = [None] if device_type == "cuda" else [level] if level else ["native", *own_levels()]
    libraries = []
    for level in levels:
        flags = cuda_flags(capability) if level is None else (*CPU_FLAGS, f"-march={level}")
        key = json.dumps([source, flags, digest_of_headers(include), processor() if level == "native" else ""])
        stem = hashlib.sha256(key.encode()).hexdigest()[:32]
        found = sorted(folder.glob(f"{stem}-{version}.so"), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]
        libraries.append((flags, folder / f"{stem}-{version}.so"))
    if missing:
        raise missing
    flags, library = libraries[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(library.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be compiling the same source
            if not library.exists():
                _compile(command, flags, source, what, library, ".cu" if device_type == "cuda" else ".cpp", include)
    except OSError as error:
        raise CompilerError(f"{NAME}: {what} is not in the cache, and {folder} cannot be written: {error}. "
                            f"{NAME.upper()}_CACHE names another folder.") from error
    return library


def _compile(command, flags, source, what, library, suffix, include):
    file, unfinished = library.with_suffix(suffix), library.with_suffix(".unfinished")
    file.write_text(source)
    folders = [f"-I{folder}" for folder in (header_folder(), PACKAGE / "native", *include)]
    command = [*command, *flags, *folders, "-o", str(unfinished), str(file)]
    print(f"{NAME}: compiling {what}; kept in {library.parent}", file=sys.stderr, flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        raise CompilerError(f"{NAME}: {' '.join(command)} failed:\n{result.stdout}", result.stdout)
    os.replace(unfinished, library)
