"""The cache on disk, and how the package finds what it shares with the PyTorch package."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from support import TestCase, normal

import jax
import numpy as np

import tcnca_jax
from tcnca_jax import kernels
from tcnca_jax.shared import compiler

PROGRAM = """
import sys, jax, jax.numpy as jnp, tcnca_jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
print(jax.jit(tcnca_jax.reset)(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 3))).sum())
"""


class Package(TestCase):
    def test_members_are_those_of_the_library(self):
        tensors, integers, reals = kernels.members("chunked_attention", "attention_forward")
        self.assertEqual(tensors[:4], ["q", "k", "v", "bias"])
        self.assertEqual((integers, reals), (["chunk", "position", "window", "seed", "offset", "max_length"],
                                             ["scale", "dropout"]))
        for operation, name in (("conv_stack", "conv_stack_backward"), ("ema", "ema_forward"), ("gated_fusion", "mix"),
                                ("chunked_attention", "rotary_backward")):
            tensors, integers, reals = kernels.members(operation, name)
            arguments = (compiler.header_folder() / "tcnca" / operation / "arguments.hpp").read_text()
            for member in tensors + integers + reals:
                self.assertRegex(arguments, rf"\b{member} = ")

    def test_without_a_compiler(self):
        with tempfile.TemporaryDirectory() as folder:
            with mock.patch.dict(os.environ, TCNCA_JAX_CXX="/nowhere/g++", TCNCA_JAX_CACHE=folder):
                with self.assertRaisesRegex(tcnca_jax.CompilerError, "/nowhere/g[+][+] was not found. .*TCNCA_JAX_CXX"):
                    tcnca_jax.reset(normal(0, 1, 2, 3, dtype="float16"), normal(0, 1, 2, 3, dtype="float16"))

    def test_programs_of_the_persistent_cache_run_in_another_process(self):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"PYTHONPATH": str(pathlib.Path(tcnca_jax.__file__).parents[1])}
            command = [sys.executable, "-c", PROGRAM, folder]
            results = [subprocess.run(command, env=environment, capture_output=True, text=True) for _ in range(2)]
            self.assertEqual([r.returncode for r in results], [0, 0], results)
            self.assertEqual(results[0].stdout, results[1].stdout)
            self.assertTrue([f for f in pathlib.Path(folder).iterdir() if "reset" in f.name])

    def test_a_program_of_another_process(self):
        o = normal(0, 1, 2, 3)
        expected = tcnca_jax.reset(o, o)

        def call(function):
            return jax.ffi.ffi_call(kernels.TARGET, jax.ShapeDtypeStruct(o.shape, o.dtype))(
                o, o, operation="gated_fusion", function=function, members=np.array([0, 4, 8]), integers=np.array([0]),
                traced=np.array([-1]), reals=np.array([0.0]))
        loaded = kernels.load("gated_fusion", "reset", tcnca_jax.GatedFusionShape(), "float64", "cpu")
        self.equal(call(loaded), expected)
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "gated_fusion: the compiled program comes from"):
            jax.block_until_ready(call("reset.not_loaded"))


if __name__ == "__main__":
    unittest.main()
