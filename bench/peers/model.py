"""model.py -- the networks of the search space in PyTorch, written after the papers (DARTS, Liu et al. 2019; PC-DARTS, Xu
et al. 2020): the supernets op by op as they were published, and the network of a genotype. For comparison only."""
import torch
from torch import nn
import torch.nn.functional as F

OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
NODES = 4
DARTS_V2 = {
    False: [("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)],
    True: [("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
           ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)],
}


def conv(cin, cout, kernel, stride=1, dilation=1, groups=1):
    return nn.Conv2d(cin, cout, kernel, stride, dilation * (kernel - 1) // 2, dilation, groups, bias=False)


def bn(c, affine):
    return nn.BatchNorm2d(c, affine=affine)


def relu_conv_bn(cin, cout, affine):
    return nn.Sequential(nn.ReLU(), conv(cin, cout, 1), bn(cout, affine))


class FactorizedReduce(nn.Module):
    def __init__(self, cin, cout, affine):
        super().__init__()
        self.conv1, self.conv2 = conv(cin, cout // 2, 1, 2), conv(cin, cout - cout // 2, 1, 2)
        self.bn = bn(cout, affine)

    def forward(self, x):
        x = F.relu(x)
        return self.bn(torch.cat([self.conv1(x), self.conv2(x[:, :, 1:, 1:])], 1))


def separable(c, kernel, stride, dilation, affine):
    return [nn.ReLU(), conv(c, c, kernel, stride, dilation, c), conv(c, c, 1), bn(c, affine)]


class Zero(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, ::self.stride, ::self.stride].mul(0.0)


def make_op(name, c, stride, affine):
    if name == "none":
        return Zero(stride)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine)
    kernel = 5 if name.endswith("5x5") else 3
    if name.startswith("dil"):
        return nn.Sequential(*separable(c, kernel, stride, 2, affine))
    return nn.Sequential(*separable(c, kernel, stride, 1, affine), *separable(c, kernel, 1, 1, affine))


class MixedOp(nn.Module):
    """All eight ops on the first 1/partial of the channels; the other channels pass by, then channels are shuffled."""

    def __init__(self, c, stride, partial):
        super().__init__()
        self.partial, self.seen, self.stride = partial, c // partial, stride
        self.ops = nn.ModuleList()
        for name in OPS:
            op = make_op(name, self.seen, stride, False)
            self.ops.append(nn.Sequential(op, bn(self.seen, False)) if "pool" in name else op)

    def forward(self, x, weights):
        if self.partial == 1:
            return sum(w * op(x) for w, op in zip(weights, self.ops))
        mixed, rest = x[:, :self.seen], x[:, self.seen:]
        mixed = sum(w * op(mixed) for w, op in zip(weights, self.ops))
        if self.stride == 2:
            rest = F.max_pool2d(rest, 2, 2)
        y = torch.cat([mixed, rest], 1)
        n, c, h, w = y.shape
        return y.view(n, self.partial, c // self.partial, h, w).transpose(1, 2).reshape(n, c, h, w)


class Cell(nn.Module):
    def __init__(self, c_before, c_last, c, reduction, after_reduction, affine):
        super().__init__()
        self.preprocess0 = FactorizedReduce(c_before, c, affine) if after_reduction else relu_conv_bn(c_before, c, affine)
        self.preprocess1 = relu_conv_bn(c_last, c, affine)
        self.reduction = reduction


class SupernetCell(Cell):
    def __init__(self, c_before, c_last, c, reduction, after_reduction, partial):
        super().__init__(c_before, c_last, c, reduction, after_reduction, False)
        self.edges = nn.ModuleList(MixedOp(c, 2 if reduction and j < 2 else 1, partial)
                                   for i in range(NODES) for j in range(2 + i))

    def forward(self, s0, s1, weights, edge_weights):
        states, edge = [self.preprocess0(s0), self.preprocess1(s1)], 0
        for _ in range(NODES):
            terms = []
            for state in states:
                y = self.edges[edge](state, weights[edge])
                terms.append(y if edge_weights is None else edge_weights[edge] * y)
                edge += 1
            states.append(sum(terms))
        return torch.cat(states[-NODES:], 1)


class DerivedCell(Cell):
    def __init__(self, c_before, c_last, c, reduction, after_reduction, genotype):
        super().__init__(c_before, c_last, c, reduction, after_reduction, True)
        self.inputs = [j for _, j in genotype]
        self.ops = nn.ModuleList(make_op(name, c, 2 if reduction and j < 2 else 1, True) for name, j in genotype)

    def forward(self, s0, s1, *_):
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for i in range(NODES):
            states.append(sum(self.ops[k](states[self.inputs[k]]) for k in (2 * i, 2 * i + 1)))
        return torch.cat(states[-NODES:], 1)


class Network(nn.Module):
    """partial: 1 for the supernet of DARTS, 4 for that of PC-DARTS (with edge weights); None: the network of `genotype`."""

    def __init__(self, channels, layers, partial=None, genotype=None, classes=10):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 3 * channels, 3), bn(3 * channels, True))
        self.cells, c, before, last, after_reduction = nn.ModuleList(), channels, 3 * channels, 3 * channels, False
        for i in range(layers):
            reduction = i in (layers // 3, 2 * layers // 3)
            c *= 2 if reduction else 1
            self.cells.append(SupernetCell(before, last, c, reduction, after_reduction, partial) if partial else
                              DerivedCell(before, last, c, reduction, after_reduction, genotype[reduction]))
            before, last, after_reduction = last, NODES * c, reduction
        self.classifier = nn.Linear(last, classes)
        edges = sum(2 + i for i in range(NODES))
        make = lambda *shape: nn.Parameter(1e-3 * torch.randn(*shape))
        self.alpha = nn.ParameterList([make(edges, len(OPS)) for _ in range(2 if partial else 0)])
        self.beta = nn.ParameterList([make(edges) for _ in range(2 if partial and partial > 1 else 0)])

    def weights(self):
        return [p for name, p in self.named_parameters() if not name.startswith(("alpha", "beta"))]

    def architecture(self):
        return [*self.alpha, *self.beta]

    def mixing(self):
        ops = [F.softmax(a, -1) for a in self.alpha]
        edges = [torch.cat([F.softmax(part, -1) for part in b.split([2, 3, 4, 5])]) for b in self.beta]
        return list(zip(ops, edges or [None] * len(ops)))

    def forward(self, x):
        mixing = self.mixing()
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, *(mixing[cell.reduction] if mixing else ()))
        return self.classifier(s1.mean((2, 3)))
