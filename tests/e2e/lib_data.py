#!/usr/bin/python3
"""Tiny IDX data with labels that can be learnt: each class is a bar at its own row, on noise. Options break it.

usage: lib_data.py FOLDER [BREAKAGE]
"""
import gzip
import os
import struct
import sys

import numpy as np

SIDE, TRAIN, TEST, CLASSES = 28, 300, 100, 10
NAMES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "test-images": "t10k-images-idx3-ubyte",
    "test-labels": "t10k-labels-idx1-ubyte",
}


def _images(labels, draw):
    pixels = np.zeros((len(labels), SIDE, SIDE), np.uint8)
    for image, label in zip(pixels, labels):
        row, start = 2 + 2 * int(label), int(draw.integers(2, 8))
        image[row : row + 3, start : start + 16] = draw.integers(128, 256, (3, 16))
        image[draw.integers(0, SIDE, 12), draw.integers(0, SIDE, 12)] = draw.integers(1, 96, 12)
    return pixels


def _split(n, seed):
    draw = np.random.Generator(np.random.PCG64(seed))
    labels = draw.integers(0, CLASSES, n).astype(np.uint8)
    return _images(labels, draw), labels


def _idx(array):
    return struct.pack(">%dI" % (1 + array.ndim), 0x800 + array.ndim, *array.shape) + array.tobytes()


def _change(folder, name, function):
    path = os.path.join(folder, name)
    with open(path, "rb") as file:
        content = function(bytearray(file.read()))
    with open(path, "wb") as file:
        file.write(content)


def _flip(content):
    content[len(content) // 2] ^= 0x55
    return content


def _set(content, at, value):
    content[at] = value
    return content


def make(folder, breakage=None, zipped=True, train=TRAIN, test=TEST):
    """Writes the four files to a new folder; zipped: train images and labels as .gz, the others plain."""
    os.makedirs(folder)
    for split, n, seed in (("train", train, 1), ("test", test, 2)):
        images, labels = _split(n, seed)
        if breakage == "label" and split == "train":
            labels[7] = CLASSES
        if breakage == "count" and split == "train":
            labels = labels[:-1]
        for kind, array in (("images", images), ("labels", labels)):
            name, content = NAMES[split + "-" + kind], _idx(array)
            if zipped and split == "train":
                name, content = name + ".gz", gzip.compress(content, mtime=0)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
    images = NAMES["train-images"] + ".gz"
    if breakage == "truncated":
        _change(folder, images, lambda content: content[: len(content) * 2 // 3])
    elif breakage == "corrupt":
        _change(folder, images, _flip)
    elif breakage == "magic":
        _change(folder, NAMES["test-images"], lambda content: _set(content, 3, 9))
    elif breakage == "missing":
        os.unlink(os.path.join(folder, NAMES["test-labels"]))
    elif breakage not in (None, "label", "count"):
        raise ValueError(breakage)
    return folder


if __name__ == "__main__":
    make(sys.argv[1], *sys.argv[2:3])
