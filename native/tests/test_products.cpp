// Norms, packed products and activations on odd shapes: every instruction set gives the scalar one's bits, and reads
// and writes nothing beyond what it was given.
#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "inputs.h"
#include "packed_matrix.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

void check_panels(Random& random, const PackedMatrix& matrix, int64_t capacity) {
  const PackedView view = matrix.view();
  Activations in(view.columns, capacity);
  in.fill(random);
  const int64_t first = random.between(0, capacity - 1), count = random.between(1, capacity - first);
  const std::vector<float> start = random.reals(static_cast<size_t>(count * kPanel), 1.0f);
  for (int64_t panel = 0; panel < matrix.num_panels(); ++panel) {
    std::vector<float> expected = start;
    kScalarKernels.linear_panel(view, panel, in.view(), first, count, expected.data());
    for (const Kernels* kernels : kernels_to_test()) {
      std::vector<float> out = start;
      kernels->linear_panel(view, panel, in.view(), first, count, out.data());
      CHECK(same_bits(out, expected));
      CHECK(same_bits(product_by_halves(*kernels, view, panel, in.view(), first, count, start), expected));
    }
  }
}

// Every number of rows up to several tiles: a row's bits are those that it has alone.
void check_every_height(Random& random, const PackedMatrix& matrix) {
  constexpr int64_t kMostRows = 40;
  const PackedView view = matrix.view();
  Activations in(view.columns, kMostRows);
  in.fill(random);
  const std::vector<float> start = random.reals(kMostRows * kPanel, 1.0f);
  std::vector<float> expected = start;
  for (int64_t row = 0; row < kMostRows; ++row)
    kScalarKernels.linear_panel(view, 0, in.view(), row, 1, expected.data() + row * kPanel);
  for (const Kernels* kernels : kernels_to_test())
    for (int64_t count = 0; count <= kMostRows; ++count) {
      std::vector<float> out = start, wanted = start;
      std::copy_n(expected.begin(), count * kPanel, wanted.begin());
      kernels->linear_panel(view, 0, in.view(), 0, count, out.data());
      CHECK(same_bits(out, wanted));
      CHECK(same_bits(product_by_halves(*kernels, view, 0, in.view(), 0, count, start), wanted));
    }
}

void check_elementwise(Random& random, int64_t width, int64_t planes, float size) {
  const std::vector<float> x = random.reals(static_cast<size_t>(width), size), w = random.reals(x.size(), 2.0f);
  Activations expected(width, 3 * planes, planes);
  kScalarKernels.rms_norm(x.data(), w.data(), 1e-6f, width, expected.view(), 2);
  for (const Kernels* kernels : kernels_to_test()) {
    Activations out(width, 3 * planes, planes);
    kernels->rms_norm(x.data(), w.data(), 1e-6f, width, out.view(), 2);
    CHECK(out == expected);
  }
  const std::vector<float> gate = random.reals(3 * kPanel, size), up = random.reals(3 * kPanel, size);
  Activations activated(width, 3 * planes, planes);
  kScalarKernels.silu_mul(gate.data(), up.data(), 3, activated.view(), 0, width / kGroup - 1);
  for (const Kernels* kernels : kernels_to_test()) {
    Activations out(width, 3 * planes, planes);
    kernels->silu_mul(gate.data(), up.data(), 3, out.view(), 0, width / kGroup - 1);
    CHECK(out == activated);
  }
}

// A value that is not finite makes its group's scale not-a-number, in every plane, and changes no other row.
void check_not_finite(Random& random, int64_t planes, float bad) {
  const std::vector<float> gate = random.reals(3 * kPanel, 2.0f);
  std::vector<float> up = random.reals(3 * kPanel, 2.0f);
  Activations sound(kGroup, 3 * planes, planes);
  kScalarKernels.silu_mul(gate.data(), up.data(), 3, sound.view(), 0, 0);
  up[static_cast<size_t>(kPanel + random.between(0, kPanel - 1))] = bad;
  for (const Kernels* kernels : kernels_to_test()) {
    Activations out(kGroup, 3 * planes, planes);
    kernels->silu_mul(gate.data(), up.data(), 3, out.view(), 0, 0);
    for (int64_t row = 0; row < 3 * planes; ++row) {
      const auto at = static_cast<size_t>(row);
      CHECK(std::isnan(out.scales[at]) == (row / planes == 1));
      if (row / planes != 1) CHECK(out.scales[at] == sound.scales[at] && out.sums[at] == sound.sums[at]);
    }
  }
}

}  // namespace

void test_products() {
  Random random(1);
  ThreadPool pool(2);
  for (const char* left : kTypes)
    for (const char* right : kTypes) {
      const int64_t block = 32 * std::max(layout_of(left).block_groups, layout_of(right).block_groups);
      const int64_t columns = block * random.between(1, block == 32 ? 7 : 2);
      const int64_t rows = random.between(1, 100), more = random.between(1, 70);
      const auto a = weights(random, left, rows, columns), b = weights(random, right, more, columns);
      const PackedMatrix matrix({stored_matrix(a.data(), a.size(), storage_type(left), rows, columns),
                                 stored_matrix(b.data(), b.size(), storage_type(right), more, columns)},
                                false, pool);
      CHECK(matrix.num_panels() == (rows + more + 31) / 32);
      check_panels(random, matrix, random.between(1, 40));
      if (left == right) check_every_height(random, matrix);
      const auto gate = weights(random, left, 64, columns), up = weights(random, right, 64, columns);
      const PackedMatrix pair({stored_matrix(gate.data(), gate.size(), storage_type(left), 64, columns),
                               stored_matrix(up.data(), up.size(), storage_type(right), 64, columns)},
                              true, pool);
      check_panels(random, pair, random.between(1, 15));
    }
  for (const float size : {0.0f, 1e-38f, 1e-20f, 1.0f, 100.0f, 1e18f, 3e38f})
    for (int64_t width = 32; width <= 224; width += 96)
      for (int64_t planes = 1; planes <= 2; ++planes) check_elementwise(random, width, planes, size);
  for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF})
    for (int64_t planes = 1; planes <= 2; ++planes) check_not_finite(random, planes, bad);
}

}  // namespace antiphon::tests
