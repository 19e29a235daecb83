"""Runs functions in several processes of one group."""
import datetime
import multiprocessing
import os
import pathlib
import sys
import tempfile
import traceback

import torch
import torch.distributed as dist

# A server that has imported PyTorch, and has no threads yet, forks the processes.
CONTEXT = multiprocessing.get_context("forkserver")
# Seconds that a rank waits for another one, which may start late on a busy machine, or compile.
TIMEOUT = 300
CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "tcnca_torch"])


def _main(function, rank, size, folder, timeout, backend, arguments):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    try:
        dist.init_process_group(backend, f"file://{folder}/store", rank=rank, world_size=size,
                                timeout=datetime.timedelta(seconds=timeout))
        torch.manual_seed(1)
        function(*arguments)
    except BaseException:
        with open(f"{folder}/{rank}", "w") as file:
            file.write(traceback.format_exc())
        sys.stdout.flush()
        os._exit(1)  # as an exception ends a program, without waiting for the group
    dist.destroy_process_group()


def run(function, size, *arguments, timeout=TIMEOUT, backend="gloo"):
    """Calls a function on all ranks. Returns the exit codes and what the ranks raised."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [CONTEXT.Process(target=_main, args=(function, rank, size, folder, timeout, backend, arguments))
                     for rank in range(size)]
        for p in processes:
            p.start()
        for p in processes:
            p.join()
        files = [pathlib.Path(folder, str(rank)) for rank in range(size)]
        return [p.exitcode for p in processes], [f.read_text() if f.exists() else "" for f in files]
