"""The cache of compiled shapes, and what generates their source."""
import ctypes
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import tcnca_torch
from support import TestCase
from tcnca_torch import compiler, shapes

SHAPES = [
    shapes.ConvStackShape(taps=4, depth=6, dilation_base=4, act="gelu_tanh", residuals="block", dir="bidirectional"),
    shapes.ConvStackShape(taps=3, dilations=(1, 2, 5), convolutions=2, blocks=3, bias=True, skip=True),
    shapes.EmaShape(states=8, skip=False, order="batch_length_channels"),
    shapes.GatedFusionShape(reset_gate=False, dropout=True),
    shapes.ChunkedAttentionShape(function="laplace", causal=True),
]
NAMES = ["conv_stack", "conv_stack", "ema", "gated_fusion", "chunked_attention"]


class Cache(TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = mock.patch.dict(os.environ, TCNCA_TORCH_CACHE=folder.name)
        self.environment.start()
        self.addCleanup(self.environment.stop)

    def test_the_lock_of_the_cache(self):
        program = ("from tcnca_torch import compiler; import ctypes\n"
                   "path = compiler.build('#include <tcnca/core/tensor.hpp>\\nextern \"C\" __attribute__((visibility("
                   "\"default\"))) int f() { return 3; }', 'f')\n"
                   "assert ctypes.CDLL(str(path)).f() == 3")
        package = str(pathlib.Path(tcnca_torch.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": package}
        command = [sys.executable, "-c", program]
        processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        output = [p.communicate()[1] for p in processes]
        self.assertEqual([p.returncode for p in processes], [0, 0, 0], output)
        self.assertEqual("".join(output).count("compiling f"), 1)
        self.assertEqual(sorted(p.suffix for p in self.folder.iterdir()), [".cpp", ".lock", ".so"])

    def test_without_a_compiler(self):
        with mock.patch.dict(os.environ, TCNCA_TORCH_CXX="/nowhere/g++"):
            with self.assertRaisesRegex(tcnca_torch.CompilerError, "/nowhere/g[+][+] was not found. .*TCNCA_TORCH_CXX"):
                compiler.build("int x;", "x")

    def test_a_filled_cache_needs_no_compiler(self):
        library = compiler.build("int x;", "x")
        with mock.patch.dict(os.environ, TCNCA_TORCH_CXX="/nowhere/g++"):
            self.assertEqual(compiler.build("int x;", "x"), library)

    def test_a_compiler_with_arguments(self):
        found = shlex.join(compiler.find_compiler("cpu"))
        source = "#if CHOSEN != 3\n#error no argument\n#endif\nint x;"
        with mock.patch.dict(os.environ, TCNCA_TORCH_CXX=f"env {found} -DCHOSEN=3"):
            library = compiler.build(source, "x")
        with mock.patch.dict(os.environ, TCNCA_TORCH_CXX=f"{found} -DCHOSEN=4"):
            with self.assertRaises(tcnca_torch.CompilerError):
                compiler.build(source, "x")
        self.assertTrue(library.exists())

    def test_a_cache_that_cannot_be_written(self):
        (self.folder / "file").touch()
        with mock.patch.dict(os.environ, TCNCA_TORCH_CACHE=str(self.folder / "file")):
            with self.assertRaisesRegex(tcnca_torch.CompilerError, "file cannot be written: .*TCNCA_TORCH_CACHE names"):
                compiler.build("int x;", "x")

    def test_source_that_does_not_compile(self):
        with self.assertRaisesRegex(tcnca_torch.CompilerError, "(?s)-march=native.*unknown_type"):
            compiler.build("unknown_type x;", "x")
        self.assertFalse(list(self.folder.glob("*.so")))

    def test_sources_of_shapes_are_those_of_the_library(self):
        headers = "".join(f"#include <tcnca/{name}/shape.hpp>\n" for name in sorted(set(NAMES)))
        values = ", ".join(f"to_string(tcnca::{name}_shape{shape.source})" for name, shape in zip(NAMES, SHAPES))
        defaults = ", ".join(f"to_string(tcnca::{name}_shape{{}})" for name in NAMES)
        source = (f"#include <tcnca/core/text.hpp>\n{headers}"
                  f"constexpr tcnca::text texts[] = {{{values}, {defaults}}};\n"
                  'extern "C" __attribute__((visibility("default"))) char const* text(int i) '
                  "{ return texts[i].c_str(); }")
        text = ctypes.CDLL(str(compiler.build(source, "texts"))).text
        text.restype = ctypes.c_char_p
        expected = [s.source for s in SHAPES] + [type(s)().source for s in SHAPES]
        self.assertEqual([text(i).decode() for i in range(len(expected))], expected)

    def test_parse(self):
        for shape in SHAPES:
            self.assertEqual(shapes.parse(type(shape), shape.source), shape)
        with self.assertRaisesRegex(ValueError, "not the source"):
            shapes.parse(shapes.EmaShape, "{.states = 8}")


if __name__ == "__main__":
    unittest.main()
