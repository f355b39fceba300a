"""What tests of the observer share: a text that drifts, a small language model of it, and what kwm eval prints as numbers."""
import os
import random

import lib_kwm as t

TYPES, TOPICS = 240, 6
MODEL = [
    *["model.kind=transformer", "learner=adam", "sensitivity=adjoint", "adam.rate=0.01"],
    *["model.width=32", "model.layers=2", "model.heads=2", "model.context=16", "train.batch=16", "train.chunks=1"],
    *["cov.hidden.structure=diag", "cov.output.structure=diag", "layout.stages=1", "train.epochs=2", "train.warmup=20"],
]


def sentences(draw, first, count):
    """Each topic has its own frequent words; a document keeps to one. Which words these are drifts from the first sentence
    of training to the last of the test: about a word in 80 sentences."""
    topic = 0
    for at in range(first, first + count):
        if draw.random() < 0.1:
            topic = draw.randrange(TOPICS)
            if draw.random() < 0.2:
                yield "\n = w%d = \n\n" % (topic * 40)
        drift, line, word = at // 80, [], 0
        for _ in range(draw.randint(5, 15)):
            word = (word + draw.randrange(1, 4)) % 40 if draw.random() < 0.4 else int(draw.expovariate(0.15)) % 40
            line.append("w%d" % ((word + drift + topic * 40) % TYPES))
        yield " " + " ".join(line + [","] if draw.random() < 0.3 else line) + " .\n"


def write_texts():
    draw = random.Random(5)
    folder = t.path("texts")
    os.makedirs(folder)
    first = 0
    for split, count in (("train", 3000), ("valid", 300), ("test", 1200)):
        with open(os.path.join(folder, split + ".txt"), "w", encoding="ascii") as file:
            file.write("<unk> @-@ ( )\n")
            file.writelines(sentences(draw, first, count))
        first += count
    os.environ["KWM_DATA"] = folder


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def table(child):
    pairs = [line.split("\t") for line in child.out.splitlines()]
    return {pair[0]: number(pair[1]) for pair in pairs if len(pair) == 2}


def model():
    """Texts in KWM_DATA and a model trained on them; its folder."""
    write_texts()
    folder = t.path("run")
    done = t.run(1, "train", t.path("empty.yaml"), "--output", folder, *MODEL)
    t.check(done.code == 0, "training: found %s:\n%s" % (done.code, done.err))
    return folder
