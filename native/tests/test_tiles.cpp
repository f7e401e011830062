// AMX's kernel with its tiles emulated: every number of rows up to more than a tile's many, every kind of weights, any
// length of k, from any row on, gives plain C++'s bits. And the emulation is as strict as the processor.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "dispatch.h"
#include "inputs.h"
#include "packed_matrix.h"
#include "tests.h"

#define ANTIPHON_EMULATE_TILES
#include "amx/tiles.h"

namespace antiphon::tests {
namespace {

using namespace emulated_amx;

constexpr int64_t kMostRows = 70;

// One of each: 4 bits and 8, with a bias and without, with minima and without.
constexpr const char* kKinds[] = {"Q4_0", "Q4_1", "Q4_ZP", "Q8_0", "Q5_1"};

// The emulated ones and, where there is AMX, the real ones.
std::vector<const Kernels*> kernels_with_tiles() {
  std::vector<const Kernels*> found;
  for (const Kernels* kernels : kernels_to_test())
    if (std::strcmp(kernels->name, "amx") == 0) found.push_back(kernels);
  return found;
}

void check_rows(const PackedView& view, const QuantizedRows& in, int64_t first, int64_t count,
                const std::vector<float>& start) {
  for (int64_t panel = 0; panel < (view.rows + kPanel - 1) / kPanel; ++panel) {
    std::vector<float> expected = start;
    kScalarKernels.linear_panel(view, panel, in, first, count, expected.data());
    for (const Kernels* kernels : kernels_with_tiles()) {
      std::vector<float> out = start;
      kernels->linear_panel(view, panel, in, first, count, out.data());
      CHECK(same_bits(out, expected));
      CHECK(same_bits(product_by_halves(*kernels, view, panel, in, first, count, start), expected));
    }
  }
}

// The last rows of the buffer, so that nothing may be read after them.
void check_matrix(Random& random, ThreadPool& pool, const char* type, int64_t groups, int64_t count, Planes planes) {
  const int64_t columns = groups * kGroup, channels = random.between(1, 40);
  const auto data = weights(random, type, channels, columns);
  const PackedMatrix matrix({stored_matrix(data.data(), data.size(), storage_type(type), channels, columns)}, false,
                            pool);
  const int64_t first = random.between(0, 3);
  Activations in(columns, first + count, planes);
  in.fill(random);
  check_rows(matrix.view(), in.view(), first, count, random.reals(static_cast<size_t>(count * kPanel), 1.0f));
}

// Sums at their largest: all codes and all activations at one end or the other.
void check_extremes(const char* type, Planes planes) {
  ThreadPool pool(1);
  const int64_t columns = 17 * kGroup;
  Random random(3);
  for (const uint8_t code : {0x00, 0x7F, 0x80, 0xFF}) {
    std::vector<uint8_t> data = weights(random, type, kPanel, columns);
    const StorageLayout& layout = layout_of(type);
    const size_t numbers = half_offsets(type).size() * 2;
    for (size_t block = 0; block < data.size(); block += layout.block_bytes)
      std::memset(data.data() + block + numbers, code, layout.block_bytes - numbers);
    const PackedMatrix matrix({stored_matrix(data.data(), data.size(), storage_type(type), kPanel, columns)}, false,
                              pool);
    for (const int32_t sign : {-1, 1}) {
      Activations in(columns, 16, planes);
      for (size_t group = 0; group < in.scales.size(); ++group) {
        in.scales[group] = random.real(1.0f);
        for (size_t k = 0; k < 32; ++k) in.set_code(group, k, sign * (planes == Planes::kOne ? 127 : 127 * 256 - 128));
      }
      check_rows(matrix.view(), in.view(), 0, 16, std::vector<float>(16 * kPanel));
    }
  }
}

TileConfig sound_config() {
  TileConfig config;
  config.palette = 1;
  for (int tile = 0; tile < 3; ++tile) {
    config.rows[tile] = tile == 2 ? 8 : 16;
    config.row_bytes[tile] = tile == 1 ? 32 : 64;
  }
  return config;
}

template <class Body>
bool faults(const Body& body) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    body();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

template <class Change>
bool faults_changed(const Change& change) {
  return faults([&] {
    TileConfig config = sound_config();
    change(config);
    load_config(config);
    add_signed_products<0, 1, 2>();
  });
}

void check_emulation() {
  CHECK(!faults_changed([](TileConfig&) {}));
  CHECK(faults([] {
    load_config(TileConfig{});  // none, whatever earlier tests of this thread configured
    zero_tile<0>();
  }));
  CHECK(faults_changed([](TileConfig& config) { config.palette = 2; }));
  CHECK(faults_changed([](TileConfig& config) { config.start_row = 1; }));
  CHECK(faults_changed([](TileConfig& config) { config.reserved[13] = 1; }));
  CHECK(faults_changed([](TileConfig& config) { config.rows[0] = 17; }));
  CHECK(faults_changed([](TileConfig& config) { config.row_bytes[0] = 68; }));
  CHECK(faults_changed([](TileConfig& config) { config.rows[8] = 1; }));
  CHECK(faults_changed([](TileConfig& config) { config.row_bytes[15] = 4; }));
  CHECK(faults_changed([](TileConfig& config) { config.rows[2] = 7; }));        // k of lines and of rows
  CHECK(faults_changed([](TileConfig& config) { config.rows[1] = 15; }));       // rows of the sum
  CHECK(faults_changed([](TileConfig& config) { config.row_bytes[2] = 60; }));  // channels of the sum
  CHECK(faults_changed([](TileConfig& config) { config.rows[1] = config.row_bytes[1] = 0; }));
}

}  // namespace

void test_tiles() {
  check_emulation();
  if (kernels_with_tiles().empty()) {
    std::printf("tiles: no AVX-512 with GFNI here, so nothing to compare\n");
    return;
  }
  Random random(13);
  ThreadPool pool(1);
  // Tiles need 16 groups. Runs are of 8 groups and of 4; the rest is not for tiles.
  constexpr int64_t kGroups[] = {1, 15, 16, 17, 20, 23, 24, 28, 31};
  for (const char* type : kKinds) {
    for (int64_t count = 1; count <= kMostRows; ++count)
      for (const Planes planes : {Planes::kOne, Planes::kTwo}) {
        if (planes == Planes::kTwo && count > kMostRows / 2) continue;
        check_matrix(random, pool, type, kGroups[random.next() % std::size(kGroups)], count, planes);
      }
    for (const Planes planes : {Planes::kOne, Planes::kTwo}) check_extremes(type, planes);
  }
  CHECK(emulated.config.palette == 1);  // tiles were used: the bounds of rows and groups have not excluded all of this
}

}  // namespace antiphon::tests
