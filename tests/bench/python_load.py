#!/usr/bin/python3
"""Clients of the Python package, a process each, that call a RemoteExpert in a loop: one JSON object, as build/bench/load.

    python_load.py --endpoint E --uid UID --rows N [--clients N] [--seconds S] [--warmup S] [--train] [--local]
"""
import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "client", "python"))
import expertd  # noqa: E402
import torch  # noqa: E402


def client(options, begin, results):
    torch.set_num_threads(1)
    expertd.local.use(None if options.local else 0)
    expert = expertd.RemoteExpert(options.uid, options.endpoint)
    x = torch.rand(options.rows, *expert.info.forward_schema[0].row_shape, requires_grad=options.train)

    def call():
        y = expert(x)
        if options.train:
            y.sum().backward()
    call()
    while options.local and not expertd.Client(options.endpoint).local:
        call()
    begin.wait()
    start = time.perf_counter()
    latencies, errors, end = [], 0, start + options.warmup + options.seconds
    while True:
        before = time.perf_counter()
        if before >= end and (latencies or errors):  # one at least, however long it takes, as hivemind_side.py
            break
        try:
            call()
        except expertd.ExpertdError:
            errors += 1
        after = time.perf_counter()
        if before - start >= options.warmup:
            latencies.append(after - before)
    results.put((latencies, errors))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind, default in (("endpoint", str, None), ("uid", str, None), ("rows", int, 1), ("clients", int, 1),
                                ("seconds", float, 2.0), ("warmup", float, 0.5)):
        parser.add_argument("--" + name, type=kind, default=default, required=default is None)
    parser.add_argument("--train", action="store_true", help="a backward behind each forward")
    parser.add_argument("--local", action="store_true", help="through the server's shared memory, not over its endpoint")
    options = parser.parse_args()
    begin, results = multiprocessing.Barrier(options.clients), multiprocessing.Queue()
    processes = [multiprocessing.Process(target=client, args=(options, begin, results)) for _ in range(options.clients)]
    for process in processes:
        process.start()
    got = [results.get() for _ in processes]
    for process in processes:
        process.join()
    latencies = sorted(latency for some, _ in got for latency in some)
    rate = sum(len(some) / max(sum(some), options.seconds) for some, _ in got)
    print(json.dumps({"requests": len(latencies), "errors": sum(errors for _, errors in got),
                      "rate": rate, "rows_per_s": options.rows * rate,
                      "median_us": 1e6 * statistics.median(latencies) if latencies else 0.0}))


if __name__ == "__main__":
    main()
