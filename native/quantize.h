// Weights into the blocks of Q4_0, Q4_1 and Q8_0.
//
// 4 bits: the levels of a group are searched for the least error (generic/quantize-inl.h); never worse than plain
// rounding. 8 bits: plain rounding, whose error is a hundredth of the former's. Every group stands alone, so neither
// threads nor instruction sets show in the bits.
#pragma once
#include <span>
#include <string>

#include "kernels.h"
#include "memory.h"
#include "progress.h"
#include "storage.h"
#include "thread_pool.h"

namespace antiphon {

struct QuantizedMatrix {
  Memory blocks;  // row by row
  double error;   // the sum over all weights of importance * (weight - what became of it)², importance averaging 1
  double norm;    // the same of importance * weight²
};

// `importance`: one number >= 0 for each column, or empty where all count the same. Throws std::invalid_argument for
// another type, an importance that does not fit, and a weight that is not finite or too large for half precision.
QuantizedMatrix quantize_matrix(const StoredMatrix& matrix, StorageType type, std::span<const float> importance,
                                const Kernels& kernels, ThreadPool& pool, Progress progress = Progress());

// Rounds 32 floats to 8 bits, codes biased by 128, with a scale in half precision, as Q8_0 does. What is not finite
// makes the scale so too.
void round_to_8_bits(const float* values, CodedGroup& out);

}  // namespace antiphon
