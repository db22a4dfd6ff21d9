#!/usr/bin/env python3
"""hivemind's own servers and clients, for scripts/bench --hivemind: reads lines "UID ROWS CLIENTS SECONDS TRAIN" from stdin and
answers each with a line of JSON, as python_load.py does. Says "ready" first; 77 where hivemind is not installed.

The experts are nop.0 and ffn.0 of --hidden floats, ffn with Adam."""
import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import time

try:
    import torch
    import hivemind
    from hivemind.moe.server import background_server, get_experts
except ImportError as missing:
    print(f"skipped: {missing}", flush=True)
    sys.exit(77)


def client(peers, uid, rows, hidden, seconds, train, begin, results):
    torch.set_num_threads(1)
    dht = hivemind.DHT(initial_peers=peers, start=True, client_mode=True)
    (expert,) = get_experts(dht, [uid])
    x = torch.rand(rows, hidden, requires_grad=train)

    def call():
        y = expert(x)
        if train:
            y.sum().backward()
    call()
    begin.wait()
    start = time.perf_counter()
    latencies, end = [], start + 0.5 + seconds
    while True:
        before = time.perf_counter()
        if before >= end and latencies:  # one at least, however long it takes
            break
        call()
        if before - start >= 0.5:
            latencies.append(time.perf_counter() - before)
    results.put(latencies)
    dht.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        peers = {}
        for block in ("nop", "ffn"):
            info = stack.enter_context(background_server(
                expert_uids=[f"{block}.0"], expert_cls=block, hidden_dim=options.hidden, device="cpu", max_batch_size=4096,
                num_handlers=1, optim_cls=torch.optim.Adam))
            peers[f"{block}.0"] = [str(address) if "/p2p/" in str(address) else f"{address}/p2p/{info.peer_id}" for address in info.addrs]
        print("ready", flush=True)
        for line in sys.stdin:
            uid, rows, clients, seconds, train = line.split()
            begin, results = multiprocessing.Barrier(int(clients)), multiprocessing.Queue()
            processes = [multiprocessing.Process(target=client, args=(peers[uid], uid, int(rows), options.hidden, float(seconds),
                                                                      train == "1", begin, results)) for _ in range(int(clients))]
            for process in processes:
                process.start()
            got = [results.get() for _ in processes]
            latencies = sorted(latency for some in got for latency in some)
            for process in processes:  # which may hang at their end
                process.join(5)
                process.kill()
            print(json.dumps({"requests": len(latencies), "rate": sum(len(some) / max(sum(some), float(seconds)) for some in got),
                              "median_us": 1e6 * statistics.median(latencies)}), flush=True)


if __name__ == "__main__":
    main()
