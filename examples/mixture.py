#!/usr/bin/env python3
"""A mixture over two servers learns the handwritten digits (examples/data/digits.csv), also when one of the servers is killed in
the middle. Starts everything itself, and ends it.

    python3 examples/mixture.py [--steps N]
"""
import argparse
import contextlib
import os
import signal
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
try:
    import expertd
except ImportError:  # not installed: from the source tree
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), "client", "python"))
    import expertd
from digits.dataset import digits  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="with two servers, and as many with one (150)")
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    x, labels = digits()
    train, test = slice(0, 1400), slice(1400, None)
    common = {"hidden_dim": 64, "max_batch_size": 512, "optim_cls": "adam", "update_period": 1, "expiration": 3, "start": True}
    with expertd.Server.create(expert_uids=[f"ffn.{i}.0" for i in range(2)], **common) as first, \
            expertd.Server.create(expert_uids=[f"ffn.{i}.1" for i in range(2)], initial_peers=first.peer_info.addrs,
                                  **common) as second:
        moe = expertd.RemoteMixtureOfExperts(in_features=64, grid_size=(2, 2), dht=first.dht, uid_prefix="ffn.", k_best=2,
                                             forward_timeout=30, backward_timeout=30, backward_k_min=0)
        head = torch.nn.Linear(64, 10)
        optimizer = torch.optim.Adam([*moe.parameters(), *head.parameters()], lr=0.005)
        while len({f.uid for f in moe.beam_search.search(torch.zeros(1, 4), 4)[0]}) < 4:
            time.sleep(0.1)  # until the second server is found through the first one's expertd-dht

        def learn(name):
            done = 0
            while done < steps:
                batch = torch.randint(0, 1400, (128,))
                try:
                    loss = torch.nn.functional.cross_entropy(head(moe(x[batch])), labels[batch])
                except expertd.Unavailable as why:  # both experts of some rows are gone, which the DHT knows in a moment
                    print(why, flush=True)
                    time.sleep(0.1)
                    continue
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
            with torch.no_grad():
                accuracy = (head(moe(x[test])).argmax(1) == labels[test]).float().mean().item()
            print(f"{name}: loss {loss.item():.3f}, {100 * accuracy:.1f} % of the test digits", flush=True)

        learn("two servers")
        for pid in second.pids.values():
            with contextlib.suppress(ProcessLookupError):  # of one's end its supervisor ends the others
                os.kill(pid, signal.SIGKILL)
        print("kill -9 of the second server", flush=True)
        learn("one server")
        print(expertd.top(first.endpoint))


if __name__ == "__main__":
    main()
