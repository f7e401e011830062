// Rotation, the KV pool and attention over it, for every head size and both pool types: the same bits on every
// instruction set, in tiles of any size, with segments computed together or apart, and nothing beyond the buffers.
#include <cmath>

#include "dispatch.h"
#include "inputs.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

constexpr int64_t kShort = 77;                      // three blocks, the last one in part
constexpr int64_t kLong = 2 * kSegmentTokens + 40;  // three segments

struct Layer {
  int64_t tokens, first_query = 0;
  std::vector<int32_t> blocks;
  std::vector<float> cosines, sines, qkv, query_norm, key_norm;
  std::vector<uint8_t> pool;
  std::vector<int32_t> bias_pairs;
  std::vector<float> bias_first, bias_second, bias_turns;
  AttentionShape shape;
  KvLayer kv;

  Layer(Random& random, KvType type, int64_t heads, int64_t kv_heads, int64_t dim, int64_t num_tokens)
      : tokens(num_tokens) {
    const int64_t num_blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    for (int64_t i = 0; i < num_blocks; ++i) blocks.push_back(static_cast<int32_t>((i * 5 + 3) % (num_blocks + 1)));
    for (int64_t i = 0; i < tokens * dim / 2; ++i) {
      cosines.push_back(std::cos(static_cast<float>(i)));
      sines.push_back(std::sin(static_cast<float>(i)));
    }
    shape = {heads, kv_heads, dim, cosines.data(), sines.data(), type == KvType::kInt8};
    qkv = random.reals(static_cast<size_t>(tokens * shape.qkv_width()), 3.0f);
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
    pool = random.bytes(static_cast<size_t>((num_blocks + 1) * kv.block_stride));  // stale blocks hold anything
  }
};

// As models have them: none, or of the keys' norms and their bias one.
enum class Extra { kNone, kNorms, kBias };

struct Result {
  std::vector<float> qkv;
  std::vector<uint8_t> pool;
  Activations out;
};

// The segments of a tile all at once, or in parts of one each, the last one first.
enum class Walk { kWhole, kParts };

Result attend(const Layer& layer, const Kernels& kernels, int64_t tile, Extra extra, Planes planes,
              Walk walk = Walk::kWhole) {
  const AttentionShape& shape = layer.shape;
  Result result{layer.qkv, layer.pool, Activations(shape.num_heads * shape.head_dim, layer.tokens, planes)};
  KvLayer kv = layer.kv;
  kv.base = result.pool.data();
  const HeadNorms norms{layer.query_norm.data(), layer.key_norm.data(), 1e-6f};
  for (int64_t t = 0; t < layer.tokens; ++t)
    kernels.rope_and_store(result.qkv.data() + t * shape.qkv_width(), t, shape,
                           extra == Extra::kNorms ? norms : HeadNorms{}, kv,
                           layer.blocks[static_cast<size_t>(t / kBlockTokens)]);
  KeyBias bias;
  if (extra == Extra::kBias)
    bias = {std::ssize(layer.bias_pairs), layer.bias_pairs.data(), layer.bias_first.data(), layer.bias_second.data(),
            layer.bias_turns.data()};
  const SequenceView sequence{0, layer.tokens, 0, layer.blocks.data()};
  std::vector<float> scratch(static_cast<size_t>(attention_scratch_floats(shape)));
  for (int64_t begin = layer.first_query; begin < layer.tokens; begin += tile)
    for (int64_t head = 0; head < shape.num_kv_heads; ++head) {
      const AttentionTile part{result.qkv.data(), sequence, begin, std::min(begin + tile, layer.tokens), head};
      if (walk == Walk::kWhole) {
        kernels.attend(part, part.all_segments(), shape, kv, bias, nullptr, result.out.view(), scratch.data());
        continue;
      }
      const int64_t state = attention_state_floats(shape, part.tokens()), count = part.num_segments();
      std::vector<float> states(static_cast<size_t>(state * count));
      for (int64_t segment = count - 1; segment >= 0; --segment)
        kernels.attend(part, {segment, segment + 1}, shape, kv, bias, states.data() + segment * state,
                       result.out.view(), scratch.data());
      kernels.fold_attention(part, shape, states.data(), result.out.view());
    }
  return result;
}

}  // namespace

void test_attention() {
  Random random(2);
  for (const KvType type : {KvType::kInt8, KvType::kHalf})
    for (const int64_t dim : {32, 64, 96, 128})
      for (const int64_t group : {1, 3, 6}) {
        const Layer layer(random, type, 2 * group, 2, dim, kShort);
        const Planes planes = group == 6 ? Planes::kTwo : Planes::kOne;
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

void test_attention_in_segments() {
  Random random(3);
  for (const KvType type : {KvType::kInt8, KvType::kHalf}) {
    Layer layer(random, type, 3, 1, 32, kLong);
    layer.first_query = 2 * kSegmentTokens - 10;
    const Planes planes = type == KvType::kInt8 ? Planes::kTwo : Planes::kOne;
    const Extra extra = type == KvType::kInt8 ? Extra::kBias : Extra::kNone;
    const Result expected = attend(layer, kScalarKernels, kAttentionTileTokens, extra, planes);
    for (const float scale : expected.out.scales) CHECK(std::isfinite(scale));
    for (const Kernels* kernels : kernels_to_test())
      for (const int64_t tile : {kAttentionTileTokens, int64_t{1}, int64_t{7}})  // with 7, one crosses a boundary
        for (const Walk walk : {Walk::kWhole, Walk::kParts})
          CHECK(attend(layer, *kernels, tile, extra, planes, walk).out == expected.out);
  }
}

}  // namespace antiphon::tests
