#!/usr/bin/env python3
"""torch_regressor.py -- training the latency predictor's mlp (224-128-64-1, Adam, relative loss) in PyTorch on random
one-hot codes: one line of JSON with the seconds of all epochs, timed on a few of them. Peer of the seconds in
`bench_latency fit --json`, which from 20,000 rows on trains two such mlps at once, each on seven eighths of the rows."""
import argparse
import json
import statistics
import time

import torch

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--samples", type=int, default=80000)
p.add_argument("--epochs", type=int, default=100)
p.add_argument("--timed-epochs", type=int, default=3)
p.add_argument("--batch", type=int, default=512)
p.add_argument("--threads", type=int, default=2)
args = p.parse_args()

torch.manual_seed(0)
torch.set_num_threads(args.threads)
x = torch.zeros(args.samples, 28, 8)
x.scatter_(2, torch.randint(8, (args.samples, 28, 1)), 1.0)
x = x.reshape(args.samples, 224)
y = 5 + x @ torch.rand(224, 1)
net = torch.nn.Sequential(torch.nn.Linear(224, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64), torch.nn.ReLU(),
                          torch.nn.Linear(64, 1))
adam = torch.optim.Adam(net.parameters(), lr=3e-3)


def epoch():
    order = torch.randperm(args.samples)
    for rows in order.split(args.batch):
        target = y[rows]
        loss = (torch.sqrt(1 + ((net(x[rows]) - target) / (0.01 * target)) ** 2) - 1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()


epoch()
times = []
for _ in range(args.timed_epochs):
    start = time.perf_counter()
    epoch()
    times.append(time.perf_counter() - start)
each = statistics.median(times)
print(json.dumps({"peer": "torch " + torch.__version__, "samples": args.samples, "epochs": args.epochs,
                  "batch": args.batch, "threads": args.threads, "epoch_seconds": times,
                  "seconds": each * args.epochs}))
