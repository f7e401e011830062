// Rotation, the KV pool and attention over it, for every head size and both pool types: the same bits on every
// instruction set, in tiles of any size, and nothing beyond the buffers.
#include <cmath>

#include "dispatch.h"
#include "inputs.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

constexpr int64_t kTokens = 77;  // three blocks, the last one in part
constexpr int64_t kBlocks[] = {3, 0, 2};

struct Layer {
  std::vector<float> cosines, sines, qkv, query_norm, key_norm;
  std::vector<uint8_t> pool;
  std::vector<int32_t> bias_pairs;
  std::vector<float> bias_first, bias_second, bias_turns;
  AttentionShape shape;
  KvLayer kv;

  Layer(Random& random, KvType type, int64_t heads, int64_t kv_heads, int64_t dim) {
    for (int64_t i = 0; i < kTokens * dim / 2; ++i) {
      cosines.push_back(std::cos(static_cast<float>(i)));
      sines.push_back(std::sin(static_cast<float>(i)));
    }
    shape = {heads, kv_heads, dim, cosines.data(), sines.data(), type == KvType::kInt8};
    qkv = random.reals(static_cast<size_t>(kTokens * shape.qkv_width()), 3.0f);
    query_norm = random.reals(static_cast<size_t>(dim), 2.0f);
    key_norm = random.reals(static_cast<size_t>(dim), 2.0f);
    kv = {nullptr, type, kv_heads, dim, 0};
    kv.block_stride = kv.block_bytes() + 64;  // as if another layer followed
    for (int64_t pair = 0; pair < dim / 2; pair += random.between(1, 7)) {
      bias_pairs.push_back(static_cast<int32_t>(pair));
      bias_first.push_back(random.real(50.0f));
      bias_second.push_back(random.real(50.0f));
    }
    bias_turns = random.reals(2 * bias_pairs.size() * kBlockTokens, 1.0f);
    pool = random.bytes(static_cast<size_t>(4 * kv.block_stride));  // stale blocks hold anything
  }
};

// As models have them: none, or of the keys' norms and their bias one.
enum class Extra { kNone, kNorms, kBias };

struct Result {
  std::vector<float> qkv;
  std::vector<uint8_t> pool;
  Activations out;
};

Result attend(const Layer& layer, const Kernels& kernels, int64_t tile, Extra extra, int64_t planes) {
  const AttentionShape& shape = layer.shape;
  Result result{layer.qkv, layer.pool, Activations(shape.num_heads * shape.head_dim, planes * kTokens, planes)};
  KvLayer kv = layer.kv;
  kv.base = result.pool.data();
  const HeadNorms norms{layer.query_norm.data(), layer.key_norm.data(), 1e-6f};
  for (int64_t t = 0; t < kTokens; ++t)
    kernels.rope_and_store(result.qkv.data() + t * shape.qkv_width(), t, shape,
                           extra == Extra::kNorms ? norms : HeadNorms{}, kv, kBlocks[t / kBlockTokens]);
  KeyBias bias;
  if (extra == Extra::kBias)
    bias = {std::ssize(layer.bias_pairs), layer.bias_pairs.data(), layer.bias_first.data(), layer.bias_second.data(),
            layer.bias_turns.data()};
  int32_t table[3];
  for (int i = 0; i < 3; ++i) table[i] = static_cast<int32_t>(kBlocks[i]);
  const SequenceView sequence{0, kTokens, 0, table};
  std::vector<float> scratch(static_cast<size_t>(attention_scratch_floats(shape)));
  for (int64_t begin = 0; begin < kTokens; begin += tile)
    for (int64_t head = 0; head < shape.num_kv_heads; ++head)
      kernels.attend(result.qkv.data(), sequence, begin, std::min(begin + tile, kTokens), head, shape, kv, bias,
                     result.out.view(), scratch.data());
  return result;
}

}  // namespace

void test_attention() {
  Random random(2);
  for (const KvType type : {KvType::kInt8, KvType::kHalf})
    for (const int64_t dim : {32, 64, 96, 128})
      for (const int64_t group : {1, 3, 6}) {
        const Layer layer(random, type, 2 * group, 2, dim);
        const int64_t planes = group == 6 ? 2 : 1;
        for (const Extra extra : {Extra::kNone, Extra::kNorms, Extra::kBias}) {
          if (extra == Extra::kBias && type == KvType::kHalf) continue;
          const Result expected = attend(layer, kScalarKernels, kAttentionTileTokens, extra, planes);
          for (const float scale : expected.out.scales) CHECK(std::isfinite(scale));
          for (const Kernels* kernels : kernels_to_test())
            for (const int64_t tile : {kAttentionTileTokens, int64_t{1}, int64_t{5}}) {
              const Result result = attend(layer, *kernels, tile, extra, planes);
              CHECK(result.out == expected.out);
              CHECK(same_bits(result.pool, expected.pool));
            }
        }
      }
}

}  // namespace antiphon::tests
