#!/usr/bin/env python3
"""Builds the sdist and, from it, the wheel; checks what they contain; installs the wheel in a new environment without
its dependencies and compiles a pass with it. PyTorch is not downloaded: on Linux, PyPI's wheel has 540 MB and needs
others that take 3 GB installed. If the Python that runs this script has PyTorch, the installed package runs an
operation with it.

  check_package.py FOLDER     a new folder for the environment; ends with 77 if pip cannot download hatchling
"""
import pathlib
import subprocess
import sys
import tarfile
import venv
import zipfile

PACKAGE = pathlib.Path(__file__).resolve().parent
HEADERS = PACKAGE.parents[1] / "include"

# Without PyTorch: the module that compiles, from its file.
COMPILE = """
import importlib.util, pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"), "tcnca_torch")
spec = importlib.util.spec_from_file_location("tcnca_torch.compiler", folder / "compiler.py")
compiler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compiler)
assert compiler.header_folder() == folder / "include", compiler.header_folder()
source = '''#include "conv_stack.hpp"
extern "C" int f(tcnca_torch::call const* c) {
  return tcnca_torch::run<tcnca_torch::conv_stack_forward<float, tcnca::conv_stack_shape{.taps = 2}>>(*c);
}'''
print(compiler.build(source, "a pass of conv_stack"))
"""
RUN = """
import tcnca_torch, torch, sysconfig
assert tcnca_torch.__file__.startswith(sysconfig.get_path("purelib")), tcnca_torch.__file__
y = tcnca_torch.conv_stack(torch.ones(1, 1, 4), torch.ones(1, 2, 1), shape=tcnca_torch.ConvStackShape(taps=2))
assert y.tolist() == [[[1, 2, 2, 2]]], y
"""


def files_of(names, prefix=""):
    return {name.removeprefix(prefix) for name in names}


def main():
    folder = pathlib.Path(sys.argv[1])
    venv.create(folder / "venv", with_pip=True, clear=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "install", "--retries", "1", "build", "hatchling"]).returncode != 0:
        print("skipped: pip could not install hatchling")
        return 77
    subprocess.run([python, "-m", "build", "--no-isolation", PACKAGE, "--outdir", folder / "dist"], check=True,
                   stdout=subprocess.DEVNULL)
    sdist, = (folder / "dist").glob("*.tar.gz")
    wheel, = (folder / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = files_of(archive.getnames(), sdist.name.removesuffix(".tar.gz") + "/")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = files_of(archive.namelist())
    expected = {f"tcnca_torch/include/{f.relative_to(HEADERS)}" for f in HEADERS.rglob("*.[hc]*") if f.is_file()}
    tracked = ("*.py", "native/*.hpp", "operators/*.py")
    expected |= {f"tcnca_torch/{f.relative_to(PACKAGE / 'tcnca_torch')}" for pattern in tracked
                 for f in (PACKAGE / "tcnca_torch").glob(pattern)}
    for what, found in (("sdist", in_sdist), ("wheel", in_wheel)):
        if not expected <= found:
            raise SystemExit(f"the {what} lacks {sorted(expected - found)}")
    print(f"sdist and wheel have the {len(expected)} files of the package and the library")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TCNCA_TORCH_CACHE": str(folder / "cache")}
    subprocess.run([python, "-I", "-c", COMPILE], check=True, env=environment)
    try:
        import torch
    except ImportError:
        print("no PyTorch here: the installed package was not imported as a whole")
        return 0
    packages, = (folder / "venv" / "lib").glob("python3*/site-packages")
    (packages / "torch.pth").write_text(str(pathlib.Path(torch.__file__).parents[1]))
    subprocess.run([python, "-I", "-c", RUN], check=True, env=environment)
    print("an operation of the installed package has the right result")
    return 0


if __name__ == "__main__":
    sys.exit(main())
