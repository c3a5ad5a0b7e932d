#!/usr/bin/env python3
"""torch_cuda.py -- the bilevel step of `bench_latency step` on a GPU, in our own PyTorch program (networks of model.py):
alpha forward and backward, Adam, weight forward and backward, clip, SGD; first order, TF32 on for all. Each variant
in turn, one line of JSON each and a table at the end:
  eager, graph (the whole step captured in a CUDA graph), compile (torch.compile), compile-graph (that step captured),
  each in nchw and channels_last
torch.compile is given the mixed ops one by one, as PyTorch's documentation advises where a block repeats: equal shapes
share one compilation. Of the whole network at once, half a step took 7.5 minutes on a CPU before any code was made.
A variant that fails is a line with its error, and exit status 1."""
import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

import model


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--supernet", choices=("darts", "pc-darts"), default="pc-darts")
    p.add_argument("--variants", default="eager,graph,compile,compile-graph")
    p.add_argument("--layouts", default="nchw,channels_last")
    p.add_argument("--device", default="cuda")
    p.add_argument("--channels", type=int, default=16)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--image", type=int, default=32)
    p.add_argument("--partial", type=int, default=4)
    p.add_argument("--repeats", type=int, default=20)
    p.add_argument("--warmup", type=int, default=5)
    p.add_argument("--json", help="also write all results to this file")
    return p.parse_args()


class Step:
    """One bilevel step on fixed inputs. The gradients of each half are asked for that half's parameters alone."""

    def __init__(self, args, variant, layout):
        torch.manual_seed(0)
        partial = args.partial if args.supernet == "pc-darts" else 1
        self.net = model.Network(args.channels, args.layers, partial, model.DARTS_V2).to(args.device)
        images = torch.randn(args.batch, 3, args.image, args.image, device=args.device)
        if layout == "channels_last":
            self.net, images = self.net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
        self.images, self.labels = images, torch.arange(args.batch, device=args.device) % 10
        self.weights, self.architecture = self.net.weights(), self.net.architecture()
        cuda = args.device == "cuda"
        self.sgd = torch.optim.SGD(self.weights, 0.01, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(self.architecture, 3e-4, (0.5, 0.999), weight_decay=1e-3, capturable=cuda)
        if variant.startswith("compile"):
            torch._dynamo.config.recompile_limit = 64  # shapes, strides, and which parameters want a gradient
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            for cell in self.net.cells:
                for edge in cell.edges:
                    edge.compile(dynamic=False)  # or every second size is compiled for any
        self.run = self.eager
        if variant.endswith("graph"):
            self.capture()

    def half(self, parameters):
        for p in self.weights + self.architecture:
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        loss = F.cross_entropy(self.net(self.images), self.labels)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):
            p.grad = g
        return loss.detach()

    def eager(self):
        self.half(self.architecture)
        self.adam.step()
        self.loss = self.half(self.weights)
        torch.nn.utils.clip_grad_norm_(self.weights, 5.0)
        self.sgd.step()

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.eager()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.eager()
        self.run = graph.replay


def measure(args, variant, layout):
    begin = time.perf_counter()
    step = Step(args, variant, layout)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    for _ in range(args.warmup):
        step.run()
    wait()
    setup = time.perf_counter() - begin
    times = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        step.run()
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    loss = float(step.loss)
    if loss != loss:
        raise RuntimeError("the loss is not a number")
    times.sort()
    return {"median_ms": statistics.median(times), "p10_ms": times[len(times) // 10], "p90_ms": times[-1 - len(times) // 10],
            "setup_s": setup, "loss": loss,
            "peak_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else None}


def main():
    args = parse()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_cuda: this PyTorch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    what = {"peer": "torch " + torch.__version__, "tf32": True, "supernet": args.supernet, "channels": args.channels,
            "layers": args.layers, "batch": args.batch, "image": args.image,
            "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None}
    results, failed = [], False
    for layout in args.layouts.split(","):
        for variant in args.variants.split(","):
            row = {"variant": variant, "layout": layout}
            try:
                if args.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                row.update(measure(args, variant, layout))
            except Exception as error:  # one variant's failure must not hide the others'
                row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
                failed = True
            results.append(row)
            print(json.dumps({**what, **row}), flush=True)
            torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w") as out:
            json.dump({**what, "results": results}, out, indent=2)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
