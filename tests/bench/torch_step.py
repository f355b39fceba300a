#!/usr/bin/python3
"""The dense algebra of a step on sequential MNIST in PyTorch: the products and eigenvectors of bench_device, of the same
names and sizes, timed in the same way: many calls between two waits, median, least and most of several turns.

usage: torch_step.py [--tf32] [--output FILE] [--device cuda|cpu]   (FILE: the table, by tabs)"""
import argparse
import statistics
import sys
import time

try:
    import torch
except ImportError:
    print("torch_step: wanted PyTorch, found none")
    sys.exit(77)

TURNS, SPAN, CALLS = 15, 3e-3, 2000  # as in bench_device.h

parser = argparse.ArgumentParser()
parser.add_argument("--tf32", action="store_true")
parser.add_argument("--output")
parser.add_argument("--device", default="cuda")
args = parser.parse_args()
if args.device == "cuda" and not torch.cuda.is_available():
    print("torch_step: wanted a GPU, found none")
    sys.exit(77)
torch.backends.cuda.matmul.allow_tf32 = args.tf32
torch.manual_seed(1)
rows = []


def random(*shape):
    return torch.rand(*shape, device=args.device) * 2 - 1


def seconds_of(call, calls):
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def wait():
    if args.device == "cuda":
        torch.cuda.synchronize()


def row(name, size, call):
    seconds_of(call, 1)
    calls = max(1, min(CALLS, int(SPAN / seconds_of(call, 1))))
    seconds = [1e6 * seconds_of(call, calls) for _ in range(TURNS)]
    rows.append((name, size, statistics.median(seconds), min(seconds), max(seconds)))
    print(f"{name:18s} {size:24s} {rows[-1][2]:10.2f} {rows[-1][3]:10.2f} {rows[-1][4]:10.2f}", flush=True)


def product(name, how, m, n, k, ld=0):
    """C (m, n) of k products each, N or T for each operand as stored, + where C is added to; ld: from row to row of B."""
    A = random(k, m).T if how[0] == "T" else random(m, k)
    B = random(n, k).T if how[1] == "T" else random(k, ld or n)[:, :n]
    C = random(m, n)
    call = (lambda: torch.addmm(C, A, B, out=C)) if how[2:] else (lambda: torch.mm(A, B, out=C))
    row(name, f"{m} x {n} x {k} {how}", call)


def batch_products(n, m, o, i):
    product("gemm forward", "NT", n, o, i)
    product("gemm pull back", "NN", n * m, i - 1, o, i)
    product("gemm aU", "NN", n, i, i)
    product("gemm gV", "NN", n, o, o)
    product("gemm A", "TN+", i, i, n)
    product("gemm G", "TN+", o, o, n * m)
    product("gemm X", "TN+", o, i, n)


def basis_products(o, i):
    product("gemm G in basis", "NN", o, o, o)
    product("gemm step U", "NT", o, i, i)
    product("gemm V step", "NN+", o, i, o)
    product("gemm overlap U", "TN", i, i, i)


print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name() if args.device == 'cuda' else 'cpu'}, "
      f"matrix products in {'tf32' if args.tf32 else 'float'}")
print(f"{'kernel':18s} {'size':24s} {'median us':>10s} {'least':>10s} {'most':>10s}")
for batch in 100, 1000:
    batch_products(batch, 10, 256, 513)
    batch_products(batch, 10, 10, 257)
basis_products(256, 513)
basis_products(10, 257)
for order in 257, 513, 785:
    matrix = random(order, order)
    row("eigen", f"n {order}", lambda: torch.linalg.eigh((matrix + matrix.T).double())[1].float())
if args.output:
    with open(args.output, "w") as file:
        file.write("kernel\tsize\tmicroseconds\tleast\tmost\n")
        file.writelines("%s\t%s\t%.4f\t%.4f\t%.4f\n" % each for each in rows)
