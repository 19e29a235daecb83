#!/usr/bin/env python3
"""Trains a small TCNCA model in PyTorch, then runs it token by token. Under a minute on two cores.

The task: name the token of 40 positions ago. Attention sees at most the 31 earlier positions of its chunk; the
convolution stack, whose receptive field is 64, carries the token over the edges of chunks. With --plot FILE the loss is
drawn, if matplotlib is installed.
"""
import argparse
import time

import torch
from torch import nn
import torch.nn.functional as F

import tcnca_torch

TOKENS, CHANNELS, LENGTH, DELAY, CHUNK = 8, 32, 256, 40, 32

# Three levels of four taps, with dilations 1, 4 and 16: an output depends on the last 64 samples. `residuals` adds the
# input of each level to its output; `skip` ends with silu(stack(x) + omega x), as MEGA does after its EMA.
STACK = tcnca_torch.ConvStackShape(taps=4, depth=3, dilation_base=4, residuals="level", skip=True)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, CHANNELS)
        self.layers = nn.ModuleList(
            tcnca_torch.TcncaLayer(CHANNELS, value_dim=64, key_dim=16, chunk=CHUNK, mixer=STACK) for _ in range(2))
        self.head = nn.Linear(CHANNELS, TOKENS)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

    def step(self, tokens, states, position):
        """The same for further tokens of sequences whose past is in `states`."""
        x = self.embedding(tokens)
        for layer, state in zip(self.layers, states):
            x = layer.step(x, state, position)
        return self.head(x)


def batch(sequences=16):
    tokens = torch.randint(TOKENS, (sequences, LENGTH))
    return tokens, tokens[:, :-DELAY]  # the inputs; the targets of positions DELAY and later


def train(model, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    losses = []
    for step in range(steps):
        tokens, targets = batch()
        loss = F.cross_entropy(model(tokens)[:, DELAY:].flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:4}: loss {losses[-1]:.4f}")
    return losses


@torch.no_grad()
def evaluate(model):
    """The part of right answers, and the same logits token by token."""
    tokens, targets = batch()
    logits = model(tokens)
    right = (logits[:, DELAY:].argmax(-1) == targets).float().mean().item()
    states = [layer.initial_state(len(tokens)) for layer in model.layers]
    start = time.perf_counter()
    steps = torch.cat([model.step(tokens[:, t:t + 1], states, t) for t in range(LENGTH)], 1)
    rate = tokens.numel() / (time.perf_counter() - start)
    return right, (steps - logits).abs().max().item(), rate


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

    torch.manual_seed(1)
    model = Model()
    start = time.perf_counter()
    tcnca_torch.precompile(model)  # without this line the first step would do it, one operation after another
    print(f"compiled, or found in the cache: {time.perf_counter() - start:.1f} s")

    start = time.perf_counter()
    losses = train(model, arguments.steps)
    print(f"trained: {time.perf_counter() - start:.1f} s")

    right, difference, rate = evaluate(model)
    print(f"right answers: {100 * right:.1f} %")
    print(f"token by token: {rate:.0f} tokens/s, logits differ by at most {difference:.1g}")
    if arguments.plot:
        plot(losses, arguments.plot)
    if right < 0.9 or difference > 1e-3:
        raise SystemExit("the model did not learn the task")


if __name__ == "__main__":
    main()
