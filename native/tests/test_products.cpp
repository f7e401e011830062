// Norms, packed products and activations on odd shapes: every instruction set gives the scalar one's bits, and reads
// and writes nothing beyond what it was given.
#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "elementary.h"
#include "inputs.h"
#include "packed_matrix.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

// The code of a packed weight, less its zero point (kernels.h has the layout).
int32_t weight_code(const PackedView& view, int64_t at, int64_t channel, int64_t k) {
  const bool is_w4 = view.format == WeightFormat::kW4;
  const uint8_t* half = view.codes + (2 * at + channel / 16) * (group_code_bytes(view.format) / 2);
  const uint8_t byte = half[64 * (is_w4 ? k / 4 % 4 : k / 4) + channel % 16 * 4 + k % 4];
  return (is_w4 ? (k < 16 ? byte & 15 : byte >> 4) : byte) - view.zero_point;
}

// What a product is, for every instruction set: in the order of groups, their exact sum, rounded once, is multiplied by
// the product of the two scales and added, and then the minimum times the row's scale times the sum of its codes.
float product_of(const PackedView& view, int64_t panel, int64_t channel, const Activations& in, int64_t row,
                 float start) {
  float out = start;
  for (int64_t group = 0; group < view.columns / kGroup; ++group) {
    const int64_t at = panel * (view.columns / kGroup) + group;
    const auto row_at = static_cast<size_t>(group * in.capacity + row);
    int64_t sum = 0, row_sum = 0;
    for (int64_t k = 0; k < kGroup; ++k) {
      const int64_t code = in.code(row_at, static_cast<size_t>(k));
      sum += weight_code(view, at, channel, k) * code;
      row_sum += code;
    }
    const float scale = half_to_float(view.scales[at * kPanel + channel]) * in.scales[row_at];
    out = fused_multiply_add(static_cast<float>(sum), scale, out);
    if (view.mins)
      out = fused_multiply_add(half_to_float(view.mins[at * kPanel + channel]),
                               in.scales[row_at] * static_cast<float>(row_sum), out);
  }
  return out;
}

void check_definition(Random& random, const PackedMatrix& matrix, Planes planes) {
  constexpr int64_t kRows = 3;
  const PackedView view = matrix.view();
  Activations in(view.columns, kRows, planes);
  in.fill(random);
  const std::vector<float> start = random.reals(kRows * kPanel, 1.0f);
  for (int64_t panel = 0; panel < matrix.num_panels(); ++panel) {
    std::vector<float> out = start, expected = start;
    kScalarKernels.linear_panel(view, panel, in.view(), 0, kRows, out.data());
    for (int64_t i = 0; i < kRows * kPanel; ++i) {
      float& value = expected[static_cast<size_t>(i)];
      value = product_of(view, panel, i % kPanel, in, i / kPanel, value);
    }
    CHECK(same_bits(out, expected));
  }
}

void check_panels(Random& random, const PackedMatrix& matrix, int64_t capacity, Planes planes) {
  const PackedView view = matrix.view();
  Activations in(view.columns, capacity, planes);
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
void check_every_height(Random& random, const PackedMatrix& matrix, Planes planes) {
  constexpr int64_t kMostRows = 40;
  const PackedView view = matrix.view();
  Activations in(view.columns, kMostRows, planes);
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

// More rows than the kernels for products are asked for; attention has so many.
void check_many_rows(Random& random, const PackedMatrix& matrix, Planes planes) {
  constexpr int64_t kRows = 2 * kRowChunk + 3;
  const PackedView view = matrix.view();
  Activations in(view.columns, kRows, planes);
  in.fill(random);
  std::vector<float> expected(kRows * kPanel);
  kScalarKernels.linear_panel(view, 0, in.view(), 0, kRows, expected.data());
  for (const Kernels* kernels : kernels_to_test()) {
    std::vector<float> out(expected.size());
    kernels->linear_panel(view, 0, in.view(), 0, kRows, out.data());
    CHECK(same_bits(out, expected));
  }
}

// The largest sums that codes and activations can have, of either sign: no instruction set's integers overflow.
void check_extremes(const std::string& type, Planes planes, ThreadPool& pool) {
  constexpr int64_t kRows = 9;
  Random random(3);
  const StorageLayout& layout = layout_of(type);
  std::vector<uint8_t> data = weights(random, type, kPanel, 32 * layout.block_groups);
  for (size_t at = 0; at < data.size(); ++at) {
    const size_t channel = at / layout.block_bytes, offset = at % layout.block_bytes;
    if (offset < 2 * half_offsets(type).size()) continue;
    const uint8_t codes[] = {0x00, 0xFF, 0x7F, 0x80, static_cast<uint8_t>(offset % 2 ? 0x7F : 0x80), 0xF0, 0x0F, 0x88};
    data[at] = codes[channel % 8];
  }
  const PackedMatrix matrix(
      {stored_matrix(data.data(), data.size(), storage_type(type), kPanel, 32 * layout.block_groups)}, false, pool);
  Activations in(32 * layout.block_groups, kRows, planes);
  for (size_t i = 0; i < in.scales.size() * 32; ++i) {
    const size_t row = i / 32 % kRows, k = i % 32;
    const int signs[] = {1, -1, k % 2 ? 1 : -1, k % 4 < 2 ? 1 : -1, k < 16 ? 1 : -1};
    const int sizes[] = {127, 120, 119, 8, 7, 1};
    const int size = sizes[row < 5 ? 0 : row - 4];  // with two planes, also with the low one at either end
    in.set_code(i / 32, k, signs[row % 5] * (planes == Planes::kOne ? size : 256 * size - (row % 2 ? 128 : 0)));
    in.scales[i / 32] = 1.0f;
  }
  std::vector<float> expected(kRows * kPanel);
  kScalarKernels.linear_panel(matrix.view(), 0, in.view(), 0, kRows, expected.data());
  for (const Kernels* kernels : kernels_to_test()) {
    std::vector<float> out(expected.size());
    kernels->linear_panel(matrix.view(), 0, in.view(), 0, kRows, out.data());
    CHECK(same_bits(out, expected));
  }
}

// Sums are those of the codes, and codes times the scale err by no more than half of it.
void check_quantized(const Activations& in, int64_t row, const std::vector<double>& values) {
  const int32_t most = in.planes == Planes::kOne ? 127 : 127 * 256;
  for (size_t group = 0; group < values.size() / 32; ++group) {
    const size_t at = group * static_cast<size_t>(in.capacity) + static_cast<size_t>(row);
    const double scale = in.scales[at] * (in.planes == Planes::kApart ? 1.0 / 256 : 1.0);
    int32_t sum = 0;
    for (size_t k = 0; k < 32; ++k) {
      const int32_t code = in.code(at, k);
      const double value = values[group * 32 + k];
      CHECK(std::abs(code) <= most);
      CHECK(std::fabs(code * scale - value) <= std::max(0.505 * scale + 1e-6 * std::fabs(value), 2e-36));
      sum += code;
    }
    CHECK(sum == (in.planes == Planes::kApart ? 256 * in.sums[at] + in.sums[at + in.scales.size()] : in.sums[at]));
  }
}

std::vector<double> normed(const std::vector<float>& x, const std::vector<float>& weight) {
  double squares = 0.0;
  for (const float value : x) squares += static_cast<double>(value) * value;
  std::vector<double> out;
  for (size_t i = 0; i < x.size(); ++i)
    out.push_back(x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-6) * weight[i]);
  return out;
}

void check_elementwise(Random& random, int64_t width, Planes planes, float size) {
  const std::vector<float> x = random.reals(static_cast<size_t>(width), size), w = random.reals(x.size(), 2.0f);
  Activations expected(width, 3, planes);
  kScalarKernels.rms_norm(x.data(), w.data(), 1e-6f, width, expected.view(), 2);
  if (size < 1e18f) check_quantized(expected, 2, normed(x, w));  // no square overflows
  for (const Kernels* kernels : kernels_to_test()) {
    Activations out(width, 3, planes);
    kernels->rms_norm(x.data(), w.data(), 1e-6f, width, out.view(), 2);
    CHECK(out == expected);
  }
  const std::vector<float> gate = random.reals(3 * kPanel, size), up = random.reals(3 * kPanel, size);
  Activations activated(width, 3, planes);
  kScalarKernels.silu_mul(gate.data(), up.data(), 3, activated.view(), 0, width / kGroup - 1);
  for (const Kernels* kernels : kernels_to_test()) {
    Activations out(width, 3, planes);
    kernels->silu_mul(gate.data(), up.data(), 3, out.view(), 0, width / kGroup - 1);
    CHECK(out == activated);
  }
}

// A value that is not finite makes its group's scale not-a-number and changes no other row.
void check_not_finite(Random& random, Planes planes, float bad) {
  const std::vector<float> gate = random.reals(3 * kPanel, 2.0f);
  std::vector<float> up = random.reals(3 * kPanel, 2.0f);
  Activations sound(kGroup, 3, planes);
  kScalarKernels.silu_mul(gate.data(), up.data(), 3, sound.view(), 0, 0);
  up[static_cast<size_t>(kPanel + random.between(0, kPanel - 1))] = bad;
  for (const Kernels* kernels : kernels_to_test()) {
    Activations out(kGroup, 3, planes);
    kernels->silu_mul(gate.data(), up.data(), 3, out.view(), 0, 0);
    for (size_t row = 0; row < 3; ++row) {
      CHECK(std::isnan(out.scales[row]) == (row == 1));
      if (row != 1) CHECK(out.scales[row] == sound.scales[row] && out.sums[row] == sound.sums[row]);
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
      for (const Planes planes : kAllPlanes) check_panels(random, matrix, random.between(1, 40), planes);
      for (const Planes planes : {Planes::kOne, Planes::kTwo}) {
        if (left != right) break;
        check_definition(random, matrix, planes);
        check_every_height(random, matrix, planes);
        check_many_rows(random, matrix, planes);
      }
      const auto gate = weights(random, left, 64, columns), up = weights(random, right, 64, columns);
      const PackedMatrix pair({stored_matrix(gate.data(), gate.size(), storage_type(left), 64, columns),
                               stored_matrix(up.data(), up.size(), storage_type(right), 64, columns)},
                              true, pool);
      check_panels(random, pair, random.between(1, 15), random.next() % 2 ? Planes::kOne : Planes::kTwo);
    }
  for (const char* type : {"Q4_0", "Q4_1", "Q8_0", "Q5_1"})
    for (const Planes planes : {Planes::kOne, Planes::kTwo}) check_extremes(type, planes, pool);
  for (const float size : {0.0f, 1e-38f, 1e-20f, 1.0f, 100.0f, 1e18f, 3e38f})
    for (int64_t width = 32; width <= 224; width += 96)
      for (const Planes planes : kAllPlanes) check_elementwise(random, width, planes, size);
  for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF})
    for (const Planes planes : kAllPlanes) check_not_finite(random, planes, bad);
}

}  // namespace antiphon::tests
