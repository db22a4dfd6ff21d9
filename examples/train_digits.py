#!/usr/bin/env python3
"""The handwritten digits (examples/data/digits.csv) by a model whose middle is remote: a linear layer here, experts one after the
other, a linear layer here. What train_digits.c does, in PyTorch, and with experts of a class of one's own beside the server's.

    python3 examples/train_digits.py [--epochs N]                             starts a server, and ends it
    python3 examples/train_digits.py --endpoint tcp://HOST:PORT UID [UID ...]  uses experts of a running one (hidden_dim 64)
"""
import argparse
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
try:
    import expertd
except ImportError:  # not installed: from the source tree
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), "client", "python"))
    import expertd
from digits.dataset import digits  # noqa: E402

HIDDEN, ROWS = 64, 128


@expertd.register_expert_class("gated", lambda rows, hidden_dim: torch.empty(rows, hidden_dim))
class Gated(torch.nn.Module):
    """An expert that the server has no name for, of layers that it has."""

    def __init__(self, hidden_dim):
        super().__init__()
        self.gate, self.up = (torch.nn.Linear(hidden_dim, 2 * hidden_dim) for _ in range(2))
        self.down, self.norm = torch.nn.Linear(2 * hidden_dim, hidden_dim), torch.nn.LayerNorm(hidden_dim)

    def forward(self, x):
        return self.norm(x + self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x)))


def train(experts, epochs):
    """Prints each tenth epoch's loss and accuracy; the last accuracy, of images that were not trained on."""
    pixels, labels = digits()
    training = slice(0, 1400)
    model = torch.nn.Sequential(torch.nn.Linear(64, HIDDEN), *experts, torch.nn.Linear(HIDDEN, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)  # of the two layers here: experts learn by themselves
    right = 0.0
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(1400).split(ROWS):
            loss = torch.nn.functional.cross_entropy(model(pixels[training][batch]), labels[training][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch % 10 == 0 or epoch == epochs:
            with torch.no_grad():
                right = (model(pixels[1400:]).argmax(1) == labels[1400:]).float().mean().item()
            print(f"epoch {epoch}: loss {loss.item():.3f}, {100 * right:.1f} % of the test digits", flush=True)
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uids", nargs="*", metavar="UID")
    parser.add_argument("--endpoint", help="of a running server")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.endpoint:
        train([expertd.RemoteExpert(uid, options.endpoint) for uid in options.uids], options.epochs)
        return
    common = {"hidden_dim": HIDDEN, "max_batch_size": 512, "optim_cls": "adam", "with_dht": False, "start": True}
    for block in ("ffn", "gated"):
        with expertd.Server.create(expert_uids=[f"{block}.0", f"{block}.1"], expert_cls=block, **common) as server:
            experts = [expertd.RemoteExpert(uid, server.endpoint) for uid in server.uids]
            print(torch.nn.ModuleList(experts))
            train(experts, options.epochs)
            print(expertd.top(server.endpoint))


if __name__ == "__main__":
    main()
