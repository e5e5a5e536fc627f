import sys

import procession
import torch
from torch.utils.data import DataLoader, Dataset


class Squares(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, number):
        return torch.tensor([number * number])


def load(context, **options):
    loader = DataLoader(
        Squares(), batch_size=4, num_workers=2, multiprocessing_context=context, **options
    )
    return [torch.cat(list(loader)).sum().item() for _ in range(2)]


def rank(index, shared):
    shared[index] = index + 1


if __name__ == "__main__":
    if "ours" in sys.argv:
        for method in ("fork", "spawn", "forkserver"):
            print(load(procession.get_context(method), persistent_workers=True))
    else:
        print(load(None))
        for method in ("spawn", "forkserver"):
            print(load(method, persistent_workers=True))
        shared = torch.zeros(2).share_memory_()
        torch.multiprocessing.spawn(rank, (shared,), nprocs=2)
        print(shared.tolist())
