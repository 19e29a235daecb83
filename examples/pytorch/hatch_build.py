"""Adds the headers of the library to the wheel and to the sdist, when they are built from a checkout of it."""
import pathlib

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Headers(BuildHookInterface):
    def initialize(self, version, build_data):
        headers = pathlib.Path(self.root).parents[1] / "include" / "tcnca"
        if (headers / "tcnca.hpp").is_file():
            build_data["force_include"][str(headers)] = "tcnca_torch/include/tcnca"
        elif not pathlib.Path(self.root, "tcnca_torch", "include", "tcnca", "tcnca.hpp").is_file():
            raise RuntimeError("the headers of tcnca are neither in tcnca_torch/include nor in ../../include")
