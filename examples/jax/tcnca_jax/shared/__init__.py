"""What this package shares with that for PyTorch: compiler.py, shapes.py and native/. An installed package contains
these files here, with the headers of the library; in a checkout they are those of examples/pytorch."""
import pathlib

_here = pathlib.Path(__file__).parent
if not (_here / "compiler.py").is_file():
    __path__.append(str(_here.parents[2] / "pytorch" / "tcnca_torch"))
