#!/usr/bin/python3
"""A training step of the language model that bench_tensor takes its sizes from, in PyTorch on made-up tokens: 6 blocks
of width 512 with RMS norms before attention (8 heads, fused) and a GELU layer of 2,048, tied read-out of 33,278 classes,
dropout 0.2, AdamW with the gradient's norm clipped at 1; products in TF32, the read-out in bfloat16. Prints the median
step and seconds an epoch of 254 steps, as PyTorch runs it and compiled.

usage: torch_lm.py [--no-compile] [--steps N]"""
import argparse
import statistics
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    print("torch_lm: wanted PyTorch, found none")
    sys.exit(77)

LAYERS, WIDTH, HEADS, HIDDEN, CLASSES, SEQUENCES, CONTEXT, DROPOUT, EPOCH = 6, 512, 8, 2048, 33278, 64, 128, 0.2, 254

parser = argparse.ArgumentParser()
parser.add_argument("--no-compile", action="store_true")
parser.add_argument("--steps", type=int, default=60)
args = parser.parse_args()
if not torch.cuda.is_available():
    print("torch_lm: wanted a GPU, found none")
    sys.exit(77)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.manual_seed(1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH, eps=1e-6), nn.RMSNorm(WIDTH, eps=1e-6)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        n, t, w = x.shape
        q, k, v = (part.view(n, t, HEADS, w // HEADS).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(w, 2))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.dropout(self.out(a.transpose(1, 2).reshape(n, t, w)), DROPOUT, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), DROPOUT, self.training)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(CLASSES, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.RMSNorm(WIDTH, eps=1e-6)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = F.dropout(self.tokens(ids) + self.places.weight, DROPOUT, self.training)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        with torch.autocast("cuda", torch.bfloat16):
            logits = F.linear(x, self.tokens.weight)
        return F.cross_entropy(logits.view(-1, CLASSES).float(), targets.reshape(-1))


def measure(name, compiled):
    model = Model().cuda()
    step_model = torch.compile(model) if compiled else model
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    batches = torch.randint(CLASSES, (8, SEQUENCES, CONTEXT + 1), device="cuda")
    seconds, loss = [], None
    start = time.perf_counter()
    for number in range(10 + args.steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        batch = batches[number % len(batches)]
        loss = step_model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    steps = seconds[10:]
    median = statistics.median(steps)
    print(f"torch_lm {name}: step {1e3 * median:.3f} ms (least {1e3 * min(steps):.3f}, most {1e3 * max(steps):.3f}), "
          f"epoch of {EPOCH} steps {EPOCH * median:.2f} s, loss {loss.item():.3f}, "
          f"all {time.perf_counter() - start:.0f} s", flush=True)


print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
measure("eager", False)
if not args.no_compile:
    try:
        measure("compiled", True)
    except Exception as error:  # no compiler for it on this machine
        print(f"torch_lm compiled: could not: {str(error).splitlines()[0]}")
