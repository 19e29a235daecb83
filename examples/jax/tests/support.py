"""What several tests share. Imported before jax: two devices, for shard_map."""
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"

import unittest

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def normal(seed, *extents, dtype=jnp.float64, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(extents)).astype(dtype)


class TestCase(unittest.TestCase):
    def close(self, actual, expected, relative, absolute=0.0):
        """|actual - expected| <= relative max |expected| + absolute, in every leaf."""
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
            self.assertEqual(a.shape, e.shape)
            if e.size > 0:
                self.assertLessEqual(np.abs(a - e).max(), relative * np.abs(e).max() + absolute)

    def equal(self, actual, expected):
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            self.assertTrue(np.array_equal(np.asarray(a), np.asarray(e)))

    def gradients(self, function, reference, tensors, relative, absolute=0.0):
        """Values, and the gradients of all tensors for one random cotangent."""
        y, backward = jax.vjp(function, *tensors)
        expected, reference_backward = jax.vjp(reference, *tensors)
        self.close(y, expected, relative, absolute)
        cotangent = jax.tree.map(lambda t: normal(99, *t.shape, dtype=t.dtype), y)
        self.close(backward(cotangent), reference_backward(cotangent), 10 * relative, absolute)
