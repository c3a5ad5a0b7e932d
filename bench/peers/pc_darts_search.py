#!/usr/bin/python3
"""PC-DARTS search in PyTorch, to compare validation curves with `lanas_train search` on the same images.

    pc_darts_search.py --images 10000 --epochs 8 --frozen 2 --channels 8 --layers 5 --seed 0 --out curve.json

Needs PyTorch 1.13 or newer (Debian: python3-torch). It shares no code with the engine: the supernet is model.py's in the
quicker form of joined.py, its starting weights are those of torch's modules, training is torch.optim. Settings are those of the
preset pc-darts (SGD 0.1 -> 0 cosine, momentum 0.9, weight decay 3e-4, clip 5; Adam 6e-4, betas 0.5 0.999, weight decay
1e-3; half of the images for the weights, half for alpha; crop with padding 4, flip), and so are the counts of the accuracy:
after each epoch, all of alpha's half, by running statistics. OUT.state is written after each epoch; --resume goes on from it.
"""
import argparse
import gzip
import json
import math
import os
import time

import numpy
import torch
import torch.nn.functional as F

import joined


def read_idx(folder, name):
    path = os.path.join(folder, name)
    opener = open if os.path.exists(path) else gzip.open
    with opener(path if opener is open else path + ".gz", "rb") as file:
        data = file.read()
    sizes = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def load_images(folder):
    """Fashion-MNIST framed to 32 x 32, grey replicated; normalised by the training images. [n, 32, 32]."""
    images = numpy.pad(read_idx(folder, "train-images-idx3-ubyte"), ((0, 0), (2, 2), (2, 2))) / 255.0
    mean, deviation = images.mean(), images.std()
    labels = torch.from_numpy(read_idx(folder, "train-labels-idx1-ubyte").astype(numpy.int64))
    grey = torch.from_numpy(images.astype(numpy.float32))
    return grey, labels, float(mean), float(deviation)


class Batches:
    """Images [n, 32, 32] by index, normalised, grey as three channels; augment: cropped from a black frame of 4, flipped."""

    def __init__(self, images, labels, mean, deviation, generator):
        self.framed, self.labels, self.mean, self.deviation = F.pad(images, (4, 4, 4, 4)), labels, mean, deviation
        self.generator = generator

    def batch(self, indices, augment):
        rows = cols = torch.arange(4, 36).expand(len(indices), 32)
        if augment:
            offset = torch.randint(-4, 5, (2, len(indices), 1), generator=self.generator)
            flip = torch.rand((len(indices), 1), generator=self.generator) < 0.5
            rows, cols = rows + offset[0], torch.where(flip, cols.flip(1), cols) + offset[1]
        x = self.framed[indices[:, None, None], rows[:, :, None], cols[:, None, :]]
        return ((x - self.mean) / self.deviation).unsqueeze(1).repeat(1, 3, 1, 1), self.labels[indices]


def run(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(args.seed)
    images, labels, mean, deviation = load_images(args.data)
    order = torch.randperm(len(images), generator=generator)[:args.images]
    halves = order[:args.images // 2], order[args.images // 2:]
    batches = Batches(images, labels, mean, deviation, generator)
    net = joined.Network(args.channels, args.layers, args.partial)
    weights, arch = net.weights(), net.architecture()
    sgd = torch.optim.SGD(weights, args.lr, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(arch, args.alpha_lr, betas=(0.5, 0.999), weight_decay=1e-3)
    steps, curve, state = args.images // 2 // args.batch, [], args.out + ".state"
    if args.resume and os.path.exists(state):
        saved = torch.load(state)
        for owner, key in ((net, "net"), (sgd, "sgd"), (adam, "adam")):
            owner.load_state_dict(saved[key])
        generator.set_state(saved["generator"])
        curve = saved["curve"]
    for epoch in range(len(curve), args.epochs):
        start = time.time()
        sgd.param_groups[0]["lr"] = args.lr * (1 + math.cos(math.pi * epoch / args.epochs)) / 2
        shuffled = halves[0][torch.randperm(len(halves[0]), generator=generator)]
        right = total = 0.0
        net.train()
        for step in range(steps):
            if epoch >= args.frozen:
                pick = halves[1][torch.randperm(len(halves[1]), generator=generator)[:args.batch]]
                x, y = batches.batch(pick, True)
                for a, g in zip(arch, torch.autograd.grad(F.cross_entropy(net(x), y), arch)):
                    a.grad = g
                adam.step()
            x, y = batches.batch(shuffled[step * args.batch:(step + 1) * args.batch], True)
            logits = net(x)
            for w, g in zip(weights, torch.autograd.grad(F.cross_entropy(logits, y), weights)):
                w.grad = g
            torch.nn.utils.clip_grad_norm_(weights, 5)
            sgd.step()
            right += (logits.argmax(1) == y).sum().item()
            total += len(y)
        net.eval()
        valid = 0
        with torch.no_grad():
            for at in range(0, len(halves[1]), args.batch):
                x, y = batches.batch(halves[1][at:at + args.batch], False)
                valid += (net(x).argmax(1) == y).sum().item()
        curve.append({"epoch": epoch, "train_accuracy": right / total, "valid_accuracy": valid / len(halves[1]),
                      "seconds": time.time() - start})
        print(f"seed {args.seed} epoch {epoch + 1}: train {right / total:.4f}, "
              f"validation {valid / len(halves[1]):.4f}, {curve[-1]['seconds']:.0f} s", flush=True)
        torch.save({"net": net.state_dict(), "sgd": sgd.state_dict(), "adam": adam.state_dict(),
                    "generator": generator.get_state(), "curve": curve}, state + ".new")
        os.replace(state + ".new", state)  # a kill leaves the old state or the new one
    with open(args.out, "w") as out:
        json.dump({"program": "pytorch " + torch.__version__, "settings": vars(args), "history": curve}, out, indent=1)
        out.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--frozen", type=int, default=2)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--partial", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--alpha-lr", type=float, default=6e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", required=True)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
