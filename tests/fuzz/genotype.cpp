// genotype.cpp -- fuzzing the reader of genotypes (nas/genotype.h): what it takes is valid, and survives
// being written and read again.
#include "nas/genotype.h"

#include "tests/fuzz/fuzz.h"

using namespace lanas;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  fuzz::refuses_or_reads([&] {
    const Genotype genotype = read_genotype(text, "genotype.txt");
    check_genotype(genotype);
    if (read_genotype(write_genotype(genotype)) != genotype)
      fuzz::found("another genotype after writing", text);
    if (genotype_from_key(genotype_key(genotype)) != canonical(genotype)) fuzz::found("another key", text);
  });
  return 0;
}
