#!/usr/bin/env python3
"""torch_step.py -- the work of `bench_latency step` and `network` in PyTorch on the CPU (torch_cuda.py: on a GPU): one line of JSON with the times in ms.
  darts, pc-darts  first-order bilevel step: alpha forward and backward, Adam, weight forward and backward, clip, SGD;
                   autograd is asked for the gradients of that half of the step alone
  training         weight forward and backward, clip and SGD of DARTS_V2
  inference        forward pass of DARTS_V2 with running statistics"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F

import model


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work", choices=("darts", "pc-darts", "training", "inference"))
    p.add_argument("--layout", choices=("nchw", "channels_last"), default="nchw")
    p.add_argument("--channels", type=int, default=16)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--image", type=int, default=32)
    p.add_argument("--partial", type=int, default=4)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--graph", choices=("none", "script", "compile"), default="none",
                   help="inference: torch.jit.script-freeze by tracing, or torch.compile")
    return p.parse_args()


def make_step(net, images, labels):
    weights, architecture = net.weights(), net.architecture()
    sgd = torch.optim.SGD(weights, 0.01, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(architecture, 3e-4, (0.5, 0.999), weight_decay=1e-3) if architecture else None

    def half(parameters):
        for p in weights + architecture:  # nothing is kept for gradients that nobody wants
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        loss = F.cross_entropy(net(images), labels)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):
            p.grad = g
        return loss

    def step():
        if adam:
            half(architecture)
            adam.step()
        half(weights)
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        sgd.step()

    return step


def make_inference(args, net, images):
    net.eval()
    if args.graph == "script":
        with torch.no_grad():
            net = torch.jit.optimize_for_inference(torch.jit.trace(net, images))
    elif args.graph == "compile":
        net = torch.compile(net)

    def step():
        with torch.inference_mode():
            net(images)

    return step


def main():
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    partial = {"darts": 1, "pc-darts": args.partial}.get(args.work)
    net = model.Network(args.channels, args.layers, partial, model.DARTS_V2)
    images = torch.randn(args.batch, 3, args.image, args.image)
    labels = torch.arange(args.batch) % 10
    if args.layout == "channels_last":
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = make_inference(args, net, images) if args.work == "inference" else make_step(net, images, labels)
    times = []
    for i in range(args.warmup + args.repeats):
        start = time.perf_counter()
        step()
        if i >= args.warmup:
            times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"peer": "torch " + torch.__version__, **vars(args), "median_ms": statistics.median(times),
                      "min_ms": times[0], "peak_bytes": peak, "parameters": sum(p.numel() for p in net.parameters())}))


if __name__ == "__main__":
    main()
