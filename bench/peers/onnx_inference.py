#!/usr/bin/env python3
"""onnx_inference.py -- a forward pass of DARTS_V2 in ONNX Runtime, exported by PyTorch with batch norms folded by the
runtime's own graph optimiser: one line of JSON with the times in ms. Needs torch, onnx and onnxruntime."""
import argparse
import io
import json
import statistics
import time

import numpy
import onnxruntime
import torch

import model


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name, value in (("channels", 16), ("layers", 8), ("batch", 1), ("image", 32), ("threads", 2), ("repeats", 50),
                        ("warmup", 5)):
        p.add_argument("--" + name, type=int, default=value)
    args = p.parse_args()
    torch.manual_seed(0)
    net = model.Network(args.channels, args.layers, None, model.DARTS_V2).eval()
    images = torch.randn(args.batch, 3, args.image, args.image)
    file = io.BytesIO()
    torch.onnx.export(net, (images,), file, input_names=["images"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"images": images.numpy().astype(numpy.float32)}
    times = []
    for i in range(args.warmup + args.repeats):
        start = time.perf_counter()
        session.run(None, feed)
        if i >= args.warmup:
            times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    print(json.dumps({"peer": "onnxruntime " + onnxruntime.__version__, "work": "inference", **vars(args),
                      "median_ms": statistics.median(times), "min_ms": times[0]}))


if __name__ == "__main__":
    main()
