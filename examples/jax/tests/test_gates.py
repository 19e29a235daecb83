"""mix, reset and update: against jax.nn; types, vmap, dropout."""
import functools
import unittest

from support import TestCase, normal

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import reference
from tcnca_jax import mix, reset, update

EXTENTS = 2, 5, 8


def tensors(count):
    return tuple(normal(i, *EXTENTS) for i in range(count))


class Gates(TestCase):
    def test_mix(self):
        z, parameters = normal(0, *EXTENTS), tuple(normal(i, EXTENTS[2]) for i in range(1, 5))
        self.gradients(mix, reference.mix, (z, *parameters), 1e-14)
        zs, gains = normal(6, 3, *EXTENTS), normal(7, 3, EXTENTS[2])

        def gradient(z, gq):
            return jax.grad(lambda g: sum((t**2).sum() for t in mix(z, g, *parameters[1:])))(gq)
        self.close(jax.vmap(gradient)(zs, gains), jnp.stack([gradient(z, g) for z, g in zip(zs, gains)]), 1e-14)
        self.assertNotIn("scan", str(jax.make_jaxpr(jax.vmap(gradient))(zs, gains)))

    def test_mix_in_bf16_with_parameters_in_fp32(self):
        z, parameters = normal(0, *EXTENTS, dtype=jnp.bfloat16), [normal(i, EXTENTS[2], dtype=jnp.float32)
                                                                  for i in range(4)]
        q, backward = jax.vjp(lambda *p: mix(z, *p)[0], *parameters)
        self.close(q, reference.mix(z.astype(jnp.float64), *parameters)[0], 2**-8)
        self.assertEqual({g.dtype for g in backward(q)}, {jnp.dtype(jnp.float32)})

    def test_reset(self):
        self.gradients(reset, reference.reset, tensors(2), 1e-14)
        o, r = normal(6, 3, *EXTENTS), tensors(1)[0]
        self.equal(jax.vmap(reset, (0, None))(o, r), jnp.stack([reset(e, r) for e in o]))

    def test_update(self):
        self.gradients(update, reference.update, tensors(4), 1e-14)

    def test_update_converts_to_the_widest_type(self):
        h, x = tensors(2)
        y, backward = jax.vjp(update, h.astype(jnp.bfloat16), x)
        self.equal(y, update(h.astype(jnp.bfloat16).astype(jnp.float64), x))
        self.assertEqual([g.dtype for g in backward(y)], [jnp.bfloat16, jnp.float64])

    def test_dropout(self):
        h, x, u, hx = tensors(4)
        f = functools.partial(update, dropout=0.5, key=jax.random.key(3))
        y, dropped = f(h, x, u, hx), x * (1 - jax.nn.sigmoid(u))
        zeros = jnp.abs(y - dropped) < 1e-14
        self.assertTrue(0 < zeros.sum() < zeros.size)
        kept = x + jax.nn.sigmoid(u) * (2 * jax.nn.silu(hx + h) - x)
        self.close(y, jnp.where(zeros, dropped, kept), 1e-14)
        self.equal(jax.jit(f)(h, x, u, hx), y)
        check_grads(f, (h, x, u, hx), order=1, modes=["rev"])

    def test_errors(self):
        h, x = tensors(2)
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "tcnca::gated_fusion: r: an extent is"):
            jax.block_until_ready(reset(h, x[:1]))
        with self.assertRaisesRegex(ValueError, "tcnca::gated_fusion: r is of type float32, expected float64"):
            reset(h, x.astype(jnp.float32))


if __name__ == "__main__":
    unittest.main()
