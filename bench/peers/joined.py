#!/usr/bin/python3
"""joined.py -- the supernet of PC-DARTS in PyTorch with few ops: the same function of the same weights as model.py's, but all
edges of a cell that read one state are one op over edges x channels, and what depends on a state alone (its ReLU, its
two pools, the channels that pass by) is computed once. `joined.py` alone checks that the two agree.
"""
import functools
import sys

import torch
from torch import nn
import torch.nn.functional as F

import model

MAX, AVG, SKIP = (model.OPS.index(name) for name in ("max_pool_3x3", "avg_pool_3x3", "skip_connect"))
# Where a weighted op's convolutions stand in model.py's Sequential: pairs (depthwise, pointwise).
CONVOLUTIONS = {"sep_conv_3x3": ((1, 2), (5, 6)), "sep_conv_5x5": ((1, 2), (5, 6)),
                "dil_conv_3x3": ((1, 2),), "dil_conv_5x5": ((1, 2),)}


def stacked(edges, pick):
    """pick of the weights of each convolution, over the edges: [edges, out, in per group, k, k] by op and place."""
    result = {f"{op}_{at}": torch.stack([pick(edge.ops[model.OPS.index(op)][at].weight) for edge in edges])
              for op, pairs in CONVOLUTIONS.items() for pair in pairs for at in pair}
    if edges[0].stride == 2:
        for half in ("conv1", "conv2"):
            result["skip_" + half] = torch.stack([pick(getattr(edge.ops[SKIP], half).weight) for edge in edges])
    return result


class Reader(nn.Module):
    """The mixed ops of all edges that read one state. E edges, the first C channels of the state seen by the ops."""

    def __init__(self, edges):
        super().__init__()
        self.count, self.seen, self.stride = len(edges), edges[0].seen, edges[0].stride
        self.weights = nn.ParameterDict({k: nn.Parameter(w) for k, w in stacked(edges, torch.Tensor.detach).items()})
        names = [f"{op}_{pair[1]}" for op, pairs in CONVOLUTIONS.items() for pair in pairs] + ["skip"] * (self.stride == 2)
        self.norms = nn.ModuleDict({name: model.bn(self.count * self.seen, False) for name in names})
        self.pool_norms = nn.ModuleList(model.bn(self.seen, False) for _ in range(2))

    def norm(self, name, y, scale=None):
        """Batch norm of [n, E*C, h, w]; then, if given, each edge times its weight."""
        bn = self.norms[name]
        scale = None if scale is None else scale.repeat_interleave(self.seen)
        return F.batch_norm(y, bn.running_mean, bn.running_var, scale, None, self.training, bn.momentum, bn.eps)

    def separable(self, op, pair, x, groups, stride, scale=None):
        """Depthwise and pointwise convolution of every edge as one convolution, whose kernels are the products of theirs;
        then the batch norm. With groups 1 all edges read x [n, C, h, w], with groups E each its own C channels."""
        depthwise, pointwise = (self.weights[f"{op}_{at}"] for at in pair)  # [E, C, 1, k, k], [E, C, C, 1, 1]
        kernel = (pointwise * depthwise.transpose(1, 2)).flatten(0, 1)
        dilation = 2 if op.startswith("dil") else 1
        y = F.conv2d(x, kernel, None, stride, dilation * (kernel.shape[-1] // 2), dilation, groups)
        return self.norm(f"{op}_{pair[1]}", y, scale)

    def reduce(self, x, scale):
        """FactorizedReduce of every edge: its two 1x1 convolutions are two corners of one 2x2 convolution."""
        kernel = torch.cat([F.pad(self.weights["skip_conv1"], (0, 1, 0, 1)),
                            F.pad(self.weights["skip_conv2"], (1, 0, 1, 0))], 1).flatten(0, 1)
        return self.norm("skip", F.conv2d(x, kernel, None, 2), scale)

    def forward(self, state, weights):
        """state [n, 4C, h, w], weights [E, 8] -> the E weighted sums over ops, [n, C, h', w'] each, and the channels that
        pass by, [n, 3C, h', w']."""
        x, rest, stride = state[:, :self.seen].contiguous(memory_format=torch.channels_last), state[:, self.seen:], self.stride
        pools = (F.max_pool2d(x, 3, stride, 1), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False))
        shared = [bn(pool) for bn, pool in zip(self.pool_norms, pools)] + ([x] if stride == 1 else [])
        # Their weighted sums, as a 1x1 convolution from (op, channel) to (edge, channel).
        kernel = torch.einsum("eo,cd->ecod", weights[:, MAX:MAX + len(shared)], torch.eye(self.seen).to(x))
        terms = [F.conv2d(torch.cat(shared, 1), kernel.flatten(0, 1).flatten(1)[:, :, None, None])]
        x = F.relu(x)
        if stride == 2:
            terms.append(self.reduce(x, weights[:, SKIP]))
            rest = F.max_pool2d(rest, 2, 2)
        for op, pairs in CONVOLUTIONS.items():
            scale = weights[:, model.OPS.index(op)]
            y = self.separable(op, pairs[0], x, 1, stride, scale if len(pairs) == 1 else None)
            if len(pairs) == 2:
                y = self.separable(op, pairs[1], F.relu(y), self.count, 1, scale)
            terms.append(y)
        return functools.reduce(torch.add, terms).split(self.seen, 1), rest


class Cell(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.preprocess0, self.preprocess1, self.reduction = cell.preprocess0, cell.preprocess1, cell.reduction
        first = [sum(2 + i for i in range(node)) for node in range(model.NODES)]
        self.edges = [[first[node] + j for node in range(max(0, j - 1), model.NODES)] for j in range(model.NODES + 1)]
        self.readers = nn.ModuleList(Reader([cell.edges[e] for e in edges]) for edges in self.edges)

    def forward(self, s0, s1, weights, edge_weights):
        weights = weights * edge_weights[:, None]
        states, mixed, rest = [self.preprocess0(s0), self.preprocess1(s1)], [[], [], [], []], [[], [], [], []]
        for node in range(model.NODES):
            for j in range(0 if node == 0 else len(states) - 1, len(states)):  # the states that are new
                terms, passing = self.readers[j](states[j], weights[self.edges[j]])
                for i, (edge, term) in enumerate(zip(self.edges[j], terms), model.NODES - len(terms)):
                    mixed[i].append(term)
                    rest[i].append(edge_weights[edge] * passing)
            y = torch.cat([functools.reduce(torch.add, mixed[node]), functools.reduce(torch.add, rest[node])], 1)
            parts = y.unflatten(1, (-1, mixed[node][0].shape[1]))  # [n, 4, C, h, w]; shuffled: channel outside, part inside
            states.append(parts.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last))
        return torch.cat(states[-model.NODES:], 1)


class Network(model.Network):
    """model.Network for PC-DARTS, its starting weights included, with joined cells."""

    def __init__(self, channels, layers, partial):
        super().__init__(channels, layers, partial)
        self.cells = nn.ModuleList(Cell(cell) for cell in self.cells)

    def forward(self, x):
        return super().forward(x.contiguous(memory_format=torch.channels_last))


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def check():
    """||a-b||/||b|| of everything that the two networks compute from the same weights, in double precision."""
    torch.manual_seed(1)
    plain = model.Network(8, 5, 4)
    for p in plain.architecture():
        p.data.normal_()
    torch.manual_seed(1)
    joined = Network(8, 5, 4)
    joined.load_state_dict({k: v for k, v in plain.state_dict().items() if k in joined.state_dict()}, strict=False)
    plain.double(), joined.double()
    x, y, worst = torch.randn(4, 3, 32, 32, dtype=torch.double), torch.randint(10, (4,)), {}
    for training in (True, False):  # the second reads the running statistics that the first has made
        logits = []
        for net in (plain, joined):
            net.train(training).zero_grad()
            logits.append(net(x))
            F.cross_entropy(logits[-1], y).backward()
        pairs = {"logits": [logits[::-1]],
                 "architecture": [(b.grad, a.grad) for a, b in zip(plain.architecture(), joined.architecture())]}
        ours, outside = dict(joined.named_parameters()), dict(plain.named_parameters())
        pairs["shared weights"] = [(p.grad, outside[k].grad) for k, p in ours.items() if ".readers." not in k]
        pairs["weights of edges"] = [(reader.weights[k].grad, g) for a, b in zip(plain.cells, joined.cells)
                                     for edges, reader in zip(b.edges, b.readers)
                                     for k, g in stacked([a.edges[e] for e in edges], lambda p: p.grad).items()]
        for name, both in pairs.items():
            worst[f"{'training' if training else 'evaluation'}, {name}"] = max(relative(a, b) for a, b in both)
    for name, value in worst.items():
        print(f"{name}: {value:.1e}")
    return max(worst.values()) < 1e-9


if __name__ == "__main__":
    sys.exit(0 if check() else 1)
