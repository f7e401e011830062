// Runs the tests named on the command line, or all of them.
#include "tests.h"

#include <cstdio>
#include <string>

using namespace antiphon::tests;

int main(int count, char** arguments) {
  const struct {
    const char* name;
    void (*run)();
  } tests[] = {{"attention", test_attention}, {"attention_in_segments", test_attention_in_segments},
               {"fuzz", test_fuzz},           {"lm_head", test_lm_head},
               {"memory", test_memory},       {"products", test_products},
               {"program", test_program},     {"quantize", test_quantize},
               {"sampler", test_sampler},     {"threads", test_threads},
               {"tiles", test_tiles}};
  int run = 0;
  for (const auto& test : tests) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted |= std::string(arguments[i]) == test.name;
    if (!wanted) continue;
    test.run();
    std::printf("%s passed\n", test.name);
    ++run;
  }
  return run ? 0 : 2;
}
