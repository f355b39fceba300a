#!/usr/bin/python3
"""Tiny IDX data with labels that can be learnt: each class is a bar at its own row, on noise. Options break it.

usage: lib_data.py FOLDER [BREAKAGE]
"""
import gzip
import os
import struct
import sys

import numpy as np

SIDE, TRAIN, TEST, CLASSES = 14, 300, 100, 10
NAMES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "test-images": "t10k-images-idx3-ubyte",
    "test-labels": "t10k-labels-idx1-ubyte",
}


def _images(labels, draw, columns):
    pixels = np.zeros((len(labels), SIDE, columns), np.uint8)
    for image, label in zip(pixels, labels):
        row, start = 1 + int(label), int(draw.integers(1, 4))
        image[row : row + 2, start : start + 8] = draw.integers(128, 256, (2, 8))
        image[draw.integers(0, SIDE, 4), draw.integers(0, columns, 4)] = draw.integers(1, 96, 4)
    return pixels


def split(name, n, columns=SIDE, seed=0):
    """(images, labels) as make writes them; name: train or test."""
    draw = np.random.Generator(np.random.PCG64((1 if name == "train" else 2) + seed))
    labels = draw.integers(0, CLASSES, n).astype(np.uint8)
    return _images(labels, draw, columns), labels


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


def make(folder, breakage=None, zipped=True, train=TRAIN, test=TEST, columns=SIDE, seed=0):
    """Writes the four files to a new folder; zipped: train images and labels as .gz, the others plain. columns: at least
    12; seed: another one gives other images."""
    os.makedirs(folder)
    for name, n in (("train", train), ("test", test)):
        images, labels = split(name, n, columns, seed)
        if breakage == "label" and name == "train":
            labels[7] = CLASSES
        if breakage == "count" and name == "train":
            labels = labels[:-1]
        for kind, array in (("images", images), ("labels", labels)):
            file_name, content = NAMES[name + "-" + kind], _idx(array)
            if zipped and name == "train":
                file_name, content = file_name + ".gz", gzip.compress(content, mtime=0)
            with open(os.path.join(folder, file_name), "wb") as file:
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
