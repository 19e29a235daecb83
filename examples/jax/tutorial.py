#!/usr/bin/env python3
"""Trains a small TCNCA model in JAX, then runs it token by token. Under a minute on two cores.

The task: name the token of 40 positions ago. Attention sees at most the 31 earlier positions of its chunk; the
convolution stack, whose receptive field is 64, carries the token over the edges of chunks. With --plot FILE the loss is
drawn, if matplotlib is installed.
"""
import argparse
import functools
import time

import jax
import jax.numpy as jnp

import tcnca_jax

TOKENS, CHANNELS, LENGTH, DELAY, CHUNK, SEQUENCES = 8, 32, 256, 40, 32, 16

# Three levels of four taps, with dilations 1, 4 and 16: an output depends on the last 64 samples. `residuals` adds the
# input of each level to its output; `skip` ends with silu(stack(x) + omega x), as MEGA does after its EMA.
STACK = tcnca_jax.ConvStackShape(taps=4, depth=3, dilation_base=4, residuals="level", skip=True)

# A layer is a description without arrays; its parameters are a dict. Two layers of one description are in a list.
LAYER = tcnca_jax.TcncaLayer(CHANNELS, value_dim=64, key_dim=16, chunk=CHUNK, mixer=STACK)


def init(key):
    embedding_key, head_key, *keys = jax.random.split(key, 4)
    return {"embedding": jax.random.normal(embedding_key, (TOKENS, CHANNELS)),
            "layers": [LAYER.init(k) for k in keys],
            "head": jax.random.normal(head_key, (CHANNELS, TOKENS)) / CHANNELS**0.5}


def model(parameters, tokens):
    x = parameters["embedding"][tokens]
    for layer in parameters["layers"]:
        x = LAYER(layer, x)
    return x @ parameters["head"]


@jax.jit
def batch(key):
    tokens = jax.random.randint(key, (SEQUENCES, LENGTH), 0, TOKENS)
    return tokens, tokens[:, :-DELAY]  # the inputs; the targets of positions DELAY and later


def loss_of(parameters, tokens, targets):
    logits = jax.nn.log_softmax(model(parameters, tokens)[:, DELAY:])
    return -jnp.take_along_axis(logits, targets[..., None], -1).mean()


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_step(parameters, moments, step, rate, key):
    """One step of Adam. The memory of parameters and moments is reused."""
    loss, gradients = jax.value_and_grad(loss_of)(parameters, *batch(key))
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, moments[1], gradients)

    def update(p, m, v):
        return p - rate * (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.99**step)) + 1e-8)
    return jax.tree.map(update, parameters, first, second), (first, second), loss


def train(parameters, steps, key):
    moments = tuple(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    losses = []
    for step in range(1, steps + 1):
        rate = 1e-2 * min(1.0, step / (0.3 * steps), (steps + 1 - step) / (0.7 * steps))
        parameters, moments, loss = train_step(parameters, moments, step, rate, jax.random.fold_in(key, step))
        losses.append(float(loss))
        if step % 50 == 1 or step == steps:
            print(f"step {step:4}: loss {losses[-1]:.4f}")
    return parameters, losses


@functools.partial(jax.jit, donate_argnums=1)
def decode(parameters, states, tokens):
    """The logits, one token after another. The scan updates the states in place."""
    def token(carry, now):
        states, position = carry
        x, after = parameters["embedding"][now][:, None], []
        for layer, state in zip(parameters["layers"], states):
            x, state = LAYER.step(layer, x, state, position)
            after.append(state)
        return (after, position + 1), (x @ parameters["head"])[:, 0]
    (states, _), logits = jax.lax.scan(token, (states, 0), tokens.T)
    return states, logits.swapaxes(0, 1)


def evaluate(parameters, key):
    """The part of right answers, and the same logits token by token."""
    tokens, targets = batch(key)
    logits = jax.jit(model)(parameters, tokens)
    right = float((logits[:, DELAY:].argmax(-1) == targets).mean())

    def states():
        return [LAYER.initial_state(SEQUENCES) for _ in parameters["layers"]]
    jax.block_until_ready(decode(parameters, states(), tokens))  # compiles it
    start = time.perf_counter()
    _, steps = jax.block_until_ready(decode(parameters, states(), tokens))
    rate = tokens.size / (time.perf_counter() - start)
    return right, float(jnp.abs(steps - logits).max()), rate


def plot(losses, file):
    try:
        from matplotlib import pyplot
    except ImportError:
        print("matplotlib is not installed: no plot")
        return
    pyplot.semilogy(losses)
    pyplot.xlabel("step")
    pyplot.ylabel("loss")
    pyplot.savefig(file)
    print(f"the loss is drawn in {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--plot", metavar="FILE")
    arguments = parser.parse_args()

    init_key, train_key, test_key = jax.random.split(jax.random.key(1), 3)
    parameters = init(init_key)
    start = time.perf_counter()
    jax.jit(jax.grad(loss_of)).lower(parameters, *batch(test_key))  # without this line the first step would do it
    print(f"compiled, or found in the cache: {time.perf_counter() - start:.1f} s")

    start = time.perf_counter()
    parameters, losses = train(parameters, arguments.steps, train_key)
    print(f"trained: {time.perf_counter() - start:.1f} s")

    right, difference, rate = evaluate(parameters, test_key)
    print(f"right answers: {100 * right:.1f} %")
    print(f"token by token: {rate:.0f} tokens/s, logits differ by at most {difference:.1g}")
    if arguments.plot:
        plot(losses, arguments.plot)
    if right < 0.9 or difference > 1e-3:
        raise SystemExit("the model did not learn the task")


if __name__ == "__main__":
    main()
