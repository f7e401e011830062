#include "roofline.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#ifdef ANTIPHON_HAS_AMX
#include "amx/tiles.h"
#endif

namespace antiphon {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// ---- Memory ----

constexpr size_t kChunk = size_t{1} << 20;  // bytes of a task
constexpr size_t kAhead = 4096;             // bytes to prefetch before they are read

uint64_t sum_chunk(const uint64_t* words) {
  constexpr size_t kLine = 64 / sizeof(uint64_t);
  uint64_t sums[kLine] = {};
  for (size_t i = 0; i < kChunk / sizeof(uint64_t); i += kLine) {
    __builtin_prefetch(words + i + kAhead / sizeof(uint64_t));
    for (size_t lane = 0; lane < kLine; ++lane) sums[lane] += words[i + lane];
  }
  uint64_t sum = 0;
  for (const uint64_t each : sums) sum += each;
  return sum;
}

// ---- Products ----

// A loop of `rounds` over kSums independent sums, which hide the instruction's latency. `hide` makes the compiler
// forget what it knows of a register, so that it neither hoists a product out of the loop nor adds sums up in a tree.
constexpr int kSums = 12;

struct Loop {
  const char* instruction_set;
  int64_t products;  // of a round
  void (*run)(int64_t rounds);
};

void multiply_scalar(int64_t rounds) {
  int32_t sums[kSums] = {}, code = 3;
  const int32_t activation = 5;
  for (int64_t round = 0; round < rounds; ++round)
    for (int32_t& sum : sums) {
      asm volatile("" : "+r"(code));
      sum += code * activation;
      asm volatile("" : "+r"(sum));
    }
}

#if defined(__x86_64__)

// Two instructions: pairs of products in 16 bits, and their addition; as kernels do it for codes of 4 bits. Codes of 8
// take a third, and 32-bit sums.
__attribute__((target("avx2"))) void multiply_avx2(int64_t rounds) {
  __m256i sums[kSums] = {}, codes = _mm256_set1_epi8(3);
  const __m256i activations = _mm256_set1_epi8(1);
  for (int64_t round = 0; round < rounds; ++round)
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(codes));
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, activations));
      asm volatile("" : "+x"(sum));
    }
}

__attribute__((target("avx2,avxvnni"))) void multiply_avxvnni(int64_t rounds) {
  __m256i sums[kSums] = {}, codes = _mm256_set1_epi8(3);
  const __m256i activations = _mm256_set1_epi8(1);
  for (int64_t round = 0; round < rounds; ++round)
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(codes));
      sum = _mm256_dpbusd_avx_epi32(sum, codes, activations);
      asm volatile("" : "+x"(sum));
    }
}

__attribute__((target("avx512f,avx512vnni"))) void multiply_avx512(int64_t rounds) {
  __m512i sums[kSums] = {}, codes = _mm512_set1_epi8(3);
  const __m512i activations = _mm512_set1_epi8(1);
  for (int64_t round = 0; round < rounds; ++round)
    for (__m512i& sum : sums) {
      asm volatile("" : "+v"(codes));
      sum = _mm512_dpbusd_epi32(sum, codes, activations);
      asm volatile("" : "+v"(sum));
    }
}

#ifdef ANTIPHON_HAS_AMX
// Full tiles, 16 rows of activations by 16 channels over 64 of k. Six sums, for there are 8 tiles: enough.
constexpr int64_t kTileProducts = 16 * 16 * 64;

void multiply_amx(int64_t rounds) {
  alignas(64) int8_t codes[16 * 64];
  std::fill_n(codes, sizeof codes, int8_t{3});
  amx::TileConfig config;
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = 16;
    config.row_bytes[tile] = 64;
  }
  amx::load_config(config);
  amx::load_tile<6>(codes, 64);
  amx::load_tile<7>(codes, 64);
  for (int64_t round = 0; round < rounds; ++round) {
    amx::add_signed_products<0, 6, 7>();
    amx::add_signed_products<1, 6, 7>();
    amx::add_signed_products<2, 6, 7>();
    amx::add_signed_products<3, 6, 7>();
    amx::add_signed_products<4, 6, 7>();
    amx::add_signed_products<5, 6, 7>();
  }
}
#endif

constexpr Loop kLoops[] = {
    {"scalar", kSums, multiply_scalar},        {"avx2", kSums * 32, multiply_avx2},
    {"avxvnni", kSums * 32, multiply_avxvnni}, {"avx512", kSums * 64, multiply_avx512},
#ifdef ANTIPHON_HAS_AMX
    {"amx", 6 * kTileProducts, multiply_amx},
#endif
};
#else
constexpr Loop kLoops[] = {{"scalar", kSums, multiply_scalar}};
#endif

const Loop& loop_of(const std::string& instruction_set) {
  for (const Loop& loop : kLoops)
    if (instruction_set == loop.instruction_set) return loop;
  throw std::invalid_argument("there is no loop to measure the peak of instruction set '" + instruction_set + "'");
}

}  // namespace

MemoryReader::MemoryReader(size_t bytes, ThreadPool& pool)
    : memory_(std::max(bytes, kChunk) / kChunk * kChunk, Pages::kHuge) {
  // What was never written is one page of zeros, which lies in the cache.
  pool.run(static_cast<int64_t>(memory_.bytes() / kChunk), [this](int64_t chunk, int) {
    std::fill_n(memory_.as<uint8_t>() + static_cast<size_t>(chunk) * kChunk, kChunk, uint8_t{1});
  });
}

double MemoryReader::bytes_per_second(ThreadPool& pool) const {
  std::atomic<uint64_t> sum{0};  // what is used by nobody need not be read
  const Clock::time_point start = Clock::now();
  pool.run(static_cast<int64_t>(memory_.bytes() / kChunk), [&](int64_t chunk, int) {
    sum += sum_chunk(memory_.as<uint64_t>() + static_cast<size_t>(chunk) * (kChunk / sizeof(uint64_t)));
  });
  return static_cast<double>(memory_.bytes()) / seconds_since(start);
}

double seconds_per_loop(ThreadPool& pool) {
  constexpr int kLoops = 1000, kTrials = 9;
  const ThreadPool::Task nothing = [](int64_t, int) {};
  std::array<double, kTrials> trials;
  for (double& trial : trials) {
    int left = kLoops;
    const Clock::time_point start = Clock::now();
    pool.run_loops([&](ThreadPool::Loop& loop) {
      loop = {std::max(2, pool.size()), &nothing};
      return left-- > 0;
    });
    trial = seconds_since(start) / kLoops;
  }
  std::sort(trials.begin(), trials.end());
  return trials[kTrials / 2];
}

double products_per_second(const std::string& instruction_set, double seconds, ThreadPool& pool) {
  constexpr int64_t kRounds = 20'000;
  const Loop& loop = loop_of(instruction_set);
  const Clock::time_point trial = Clock::now();
  loop.run(kRounds);
  const auto tasks = static_cast<int64_t>(pool.size() * seconds / seconds_since(trial)) + pool.size();
  const Clock::time_point start = Clock::now();
  pool.run(tasks, [&loop](int64_t, int) { loop.run(kRounds); });
  return static_cast<double>(tasks * kRounds * loop.products) / seconds_since(start);
}

}  // namespace antiphon
