#!/usr/bin/env python3
"""What sequences split over processes cost: conv_stack and ema on two processes of one thread each, against the same
segment without a neighbour. Prints medians of a forward and a backward pass between two barriers (DISTRIBUTED.md)."""
import argparse
import multiprocessing
import statistics
import tempfile
import time

import torch
import torch.distributed as dist

from tcnca_torch import ConvStackShape, EmaShape, conv_stack, ema, sequence_parallel

STACK, EMA = ConvStackShape(taps=4, depth=6, dilation_base=4, residuals="level", skip=True), EmaShape(states=16)
PROCESSES = 2


def seconds(function, *arguments):
    dist.barrier()
    start = time.perf_counter()
    function(*arguments)
    dist.barrier()
    return time.perf_counter() - start


def exchange(message):
    """A message there and back."""
    for receiver in (1, 0):
        if dist.get_rank() == receiver:
            dist.recv(message, 1 - receiver)
        else:
            dist.send(message, receiver)


def call(function, tensors, gradient, parts):
    if parts == 0:
        y = function(*tensors)
    else:
        with sequence_parallel(gradient.shape[2], parts=parts):
            y = function(*tensors)
    y.backward(gradient)


def measure(rank, folder, arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    length, channels = arguments.length, arguments.channels
    x, gradient, omega = torch.randn(1, channels, length), torch.randn(1, channels, length), torch.randn(channels)
    weight = torch.randn(STACK.layers, STACK.taps, channels) / 2
    tables = [torch.randn(channels, EMA.states) for _ in range(4)]
    cases = {"conv_stack": (lambda x, w, o: conv_stack(x, w, None, o, shape=STACK), (x, weight, omega), (0, 1)),
             "ema": (lambda *t: ema(*t, shape=EMA), (x, *tables, omega), (0, 1, 2, 4))}
    lines = []
    for name, (function, tensors, variants) in cases.items():
        tensors = [t.clone().requires_grad_() for t in tensors]
        times = {parts: [] for parts in variants}
        for repeat in range(arguments.repeats + 1):
            for parts in variants:
                times[parts].append(seconds(call, function, tensors, gradient, parts))
        medians = {parts: 1e3 * statistics.median(t[1:]) for parts, t in times.items()}  # the first one compiles
        lines += [f"{name:10} {f'{parts} parts' if parts else 'alone':8} {m:8.1f} ms  x {m / medians[0]:.2f}"
                  for parts, m in medians.items()]
    for size in (4, 2**20, 2**24):
        message = torch.zeros(size, dtype=torch.uint8)
        one_way = statistics.median(seconds(exchange, message) / 2 for _ in range(9))
        lines.append(f"message of {size} bytes: {1e3 * one_way:.2f} ms, with a part of a barrier")
    if rank == 0:
        print("\n".join(lines))
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=65536, help="of a segment")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=measure, args=(r, folder, arguments)) for r in range(PROCESSES)]
        for p in processes:
            p.start()
        for p in processes:
            p.join()
    if any(p.exitcode != 0 for p in processes):
        raise SystemExit("a process failed")


if __name__ == "__main__":
    main()
