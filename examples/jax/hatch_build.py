"""Adds files of the checkout to the package. A source distribution contains them already."""
import pathlib

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARED = "tcnca_jax/shared"


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        root = pathlib.Path(self.root)
        if version == "editable" or (root / SHARED / "compiler.py").is_file():
            return
        library = root.parents[1]
        torch = library / "examples" / "pytorch" / "tcnca_torch"
        files = {library / "include" / "tcnca": "include/tcnca", torch / "native": "native"}
        files |= {torch / name: name for name in ("compiler.py", "shapes.py")}
        build_data["force_include"].update({str(f): f"{SHARED}/{name}" for f, name in files.items()})
