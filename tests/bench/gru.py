#!/usr/bin/python3
"""The yardstick of sequential MNIST: a gated recurrent network (cuDNN's) over the 784 pixels, one at a time, a read-out
of its last state, Adam and back-propagation through time. What it needs to reach an accuracy on the test set, in
seconds of training; evaluation, reading and a first gradient that is thrown away are not counted.

One line a check, by tabs: seed, batch, rate, passes, steps, seconds, accuracy. Data: the four IDX files, plain or .gz, in
the folder KWM_DATA. Without a GPU: exit status 77.

usage: gru.py [--batch 128] [--rate 1e-3] [--target 0.97] [--passes 20] [--seconds 600] [--check K] ...
       gru.py --grid [64:1e-3 128:3e-3 ...] [--seconds 120] ...: one (batch, rate) after the other; which came first"""
import argparse
import gzip
import os
import struct
import sys
import time

try:
    import torch
except ImportError:
    print("gru: wanted PyTorch, found none")
    sys.exit(77)
from torch import nn

PAIRS = [(32, 1e-3), (64, 1e-3), (64, 2e-3), (128, 1e-3), (128, 2e-3), (128, 4e-3), (256, 2e-3), (256, 4e-3), (512, 4e-3)]
CLASSES = 10
LOOK = 20  # steps between two looks at the clock, for which the GPU is waited for


def pair(text):
    batch, rate = text.split(":")
    return int(batch), float(rate)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=256, help="of the recurrence")
    parser.add_argument("--hidden", type=int, default=0, help="width of a layer of ReLU before the read-out, 0: none")
    parser.add_argument("--gate-bias", type=float, default=0, help="first bias of the gate that keeps the state")
    parser.add_argument("--clip", type=float, default=1, help="largest norm of the gradient")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=float, default=0.97, help="test accuracy at which a run ends")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600, help="of training, of each run")
    parser.add_argument("--check", type=int, default=0, metavar="K", help="evaluate every K steps too")
    parser.add_argument("--tf32", action="store_true", help="matrix products on tensor cores")
    parser.add_argument("--amp", action="store_true", help="half precision where PyTorch thinks it safe")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N samples of each set only")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--grid", nargs="*", type=pair, metavar="BATCH:RATE")
    return parser.parse_args()


def stop(message):
    print(f"gru: {message}")
    sys.exit(3)


def idx(folder, name):
    """The bytes of an IDX file as a tensor of its shape."""
    path = os.path.join(folder, name)
    try:
        with (open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz", "rb")) as file:
            data = file.read()
    except (OSError, EOFError) as error:
        stop(f"wanted {path} or .gz, found: {error}")
    dimensions = data[3] if len(data) > 3 else 0
    head = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", data[4:head]) if len(data) >= head else ()
    values = torch.frombuffer(bytearray(data[head:]) or bytearray(1), dtype=torch.uint8)
    if data[:3] != b"\0\0\x08" or not shape or values.numel() != torch.Size(shape).numel():
        stop(f"wanted an IDX file of bytes in {path}, found {len(data)} bytes of something else")
    return values.reshape(shape)


def read(args, part):
    """Pixels (length, n) of bytes and labels (n), on the device."""
    folder = os.environ.get("KWM_DATA") or stop("wanted the folder of the IDX files in KWM_DATA, found none")
    images, labels = (idx(folder, f"{part}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    n = min(args.limit, len(labels)) if args.limit else len(labels)
    return images[:n].reshape(n, -1).T.contiguous().to(args.device), labels[:n].long().to(args.device)


class Network(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.gru = nn.GRU(1, args.width)
        with torch.no_grad():  # gates lie in the order reset, keep, new
            self.gru.bias_hh_l0[args.width : 2 * args.width] += args.gate_bias
        layers = [nn.Linear(args.width, args.hidden), nn.ReLU()] if args.hidden else []
        self.read_out = nn.Sequential(*layers, nn.Linear(args.hidden or args.width, CLASSES))

    def forward(self, pixels):  # (length, n) of bytes
        return self.read_out(self.gru(pixels.unsqueeze(-1).float() / 255)[1][0])


class Run:
    """One network and its training; seconds: of training so far; checked: the step of the last check."""

    def __init__(self, args, batch, rate, train, test):
        torch.manual_seed(args.seed)
        self.args, self.batch, self.rate, self.train, self.test = args, batch, rate, train, test
        self.network = Network(args).to(args.device)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=rate)
        self.scaler = torch.amp.GradScaler(args.device, enabled=args.amp)
        self.steps = self.seconds = self.accuracy = 0
        self.checked = None
        self.per_pass = -(-len(train[1]) // batch)
        self.gradient(torch.arange(min(batch, len(train[1])), device=args.device))
        self.adam.zero_grad()
        self.start()

    def wait(self):
        if self.args.device == "cuda":
            torch.cuda.synchronize()

    def start(self):
        self.wait()
        self.since = time.perf_counter()

    def look(self):
        """Counts the time since the last look."""
        self.wait()
        self.seconds += time.perf_counter() - self.since
        self.since = time.perf_counter()
        return self.seconds

    def logits(self, pixels):
        with torch.autocast(self.args.device, dtype=torch.float16, enabled=self.args.amp):
            return self.network(pixels).float()

    def gradient(self, index):
        pixels, labels = self.train
        loss = nn.functional.cross_entropy(self.logits(pixels[:, index]), labels[index])
        self.scaler.scale(loss).backward()

    def step(self, index):
        self.adam.zero_grad()
        self.gradient(index)
        self.scaler.unscale_(self.adam)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.args.clip)
        self.scaler.step(self.adam)
        self.scaler.update()
        self.steps += 1

    def check(self):
        """Evaluates, once a step, and prints a line: True if the run is over. Its time is not counted."""
        if self.checked != self.steps:
            self.look()
            self.checked, self.accuracy = self.steps, self.evaluate()
            print(f"{self.args.seed}\t{self.batch}\t{self.rate:g}\t{self.steps / self.per_pass:.3f}\t{self.steps}\t"
                  f"{self.seconds:.2f}\t{self.accuracy:.4f}", flush=True)
            self.start()
        return self.reached() or self.seconds >= self.args.seconds

    def evaluate(self):
        pixels, labels = self.test
        with torch.no_grad():
            right = sum(int((self.logits(pixels[:, k : k + 1000]).argmax(1) == labels[k : k + 1000]).sum())
                        for k in range(0, len(labels), 1000))
        return right / len(labels)

    def reached(self):
        return self.accuracy >= self.args.target

    def run_pass(self):
        """True if the run is over."""
        every = self.args.check
        for index in torch.randperm(len(self.train[1]), device=self.args.device).split(self.batch):
            self.step(index)
            late = self.steps % LOOK == 0 and self.look() >= self.args.seconds
            if (late or every and self.steps % every == 0) and self.check():
                return True
        return self.check()

    def run(self):
        for _ in range(self.args.passes):
            if self.run_pass():
                break
        return self


def main():
    args = arguments()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gru: wanted a GPU, found none")
        sys.exit(77)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    train, test = read(args, "train"), read(args, "t10k")
    name = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    print(f"# GRU of {args.width}, hidden {args.hidden}, clip {args.clip:g}, gate bias {args.gate_bias:g}, "
          f"{'half' if args.amp else 'tf32' if args.tf32 else 'float'}; PyTorch {torch.__version__}, {name}")
    print("seed\tbatch\trate\tpasses\tsteps\tseconds\taccuracy", flush=True)
    if args.grid is None:
        Run(args, args.batch, args.rate, train, test).run()
        return
    runs = [Run(args, batch, rate, train, test).run() for batch, rate in args.grid or PAIRS]
    first = min((run for run in runs if run.reached()), key=lambda run: run.seconds, default=None)
    print(f"# first at {args.target:g}: " +
          (f"batch {first.batch}, rate {first.rate:g}, after {first.seconds:.2f} s" if first else "none"))


main()
