"""The UCI digits beside this folder, for the programs in Python."""
import os

import torch


def digits():
    """(pixels [1797, 64] of 0 to 1, labels), shuffled."""
    rows = []
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "digits.csv"), encoding="utf-8") as text:
        for line in text:
            if line[:1].isdigit():
                rows.append([float(value) for value in line.split(",")])
    table = torch.tensor(rows)[torch.randperm(len(rows))]
    return table[:, :64] / 16, table[:, 64].long()
