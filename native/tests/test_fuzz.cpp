// Bytes that nobody vouches for, read as matrices of any type and claimed shape: refused, or packed and multiplied.
#include <chrono>
#include <stdexcept>

#include "dispatch.h"
#include "inputs.h"
#include "packed_matrix.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

constexpr int64_t kExtents[] = {-1, 0, 1, 31, 33, 64, 100, int64_t{1} << 31, int64_t{1} << 59, INT64_MIN, INT64_MAX};

// Usually a length that fits, else one that is cut, grown or unrelated.
size_t claimed_bytes(Random& random, const char* type, int64_t rows, int64_t columns) {
  const StorageLayout& layout = layout_of(type);
  const uint64_t blocks = static_cast<uint64_t>(columns) / (32 * static_cast<uint64_t>(layout.block_groups));
  const uint64_t sound = static_cast<uint64_t>(rows) * blocks * layout.block_bytes;
  const size_t small = static_cast<size_t>(sound % (1 << 16));
  return random.next() % 4 ? small : static_cast<size_t>(random.between(0, 2 * static_cast<int64_t>(small) + 8));
}

bool multiply(Random& random, const StoredMatrix& stored, ThreadPool& pool) {
  const PackedMatrix matrix({stored}, false, pool);
  const PackedView view = matrix.view();
  Activations in(view.columns, 3);
  in.fill(random);
  std::vector<float> expected;
  for (const Kernels* kernels : kernels_to_test()) {
    std::vector<float> out(3 * kPanel);
    for (int64_t panel = 0; panel < matrix.num_panels(); ++panel)
      kernels->linear_panel(view, panel, in.view(), 0, 3, out.data());
    if (expected.empty()) expected = out;
    for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == expected[i]);
  }
  return true;
}

bool try_matrix(Random& random, ThreadPool& pool) {
  const char* type = kTypes[random.next() % std::size(kTypes)];
  const bool wild = random.next() % 4 == 0;
  const int64_t rows = wild ? kExtents[random.next() % std::size(kExtents)] : random.between(1, 40);
  const int64_t block = 32 * layout_of(type).block_groups;
  const int64_t columns =
      random.next() % 8 ? block * random.between(1, 128 / block + 1) : kExtents[random.next() % std::size(kExtents)];
  const bool sound = rows > 0 && rows <= 100 && columns > 0 && columns <= 512 && columns % block == 0;
  const std::vector<uint8_t> data = sound && random.next() % 2
                                        ? weights(random, type, rows, columns)
                                        : random.bytes(claimed_bytes(random, type, rows, columns));
  try {
    const StoredMatrix stored = stored_matrix(data.data(), data.size(), storage_type(type), rows, columns);
    for (int64_t row = 0; row < rows; ++row) row_is_finite(stored, row);
    return multiply(random, stored, pool);
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace

void test_fuzz() {
  Random random(11);
  ThreadPool pool(2);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  int64_t computed = 0, refused = 0;
  while (std::chrono::steady_clock::now() < end) try_matrix(random, pool) ? ++computed : ++refused;
  CHECK(computed > 20 && refused > 20);
}

}  // namespace antiphon::tests
