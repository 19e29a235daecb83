"""Conan 2 recipe of the checkout that contains it: conan create cmake/packages/conan -s compiler.cppstd=20"""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain
from conan.tools.files import copy, load

ROOT = os.path.join("..", "..", "..")  # from the folder of the recipe


class Tcnca(ConanFile):
    name = "tcnca"
    description = "Dilated convolution stacks, chunked attention and gates for long sequences, on CPU and CUDA"
    license = "Apache-2.0"
    topics = ("convolution", "attention", "long-sequences", "cuda", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    no_copy_source = True

    def set_version(self):
        header = load(self, os.path.join(self.recipe_folder, ROOT, "include", "tcnca", "core", "version.hpp"))
        self.version = ".".join(re.findall(r"version_(?:major|minor|patch) = (\d+);", header))

    def export_sources(self):
        root = os.path.join(self.recipe_folder, ROOT)
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*.cmake", "include/*"):
            copy(self, pattern, src=root, dst=self.export_sources_folder)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "BENCH", "EXAMPLES"):
            toolchain.cache_variables[f"TCNCA_BUILD_{part}"] = False
        toolchain.generate()

    def package(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.install()
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        # Consumers use the package's own CMake file, which requests C++20 also from nvcc.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "tcnca")]
