// genotype_text.cpp -- reading, writing and naming genotypes: a recursive-descent reader of
//   [NAME =] Genotype(FIELD=VALUE, ...), FIELD = normal | normal_concat | reduce | reduce_concat,
// whose every error says where it stands and what was expected there. Published genotypes: DARTS (Liu et al.,
// 2019), PC-DARTS (Xu et al., 2020), P-DARTS (Chen et al., 2019).
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "nas/genotype.h"

namespace lanas {
namespace {

constexpr const char* kOpNames[kOps] = {"none",         "max_pool_3x3", "avg_pool_3x3", "skip_connect",
                                        "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"};

std::string op_list(int first) {
  std::string list;
  for (int op = first; op < kOps; ++op) list += (op > first ? ", " : "") + std::string(kOpNames[op]);
  return list;
}

// User text in an error message: printable and short, so that the message stays one line.
std::string shown(std::string_view text) {
  std::string out = "'";
  for (char ch : text.substr(0, 48)) out += std::isprint(static_cast<unsigned char>(ch)) ? ch : '?';
  return out + (text.size() > 48 ? "...'" : "'");
}

class Reader {
 public:
  Reader(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  Genotype read() {
    std::string word = identifier("Genotype(...)");
    if (word != "Genotype" && accept('=')) word = identifier("Genotype(...)");
    if (word != "Genotype") fail(word_start_, join("expected Genotype(...), got ", shown(word)));
    expect('(', "after Genotype");
    while (!accept(')')) {
      field();
      if (accept(')')) break;
      expect(',', "or ) after a field");
    }
    for (int f = 0; f < 4; ++f)
      if (!seen_[f]) fail(at_, join("the field ", kFields[f], " is missing"));
    skip_space();
    if (at_ < text_.size())
      fail(at_, join("expected nothing after the genotype, got ", shown(text_.substr(at_))));
    return genotype_;
  }

 private:
  static constexpr const char* kFields[4] = {"normal", "normal_concat", "reduce", "reduce_concat"};

  [[noreturn]] void fail(size_t where, const std::string& message) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < where && i < text_.size(); ++i) {
      column = text_[i] == '\n' ? 1 : column + 1;
      line += text_[i] == '\n';
    }
    throw Error(join(source_, ": line ", line, ", column ", column, ": ", message));
  }

  void skip_space() {
    while (at_ < text_.size()) {
      if (text_[at_] == '#')
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      else if (std::isspace(static_cast<unsigned char>(text_[at_])))
        ++at_;
      else
        return;
    }
  }

  std::string here() const {
    return at_ < text_.size() ? shown(text_.substr(at_, 1)) : std::string("the end of the text");
  }

  bool accept(char ch) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != ch) return false;
    ++at_;
    return true;
  }

  void expect(char ch, std::string_view context) {
    if (!accept(ch)) fail(at_, join("expected ", ch, " ", context, ", got ", here()));
  }

  std::string identifier(std::string_view expected) {
    skip_space();
    word_start_ = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_'))
      ++at_;
    if (at_ == word_start_) fail(at_, join("expected ", expected, ", got ", here()));
    return std::string(text_.substr(word_start_, at_ - word_start_));
  }

  int number(std::string_view expected) {
    skip_space();
    const size_t start = at_;
    int value = 0;
    for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) && at_ - start < 9;
         ++at_)
      value = value * 10 + (text_[at_] - '0');
    if (at_ == start) fail(at_, join("expected ", expected, ", got ", here()));
    return value;
  }

  void field() {
    const std::string name = identifier("a field (normal, normal_concat, reduce, reduce_concat)");
    int f = 0;
    while (f < 4 && name != kFields[f]) ++f;
    if (f == 4)
      fail(word_start_,
           join("unknown field ", shown(name), ", expected normal, normal_concat, reduce or reduce_concat"));
    if (seen_[f]) fail(word_start_, join("the field ", name, " is given twice"));
    seen_[f] = true;
    expect('=', "after " + name);
    if (f == 0) genotype_.normal = cell(name);
    if (f == 2) genotype_.reduce = cell(name);
    if (f % 2 == 1) concat(name);
  }

  OpKind op() {
    skip_space();
    const size_t start = at_;
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') fail(start, "expected an op name in quotes, got " + here());
    const size_t end = text_.find(quote, start + 1);
    if (end == std::string_view::npos) fail(start, "this quote is never closed");
    const std::string_view name = text_.substr(start + 1, end - start - 1);
    at_ = end + 1;
    for (int k = 1; k < kOps; ++k)
      if (name == kOpNames[k]) return OpKind(k);
    fail(start, join(name == "none" ? "a genotype cannot use the op " : "unknown op ", shown(name),
                     ", expected one of ", op_list(1)));
  }

  CellGenotype cell(const std::string& name) {
    skip_space();
    const size_t start = at_;
    expect('[', "before the pairs of " + name);
    CellGenotype edges{};
    int pairs = 0;
    while (!accept(']')) {
      expect('(', join("before pair ", pairs, " of ", name));
      CellEdge edge;
      edge.op = op();
      expect(',', "between op and input");
      skip_space();
      const size_t where = at_;
      edge.input = number("an input number");
      expect(')', join("after pair ", pairs, " of ", name));
      if (pairs < kPairs) {
        check_input(name, edges, pairs, edge, where);
        edges[pairs] = edge;
      }
      ++pairs;
      if (accept(']')) break;
      expect(',', join("or ] after pair ", pairs - 1, " of ", name));
    }
    if (pairs != kPairs) fail(start, join(name, " has ", pairs, " pairs, expected ", kPairs));
    return edges;
  }

  void check_input(const std::string& name, const CellGenotype& edges, int pair, const CellEdge& edge,
                   size_t where) const {
    const int node = pair / 2;
    if (edge.input >= inputs_of(node))
      fail(where, join("input ", edge.input, " of pair ", pair, " of ", name, " is out of range, node ", node,
                       " takes inputs 0 to ", node + 1));
    if (pair % 2 == 1 && edges[pair - 1].input == edge.input)
      fail(where, join("node ", node, " of ", name, " reads input ", edge.input,
                       " twice, expected two different inputs"));
  }

  // range(2, 6) or [2, 3, 4, 5]
  void concat(const std::string& name) {
    skip_space();
    const size_t start = at_;
    const std::string expected = join("range(2, 6) or [2, 3, 4, 5] for ", name);
    bool right = true;
    if (accept('[')) {
      int count = 0;
      while (!accept(']')) {
        right &= number(expected) == 2 + count++;
        if (accept(']')) break;
        expect(',', "or ] in " + name);
      }
      right &= count == kNodes;
    } else {
      if (identifier(expected) != "range") fail(start, "expected " + expected);
      expect('(', "after range");
      right &= number(expected) == 2;
      expect(',', "in range(2, 6)");
      right &= number(expected) == 2 + kNodes;
      expect(')', "after range(2, 6");
    }
    if (!right) fail(start, join("expected ", expected, ": the output concatenates all four nodes"));
  }

  std::string_view text_, source_;
  size_t at_ = 0, word_start_ = 0;
  bool seen_[4] = {};
  Genotype genotype_;
};

std::string squeezed(std::string_view name) {
  std::string out;
  for (char ch : name)
    if (ch != '-' && ch != '_') out += char(std::tolower(static_cast<unsigned char>(ch)));
  return out;
}

std::vector<PublishedGenotype> make_published() {
  constexpr auto mp = OpKind::max_pool_3x3, ap = OpKind::avg_pool_3x3, sk = OpKind::skip_connect;
  constexpr auto s3 = OpKind::sep_conv_3x3, s5 = OpKind::sep_conv_5x5;
  constexpr auto d3 = OpKind::dil_conv_3x3, d5 = OpKind::dil_conv_5x5;
  using Cell = CellGenotype;
  return {
      {"DARTS_V1",
       {Cell{{{s3, 1}, {s3, 0}, {sk, 0}, {s3, 1}, {sk, 0}, {s3, 1}, {s3, 0}, {sk, 2}}},
        Cell{{{mp, 0}, {mp, 1}, {sk, 2}, {mp, 0}, {mp, 0}, {sk, 2}, {sk, 2}, {ap, 0}}}}},
      {"DARTS_V2",
       {Cell{{{s3, 0}, {s3, 1}, {s3, 0}, {s3, 1}, {s3, 1}, {sk, 0}, {sk, 0}, {d3, 2}}},
        Cell{{{mp, 0}, {mp, 1}, {sk, 2}, {mp, 1}, {mp, 0}, {sk, 2}, {sk, 2}, {mp, 1}}}}},
      {"PC_DARTS_cifar",
       {Cell{{{s3, 1}, {sk, 0}, {s3, 0}, {d3, 1}, {s5, 0}, {s3, 1}, {ap, 0}, {d3, 1}}},
        Cell{{{s5, 1}, {mp, 0}, {s5, 1}, {s5, 2}, {s3, 0}, {s3, 3}, {s3, 1}, {s3, 2}}}}},
      {"PC_DARTS_image",
       {Cell{{{sk, 1}, {s3, 0}, {s3, 0}, {sk, 1}, {s3, 1}, {s3, 3}, {s3, 1}, {d5, 4}}},
        Cell{{{s3, 0}, {sk, 1}, {d5, 2}, {mp, 1}, {s3, 2}, {s3, 1}, {s5, 0}, {s3, 3}}}}},
      {"PDARTS",
       {Cell{{{sk, 0}, {d3, 1}, {sk, 0}, {s3, 1}, {s3, 1}, {s3, 3}, {s3, 0}, {d5, 4}}},
        Cell{{{ap, 0}, {s5, 1}, {s3, 0}, {d5, 2}, {mp, 0}, {d3, 1}, {d3, 1}, {d5, 3}}}}},
  };
}

constexpr std::array<std::array<const char*, 2>, 4> kAliases{{{"darts", "DARTS_V2"},
                                                              {"pcdarts", "PC_DARTS_cifar"},
                                                              {"pcdartscifar10", "PC_DARTS_cifar"},
                                                              {"pcdartsimagenet", "PC_DARTS_image"}}};

const Genotype* find_published(std::string_view name) {
  std::string key = squeezed(name);
  for (const auto& alias : kAliases)
    if (key == alias[0]) key = squeezed(alias[1]);
  for (const PublishedGenotype& published : published_genotypes())
    if (key == squeezed(published.name)) return &published.genotype;
  return nullptr;
}

std::string write_cell(const CellGenotype& cell) {
  std::string text = "[";
  for (int i = 0; i < kPairs; ++i)
    text += join(i ? ", " : "", "('", op_name(cell[i].op), "', ", cell[i].input, ")");
  return text + "]";
}

}  // namespace

const char* op_name(OpKind op) {
  CHECK(int(op) >= 0 && int(op) < kOps, "op_name: no op has the index ", int(op), ", expected 0 to ",
        kOps - 1);
  return kOpNames[int(op)];
}

OpKind op_from_name(std::string_view name) {
  for (int op = 0; op < kOps; ++op)
    if (name == kOpNames[op]) return OpKind(op);
  throw Error(join("op_from_name: unknown op ", shown(name), ", expected one of ", op_list(0)));
}

Genotype read_genotype(std::string_view text, std::string_view source) { return Reader(text, source).read(); }

std::string write_genotype(const Genotype& genotype) {
  check_genotype(genotype, "write_genotype");
  return join("Genotype(normal=", write_cell(genotype.normal),
              ", normal_concat=range(2, 6), reduce=", write_cell(genotype.reduce),
              ", reduce_concat=range(2, 6))");
}

const std::vector<PublishedGenotype>& published_genotypes() {
  static const std::vector<PublishedGenotype> all = make_published();
  return all;
}

Genotype resolve_genotype(const std::string& given) {
  if (const Genotype* published = find_published(given)) return *published;
  std::error_code ignored;
  if (std::filesystem::exists(given, ignored)) {
    CHECK(std::filesystem::is_regular_file(given, ignored), given, ": expected a file holding a genotype");
    constexpr uintmax_t kLimit = 1 << 20;
    const uintmax_t bytes = std::filesystem::file_size(given, ignored);
    CHECK(!ignored && bytes <= kLimit, given, ": too large for a genotype, expected at most ", kLimit,
          " bytes");
    std::ifstream file(given, std::ios::binary);
    CHECK(file.good(), given, ": cannot be read, expected a file holding a genotype");
    return read_genotype(std::string(std::istreambuf_iterator<char>(file), {}), given);
  }
  if (given.find('(') != std::string::npos) return read_genotype(given);
  std::string names;
  for (const PublishedGenotype& published : published_genotypes())
    names += (names.empty() ? "" : ", ") + std::string(published.name);
  throw Error(join("genotype ", shown(given), ": not a published name (", names,
                   "), not an existing file, and not of the form Genotype(normal=[...], ...)"));
}

}  // namespace lanas
