"""Trains a network for one epoch on tiny images, exports it, and compares ONNX Runtime's logits with `predict`'s.

    onnx_check.py LANAS_TRAIN FOLDER

Registered as a test where Python finds onnxruntime and numpy. Every op of the space stands at both strides.
"""
import gzip
import json
import os
import shutil
import subprocess
import sys

import numpy
import onnxruntime

OPS = ["max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]


def cell(first):
    """Eight pairs in which all seven ops appear, from inputs 0 and 1 (halved in a reduction cell) and from nodes."""
    inputs = [0, 1, 0, 1, 1, 2, 0, 3]
    return [(OPS[(first + i) % len(OPS)], source) for i, source in enumerate(inputs)]


def write_data(folder, generator):
    os.makedirs(folder)
    for prefix, count in (("train", 120), ("t10k", 20)):
        labels = (numpy.arange(count) % 10).astype(numpy.uint8)
        images = (generator.integers(0, 60, (count, 28, 28)) + 15 * labels[:, None, None]).astype(numpy.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            with gzip.open(os.path.join(folder, f"{prefix}-{name}-ubyte.gz"), "wb") as file:
                file.write(head + array.tobytes())


def check(program, folder, first, generator):
    genotype = f"Genotype(normal={cell(first)}, normal_concat=range(2, 6), reduce={cell(first + 3)}, " \
               "reduce_concat=range(2, 6))"
    network, model = os.path.join(folder, f"net{first}"), os.path.join(folder, f"net{first}.onnx")
    subprocess.run([program, "retrain", "--genotype", genotype, "--data", os.path.join(folder, "data"), "--out", network,
                    "--eval-channels", "8", "--eval-layers", "3", "--eval-epochs", "1", "--eval-images", "0",
                    "--eval-batch", "24", "--eval-lr", "0.05", "--quiet", "--json", os.path.join(folder, "retrain.json")],
                   check=True, stdout=subprocess.DEVNULL)
    checkpoint = os.path.join(network, "network.safetensors")
    subprocess.run([program, "export", checkpoint, "--onnx", model], check=True)
    pictures, paths = generator.integers(0, 256, (4, 32, 32, 3)).astype(numpy.uint8), []
    for i, picture in enumerate(pictures):
        paths.append(os.path.join(folder, f"{i}.ppm"))
        with open(paths[-1], "wb") as file:
            file.write(b"P6\n32 32\n255\n" + picture.tobytes())
    told = json.loads(subprocess.run([program, "predict", checkpoint] + paths + ["--json", "-"], check=True,
                                     capture_output=True).stdout)
    ours = numpy.array([t["logits"] for t in told])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = pictures.transpose(0, 3, 1, 2).astype(numpy.float32) / 255
    theirs = session.run(["logits"], {"images": images})[0]
    error = numpy.linalg.norm(ours - theirs) / numpy.linalg.norm(ours)
    print(f"first op {OPS[first]}: logits {ours.shape}, ||a - b|| / ||b|| = {error:.1e}")
    assert theirs.shape == ours.shape == (4, 10) and error < 1e-5 and numpy.linalg.norm(ours) > 0.1
    assert [t["class"] for t in told] == theirs.argmax(1).tolist()


def main():
    program, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    shutil.rmtree(folder, ignore_errors=True)
    generator = numpy.random.default_rng(1)
    write_data(os.path.join(folder, "data"), generator)
    for first in (0, 4):
        check(program, folder, first, generator)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
