// cell.h -- one cell on a tape, in the two forms of the method. A cell turns two inputs into states (a
// FactorizedReduce or a ReLUConvBN each), adds four nodes, each a sum over edges from earlier states, and
// concatenates them: [n, h, w, 4 c]. The supernet's cell holds every op on every edge (DARTS, Liu et al.
// 2019; PC-DARTS, Xu et al. 2020: the ops see the first C/k channels, the rest bypasses them, and edges have
// weights of their own). The derived network's cell holds two edges per node, one op each, with affine batch
// norms. Parameters are named NAME.preprocess0.conv, NAME.edges.E..., without NAME. where the name is empty.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/module.h"
#include "nas/genotype.h"
#include "nas/layout.h"

namespace lanas {

// What stands before the names of a part's parameters: "NAME.", or nothing without a name.
inline std::string name_prefix(const std::string& name) { return name.empty() ? "" : name + "."; }

// A cell's output, [n, h, w, 4 c], to be written; state0: its first preprocessed input. And a node's part of
// it.
Var cell_output(Tape& tape, const CellPlace& place, Var state0);
Var node_slice(Tape& tape, const CellPlace& place, Var output, int node);

// The frame of cells in training: records the nodes in turn, each through add_node(node, states so far, out),
// where out is where the node goes, and returns the output. `states` starts as the preprocessed inputs.
// packed: nodes are tensors of their own and are copied to the output at the end, else slices of it. Reading
// a slice of a quarter of the channels uses a quarter of the sets of the caches; in training, where many ops
// read a node and its gradient, that costs more than the copies (docs/what_was_tried.md).
Var cell_nodes(Tape& tape, const CellPlace& place, std::vector<Var> states, bool packed,
               const std::function<void(int node, const std::vector<Var>& states, Var out)>& add_node);

// An edge's stride: edges from the inputs of a reduction cell halve the side.
inline int edge_stride(const CellPlace& place, int input) { return place.reduction && input < 2 ? 2 : 1; }

// The mixing weights of one cell kind.
struct Mixing {
  Var ops;    // [1,1,1,112]: softmax of alpha over each edge's ops, times the edge's weight if there is one
  Var edges;  // [1,1,1,14]: softmax of beta over each node's edges; absent without edge weights
};
// alpha [1,1,1,112], beta [1,1,1,14] or absent.
Mixing mixing_weights(Tape& tape, Var alpha, Var beta);

// input0 [n, h, w, c0] (of twice the side after a reduction), input1 [n, h, w, c1]. What depends only on a
// state is computed once per state: the two pools with their batch norms, and the bypass. The channel shuffle
// commutes with the sum over edges: once per node. Throws Error if `partial` does not divide the channels.
Var supernet_cell(Builder& b, const std::string& name, const CellPlace& place, int partial,
                  const Mixing& mixing, Var input0, Var input1);

// Appends to drop_masks an input [n,1,1,1] (0 or 1 / keep) for each path that can be dropped: all but
// identities, in the order of the genotype's edges. Null: no path is ever dropped.
Var derived_cell(Builder& b, const std::string& name, const CellGenotype& genotype, const CellPlace& place,
                 Var input0, Var input1, std::vector<Var>* drop_masks);

}  // namespace lanas
