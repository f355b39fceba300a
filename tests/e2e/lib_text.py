"""Tiny text: words that follow each other by a rule, but for one in eight, so that a bigram model halves the unigram's perplexity."""
import os
import random

KINDS = 24


def write(name, lines, seed):
    draw = random.Random(seed)
    with open(name, "w", encoding="ascii") as text:
        word = 0
        for _ in range(lines):
            words = []
            for _ in range(15):
                word = draw.randrange(KINDS) if draw.random() < 0.125 else (5 * word + 3) % KINDS
                words.append("word%d" % word)
            text.write(" ".join(words) + "\n")


def make(folder, lines=400):
    """train.txt, valid.txt and test.txt there; the folder."""
    os.makedirs(folder)
    write(os.path.join(folder, "train.txt"), lines, 1)
    write(os.path.join(folder, "valid.txt"), 40, 2)
    write(os.path.join(folder, "test.txt"), 40, 3)
    return folder
