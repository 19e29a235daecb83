"""conv_stack: against a chain of lax.conv_general_dilated; states, layouts, types, jit, vmap, scan, shard_map."""
import concurrent.futures
import dataclasses
import functools
import unittest

from support import TestCase, normal

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import reference
from tcnca_jax import CHANNELS_LAST, ConvStackShape, conv_stack, conv_stack_step

SHAPE = ConvStackShape(taps=3, depth=2, dilation_base=3, act="silu", residuals="level", bias=True, skip=True)
LAST = ConvStackShape(taps=4, depth=3, dilation_base=4, residuals="level", skip=True, order=CHANNELS_LAST)
SYMMETRIC = ConvStackShape(taps=3, depth=2)
CHANNELS, LENGTH = 5, 30


def parameters(shape, dtype=jnp.float64, channels=CHANNELS):
    return (normal(1, shape.weight_sets, shape.taps, channels, dtype=dtype, scale=0.5),
            normal(2, shape.weight_sets, channels, dtype=dtype) if shape.bias else None,
            normal(3, channels, dtype=dtype) if shape.skip else None)


def stack(x, weight, bias, omega, **options):
    return conv_stack(x, weight, bias, omega, shape=SHAPE, **options)


def state_of(batch):
    return normal(5, batch, CHANNELS, SHAPE.receptive_field - 1)


class ConvStack(TestCase):
    def setUp(self):
        self.x, self.parameters = normal(0, 2, CHANNELS, LENGTH), parameters(SHAPE)

    def test_against_a_chain_of_convolutions(self):
        self.gradients(stack, functools.partial(reference.conv_stack, shape=SHAPE), (self.x, *self.parameters), 1e-13)

    def test_check_grads_with_a_state(self):
        def f(x, weight, bias, omega, state):
            return stack(x, weight, bias, omega, state=state, position=7, return_state=True)
        check_grads(f, (self.x[..., :4], *self.parameters, state_of(2)), order=1, modes=["rev"])

    def test_jit(self):
        def loss(x, *p):
            return jnp.sin(stack(2 * x, *p)).sum()
        every = tuple(range(4))
        value, gradients = jax.jit(jax.value_and_grad(loss, every))(self.x, *self.parameters)
        expected, others = jax.value_and_grad(loss, every)(self.x, *self.parameters)
        self.close(value, expected, 1e-13)
        self.close(gradients, others, 1e-13)
        self.close(jax.grad(jax.checkpoint(loss), every)(self.x, *self.parameters), gradients, 1e-13)

    def test_parts(self):
        whole = stack(self.x, *self.parameters)
        state, parts = jnp.zeros_like(state_of(2)), []
        for first, end in ((0, 1), (1, 12), (12, LENGTH)):
            y, state = stack(self.x[..., first:end], *self.parameters, state=state, position=first, return_state=True)
            parts.append(y)
        self.equal(jnp.concatenate(parts, 2), whole)
        self.equal(state, stack(self.x, *self.parameters, state=jnp.zeros_like(state), return_state=True)[1])

    def test_scan_with_a_donated_state(self):
        def token(carry, x):
            state, position = carry
            y, state = conv_stack_step(x[..., None], *self.parameters, shape=SHAPE, state=state, position=position)
            return (state, position + 1), y[..., 0]

        @functools.partial(jax.jit, donate_argnums=0)
        def decode(state, x):
            (state, _), y = jax.lax.scan(token, (state, 0), x)
            return state, y
        state = jnp.zeros_like(state_of(2))
        state_after, y = decode(state, self.x.transpose(2, 0, 1))
        self.equal(y.transpose(1, 2, 0), stack(self.x, *self.parameters))
        self.assertTrue(state.is_deleted())
        compiled = decode.lower(state_after, self.x.transpose(2, 0, 1)).compile().as_text()
        self.assertIn("output_to_operand_aliasing", compiled)

    def test_a_step_writes_the_memory_of_the_donated_state(self):
        def step(x, state):
            return conv_stack_step(x, *self.parameters, shape=SHAPE, state=state, position=0)
        state = jnp.asarray(state_of(2))
        before = state.unsafe_buffer_pointer()
        y, after = jax.jit(step, donate_argnums=1)(self.x[..., :1], state)
        self.assertEqual(after.unsafe_buffer_pointer(), before)
        kept = jnp.asarray(state_of(2))
        self.equal(step(self.x[..., :1], kept), (y, after))
        self.equal(kept, state_of(2))  # not donated: XLA copies it

    def test_vmap_over_batch(self):
        x = normal(6, 3, 2, CHANNELS, LENGTH)
        y = jax.vmap(lambda x: stack(x, *self.parameters))(x)
        self.equal(y, jnp.stack([stack(e, *self.parameters) for e in x]))
        text = str(jax.make_jaxpr(jax.vmap(lambda x: stack(x, *self.parameters)))(x))
        self.assertNotIn("scan", text)

    def test_vmap_over_parameters(self):
        weights = normal(7, 3, *self.parameters[0].shape)
        xs = normal(8, 2, CHANNELS, LENGTH, 3)

        def gradients(weight, x):
            return jax.grad(lambda w, x: (stack(x, w, *self.parameters[1:])**2).sum(), (0, 1))(weight, x)
        mapped = jax.vmap(gradients, (0, 3))
        expected = [gradients(weights[i], xs[..., i]) for i in range(3)]
        self.close(mapped(weights, xs), jax.tree.map(lambda *t: jnp.stack(t), *expected), 1e-13)
        self.assertNotIn("scan", str(jax.make_jaxpr(mapped)(weights, xs)))

    def test_vmap_over_positions(self):
        states, positions = normal(9, 3, 2, CHANNELS, SHAPE.receptive_field - 1), jnp.array([0, 4, 11])

        def f(state, position):
            return stack(self.x, *self.parameters, state=state, position=position, return_state=True)
        expected = [f(s, int(p)) for s, p in zip(states, positions)]
        self.equal(jax.vmap(f)(states, positions), jax.tree.map(lambda *t: jnp.stack(t), *expected))

    def test_gradient_of_vmap(self):
        x = normal(6, 3, 2, CHANNELS, LENGTH)

        def loss(weight, f):
            return (jax.vmap(lambda e: f(e, weight, *self.parameters[1:]))(x)**2).sum()
        self.close(jax.grad(loss)(self.parameters[0], stack),
                   jax.grad(loss)(self.parameters[0], functools.partial(reference.conv_stack, shape=SHAPE)), 1e-12)

    def test_shard_map(self):
        mesh = jax.make_mesh((2,), ("data",))
        data, same = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

        @functools.partial(jax.shard_map, mesh=mesh, in_specs=(data, same), out_specs=same)
        def loss(x, weight):
            return jax.lax.psum((stack(x, weight, *self.parameters[1:])**2).sum(), "data")
        expected = jax.value_and_grad(lambda x, w: (stack(x, w, *self.parameters[1:])**2).sum(), (0, 1))
        x = jax.device_put(self.x, jax.sharding.NamedSharding(mesh, data))
        found = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, self.parameters[0])
        self.close(found, expected(self.x, self.parameters[0]), 1e-13)

    def test_sharded_arguments_and_pmap(self):
        mesh = jax.make_mesh((2,), ("data",))
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        expected = stack(self.x, *self.parameters)
        self.equal(jax.jit(stack)(jax.device_put(self.x, rows), *self.parameters), expected)
        self.equal(jax.pmap(lambda x: stack(x[None], *self.parameters)[0])(self.x), expected)

    def test_bf16_with_channels_last(self):
        x = normal(0, 2, 200, 8, dtype=jnp.bfloat16)
        weight, _, omega = parameters(LAST, jnp.float32, 8)
        first = dataclasses.replace(LAST, order=ConvStackShape().order)

        def f(x, weight, omega):
            return conv_stack(x, weight, omega=omega, shape=LAST)

        def exact(x, weight, omega):
            return reference.conv_stack(x.swapaxes(1, 2), weight, None, omega, first).swapaxes(1, 2)
        y, backward = jax.vjp(f, x, weight, omega)
        expected, reference_backward = jax.vjp(exact, *(jnp.asarray(t, jnp.float64) for t in (x, weight, omega)))
        self.assertEqual(y.dtype, jnp.bfloat16)
        self.close(y, expected, 2**-7)
        gradient = normal(4, *x.shape, dtype=jnp.bfloat16)
        found = backward(gradient)
        self.assertEqual([g.dtype for g in found], [jnp.bfloat16, jnp.float32, jnp.float32])
        self.close(found, reference_backward(gradient.astype(jnp.float64)), 2**-6)

    def test_fp16_symmetric_with_channels_last(self):
        shape = dataclasses.replace(SYMMETRIC, dir="symmetric", order=CHANNELS_LAST)
        weight = normal(1, shape.weight_sets, shape.taps, CHANNELS, dtype=jnp.float16)
        x = self.x.swapaxes(1, 2).astype(jnp.float16)
        y = conv_stack(x, weight, shape=shape)
        exact = reference.conv_stack(*(t.astype(jnp.float64) for t in (x.swapaxes(1, 2), weight)), None, None, shape)
        self.close(y.swapaxes(1, 2), exact, 2**-10)
        with self.assertRaisesRegex(Exception, "tcnca::conv_stack: state_in: "):
            jax.block_until_ready(conv_stack(x, weight, shape=shape, state=jnp.zeros((2, 6, CHANNELS), jnp.float32)))

    def test_calls_of_several_threads(self):
        x = normal(0, 16, CHANNELS, 200)
        f = jax.jit(lambda x: jax.grad(lambda x: (stack(x, *self.parameters)**2).sum())(x))
        expected = f(x)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: f(x), range(100)):
                self.equal(found, expected)

    def test_empty(self):
        y = stack(self.x[:0], *self.parameters)
        self.assertEqual(y.shape, (0, CHANNELS, LENGTH))
        gradient = jax.grad(lambda w: stack(self.x[:0], w, *self.parameters[1:]).sum())(self.parameters[0])
        self.equal(gradient, jnp.zeros_like(gradient))

    def test_errors(self):
        weight, bias, omega = self.parameters
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError,
                                    r"tcnca::conv_stack: weight: an extent is .*\(extent\[0\] is 1, expected 2\)"):
            jax.block_until_ready(stack(self.x, weight[:1], bias, omega))
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "tcnca::conv_stack: bias: an argument that"):
            jax.block_until_ready(stack(self.x, weight, None, omega))
        with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "tcnca::conv_stack: position: the position is"):
            jax.block_until_ready(jax.jit(lambda p: stack(self.x, weight, bias, omega, position=p))(-1))
        with self.assertRaisesRegex(ValueError, "tcnca::conv_stack: x has 2 dimensions, expected 3"):
            stack(self.x[0], weight, bias, omega)
        with self.assertRaisesRegex(ValueError, "weight is of type float16, expected float64"):
            stack(self.x, weight.astype(jnp.float16), bias, omega)
        with self.assertRaisesRegex(ValueError, "the type is int32, expected one of float32, "):
            stack(self.x.astype(int).astype("int32"), weight.astype("int32"), bias.astype("int32"),
                  omega.astype("int32"))
        with self.assertRaisesRegex(ValueError, "tcnca::conv_stack: taps must be at least 1"):
            conv_stack(self.x, weight, shape=ConvStackShape(taps=0))
        with self.assertRaisesRegex(TypeError, "can't apply forward-mode autodiff"):
            jax.jvp(lambda x: stack(x, *self.parameters), (self.x,), (self.x,))
        with self.assertRaisesRegex(NotImplementedError, "Differentiation rule for 'tcnca' not implemented"):
            jax.grad(lambda x: conv_stack_step(x, *self.parameters, shape=SHAPE, state=state_of(2),
                                               position=0)[0].sum())(self.x)


if __name__ == "__main__":
    unittest.main()
