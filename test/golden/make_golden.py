#!/usr/bin/env python3
"""Golden vectors from an independent implementation: JAX in fp64 on the CPU.

    python3 -m venv venv && venv/bin/pip install jax && venv/bin/python test/golden/make_golden.py

writes conv_stack.txt and ema.txt beside this script. A convolution is jax.lax.conv_general_dilated with one feature
group per channel. MEGA's EMA is computed from its kernel with an FFT. Gradients are those of JAX.

Format: text, one entry per line, one block per case:
    case <name>
    option <name> <integer> ...                the parameters of the case (below)
    tensor <name> <extent> ... : <value> ...   row-major, values as C hexadecimal floats
    end
Inputs are multiples of 1/64 below 2 in magnitude: fp64, fp32, bf16 and fp16 represent them exactly.

conv_stack.txt: options taps, dilations (one per layer), span (layers per residual), activation (0 none, 1 relu, 2 silu,
    3 gelu_erf, 4 gelu_tanh, 5 tanh), bias, skip, direction (0 causal, 1 symmetric, 2 bidirectional).
    tensors x, y, grad_y, grad_x [batch, channels, length]; weight, grad_weight [directions * layers, taps, channels],
    tap 0 the newest sample (bidirectional: the causal direction first; in the anti-causal one tap k reads the sample k
    dilations ahead); bias, grad_bias [directions * layers, channels]; omega, grad_omega [channels]. Tensors of an
    option that is 0 are absent.

ema.txt: options states, direction (0 causal, 2 bidirectional), skip (1: out = silu(y + omega x)), state (1: a state h0
    before the sequence; causal only).
    tensors delta, alpha, beta, gamma and their gradients [directions * channels, states], the causal direction first;
    omega, grad_omega [channels]; kernel [directions * channels, length]: sum_n gamma s p beta q^l with
    p = sigmoid(delta), q = 1 - p sigmoid(alpha), s = sqrt(1 / states); x, y (the result), grad_y, grad_x
    [batch, channels, length];
    if state is 1, state_in, grad_state_in, state_out, grad_state_out [batch, channels, states]:
    y_t += sum_n gamma s q^(t+1) h0_n;  h_L = q^L h0 + sum_t p beta q^(L-1-t) x_t.
    The loss is <y, grad_y> + <state_out, grad_state_out>; gradients of delta, alpha, beta, gamma go through the kernel.
"""
import os

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
HERE = os.path.dirname(os.path.abspath(__file__))


def numbers(rng, *shape, scale=1.0):
    return np.round(rng.uniform(-scale, scale, shape) * 64) / 64


def write(path, cases):
    with open(path, "w") as out:
        for name, options, tensors in cases:
            out.write(f"case {name}\n")
            for key, value in options.items():
                out.write(f"option {key} " + " ".join(str(int(v)) for v in np.atleast_1d(value)) + "\n")
            for key, value in tensors.items():
                value = np.asarray(value, dtype=np.float64)
                extents, elements = " ".join(map(str, value.shape)), " ".join(float(v).hex() for v in value.ravel())
                out.write(f"tensor {key} {extents} : {elements}\n")
            out.write("end\n")


# --- The convolution stack ---

ACTIVATIONS = [
    lambda v: v,
    lambda v: jnp.where(v > 0, v, 0),
    jax.nn.silu,
    lambda v: jax.nn.gelu(v, approximate=False),
    lambda v: jax.nn.gelu(v, approximate=True),
    jnp.tanh,
]


def convolve(a, weight, dilation, before, after):
    """a [batch, channels, length], weight [taps, channels], tap 0 the newest; `before`, `after`: zeros at the ends."""
    kernel = jnp.transpose(weight[::-1], (1, 0))[:, None, :]  # [channels, 1, taps], oldest first
    return jax.lax.conv_general_dilated(a, kernel, (1,), [(before, after)], rhs_dilation=(dilation,),
                                        feature_group_count=a.shape[1], dimension_numbers=("NCH", "OIH", "NCH"))


def stack(options, x, weight, bias, omega):
    dilations, taps, span = options["dilations"], options["taps"], options["span"]
    layers = len(dilations)

    def run_direction(a, first):
        residual = None
        for l, d in enumerate(dilations):
            if span and l % span == 0:
                residual = a
            padding = (taps - 1) * d
            before = padding // 2 if options["direction"] == 1 else padding
            pre = convolve(a, weight[first + l], d, before, padding - before)
            if options["bias"]:
                pre = pre + bias[first + l][None, :, None]
            a = ACTIVATIONS[options["activation"]](pre)
            if span and l % span == span - 1:
                a = a + residual
        return a

    y = run_direction(x, 0)
    if options["direction"] == 2:
        y = y + run_direction(x[:, :, ::-1], layers)[:, :, ::-1]
    if options["skip"]:
        y = jax.nn.silu(y + omega[None, :, None] * x)
    return y


def conv_stack_case(rng, name, batch, channels, length, taps, dilations, span=0, activation=0, bias=0, skip=0,
                    direction=0):
    options = dict(taps=taps, dilations=dilations, span=span, activation=activation, bias=bias, skip=skip,
                   direction=direction)
    rows = len(dilations) * (2 if direction == 2 else 1)
    inputs = dict(x=numbers(rng, batch, channels, length), weight=numbers(rng, rows, taps, channels),
                  bias=numbers(rng, rows, channels), omega=numbers(rng, channels))
    run = lambda x, weight, bias, omega: stack(options, x, weight, bias, omega)
    y, pull = jax.vjp(run, *[jnp.asarray(v) for v in inputs.values()])
    grad_y = numbers(rng, batch, channels, length)
    gradients = dict(zip(["grad_" + k for k in inputs], pull(jnp.asarray(grad_y))))
    tensors = dict(**inputs, y=y, grad_y=grad_y, **gradients)
    if not bias:
        del tensors["bias"], tensors["grad_bias"]
    if not skip:
        del tensors["omega"], tensors["grad_omega"]
    return name, options, tensors


# --- MEGA's EMA ---

def ema(options, delta, alpha, beta, gamma, omega, x, state_in):
    states, channels, length = options["states"], x.shape[1], x.shape[2]
    s = np.sqrt(1.0 / states)
    p, a = jax.nn.sigmoid(delta), jax.nn.sigmoid(alpha)
    q = 1 - p * a
    powers = q[:, :, None] ** jnp.arange(length)
    kernel = jnp.einsum("cn,cnl->cl", gamma * s * p * beta, powers)
    n = 2 * length
    transform = lambda v: jnp.fft.rfft(v, n)
    y = jnp.fft.irfft(transform(x) * transform(kernel[:channels]), n)[:, :, :length]
    if options["direction"] == 2:
        back = jnp.fft.irfft(transform(x[:, :, ::-1]) * transform(kernel[channels:]), n)[:, :, :length]
        y = y + back[:, :, ::-1]
    state_out = jnp.zeros(0)
    if options["state"]:
        y = y + jnp.einsum("cn,cnl,bcn->bcl", gamma * s, powers * q[:, :, None], state_in)
        state_out = q**length * state_in + jnp.einsum("cn,cnl,bcl->bcn", p * beta, powers[:, :, ::-1], x)
    if options["skip"]:
        y = jax.nn.silu(y + omega[None, :, None] * x)
    return y, state_out, kernel


def ema_case(rng, name, batch, channels, length, states, direction=0, skip=1, state=0):
    options = dict(states=states, direction=direction, skip=skip, state=state)
    rows = channels * (2 if direction == 2 else 1)
    inputs = dict(delta=numbers(rng, rows, states), alpha=numbers(rng, rows, states), beta=numbers(rng, rows, states),
                  gamma=numbers(rng, rows, states), omega=numbers(rng, channels),
                  x=numbers(rng, batch, channels, length),
                  state_in=numbers(rng, batch, channels, states) if state else np.zeros((batch, channels, states)))
    (y, state_out, kernel), pull = jax.vjp(lambda *v: ema(options, *v), *[jnp.asarray(v) for v in inputs.values()])
    grad_y = numbers(rng, *y.shape)
    grad_state_out = numbers(rng, *state_out.shape)
    cotangents = jnp.asarray(grad_y), jnp.asarray(grad_state_out), jnp.zeros_like(kernel)
    gradients = dict(zip(["grad_" + k for k in inputs], pull(cotangents)))
    tensors = dict(**inputs, kernel=kernel, y=y, grad_y=grad_y, state_out=state_out, grad_state_out=grad_state_out,
                   **gradients)
    if not skip:
        del tensors["omega"], tensors["grad_omega"]
    if not state:
        del tensors["state_in"], tensors["grad_state_in"], tensors["state_out"], tensors["grad_state_out"]
    return name, options, tensors


def main():
    rng = np.random.default_rng(20240501)
    write(os.path.join(HERE, "conv_stack.txt"), [
        conv_stack_case(rng, "plain", 1, 2, 90, taps=4, dilations=[1, 4, 16]),
        conv_stack_case(rng, "list_silu_level", 2, 3, 21, taps=3, dilations=[1, 1, 5, 5, 2, 2], span=2, activation=2,
                        bias=1, skip=1),
        conv_stack_case(rng, "blocks_relu_last", 2, 3, 17, taps=2, dilations=[1, 3, 1, 3], span=2, activation=1,
                        bias=1),
        conv_stack_case(rng, "symmetric_gelu", 1, 2, 33, taps=5, dilations=[1, 3], span=1, activation=3, bias=1,
                        direction=1),
        conv_stack_case(rng, "bidirectional_skip", 1, 2, 37, taps=4, dilations=[1, 1, 3, 3], span=2, activation=4,
                        bias=1, skip=1, direction=2),
        conv_stack_case(rng, "bidirectional_last", 2, 3, 19, taps=3, dilations=[1, 3, 1, 3], span=2, activation=5,
                        direction=2),
    ])
    write(os.path.join(HERE, "ema.txt"), [
        ema_case(rng, "causal", 2, 3, 29, states=4),
        ema_case(rng, "causal_state", 2, 3, 20, states=16, state=1),
        ema_case(rng, "bidirectional", 1, 3, 27, states=8, direction=2),
        ema_case(rng, "plain", 1, 2, 40, states=4, skip=0),
    ])


if __name__ == "__main__":
    main()
