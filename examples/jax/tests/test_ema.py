"""ema: against the convolution by jnp.fft; states, layouts, vmap, scan."""
import functools
import unittest

from support import TestCase, normal

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import reference
from tcnca_jax import CHANNELS_LAST, EmaShape, ema, ema_step

SHAPE = EmaShape(states=4)
BOTH = EmaShape(states=4, dir="bidirectional", skip=False, order=CHANNELS_LAST)
CHANNELS, LENGTH = 3, 40


def parameters(shape, dtype=jnp.float64):
    tables = [normal(i, shape.directions * CHANNELS, shape.states, dtype=dtype) for i in range(1, 5)]
    return *tables, normal(5, CHANNELS, dtype=dtype) if shape.skip else None


def average(x, *p, **options):
    return ema(x, *p, shape=SHAPE, **options)


def state_of(batch):
    return normal(6, batch, CHANNELS, SHAPE.states)


class Ema(TestCase):
    def setUp(self):
        self.x, self.parameters = normal(0, 2, CHANNELS, LENGTH), parameters(SHAPE)

    def test_against_fft(self):
        self.gradients(average, functools.partial(reference.ema, shape=SHAPE), (self.x, *self.parameters), 1e-12)

    def test_bidirectional_in_fp32_with_channels_last(self):
        p = parameters(BOTH, jnp.float32)
        x = normal(0, 2, LENGTH, CHANNELS, dtype=jnp.float32)

        def f(x, *p):
            return ema(x, *p, shape=BOTH)

        def exact(x, *p):
            x, *p = (None if t is None else t.astype(jnp.float64) for t in (x, *p))
            return reference.ema(x.swapaxes(1, 2), *p, BOTH).swapaxes(1, 2).astype(jnp.float32)
        self.gradients(f, exact, (x, *p), 1e-5)
        xs, tables = normal(7, 3, 2, LENGTH, CHANNELS, dtype=jnp.float32), normal(8, 3, *p[0].shape, dtype=jnp.float32)
        self.equal(jax.vmap(lambda x: f(x, *p))(xs), jnp.stack([f(x, *p) for x in xs]))
        self.equal(jax.vmap(lambda d: f(x, d, *p[1:]))(tables), jnp.stack([f(x, d, *p[1:]) for d in tables]))

    def test_check_grads_with_a_state(self):
        def f(x, delta, alpha, beta, gamma, omega, state):
            return average(x, delta, alpha, beta, gamma, omega, state=state, return_state=True)
        check_grads(f, (self.x[..., :5], *self.parameters, state_of(2)), order=1, modes=["rev"])

    def test_vmap_over_parameters(self):
        tables, xs = normal(8, 3, *self.parameters[0].shape), normal(7, 3, 2, CHANNELS, LENGTH)

        def gradients(delta, x, state):
            return jax.grad(lambda d, s: (average(x, d, *self.parameters[1:], state=s)**2).sum(), (0, 1))(delta, state)
        state = state_of(2)
        expected = [gradients(d, x, state) for d, x in zip(tables, xs)]
        mapped = jax.vmap(gradients, (0, 0, None))
        self.close(mapped(tables, xs, state), jax.tree.map(lambda *t: jnp.stack(t), *expected), 1e-13)
        self.assertNotIn("scan", str(jax.make_jaxpr(mapped)(tables, xs, state)))

    def test_scan_with_a_donated_state(self):
        def token(state, x):
            y, state = ema_step(x[..., None], *self.parameters, shape=SHAPE, state=state)
            return state, y[..., 0]
        decode = jax.jit(lambda state, x: jax.lax.scan(token, state, x), donate_argnums=0)
        state = jnp.zeros_like(state_of(2))
        _, y = decode(state, self.x.transpose(2, 0, 1))
        self.assertTrue(state.is_deleted())
        self.close(y.transpose(1, 2, 0), average(self.x, *self.parameters), 1e-14)

    def test_errors(self):
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "tcnca::ema: delta: an extent is .*expected 3"):
            jax.block_until_ready(average(self.x, self.parameters[0][:2], *self.parameters[1:]))
        with self.assertRaisesRegex(ValueError, "tcnca::ema: state is of type float32, expected float64"):
            average(self.x, *self.parameters, state=state_of(2).astype(jnp.float32))


if __name__ == "__main__":
    unittest.main()
