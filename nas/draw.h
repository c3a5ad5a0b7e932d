// draw.h -- pictures of a genotype: graphviz text, an SVG through graphviz's dot, plain text for a terminal.
// Nodes carry the numbers that a genotype's text uses for them as inputs: c_{k-2} (0), c_{k-1} (1), 2 to 5.
#pragma once

#include <string>

#include "nas/genotype.h"

namespace lanas {

// One digraph with both cells, edges labelled with their ops and coloured by kind. title: any text, escaped.
std::string draw_dot(const Genotype& genotype, const std::string& title = "");

// Indented text, one line per edge, for example
//   normal cell (2 skips)
//     node 2
//       c_{k-2} -- sep_conv_3x3
std::string draw_text(const Genotype& genotype);

// Runs graphviz (dot -Tsvg) and writes its picture to path. False if dot is not installed, and then nothing
// is written. Throws Error if dot fails or the file cannot be written.
bool write_svg(const std::string& path, const std::string& dot);

}  // namespace lanas
