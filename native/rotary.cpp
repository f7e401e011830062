#include "rotary.h"

#include "elementary.h"

namespace antiphon {

void fill_rotary_tables(std::span<const double> frequencies, double factor, int64_t first, int64_t end, float* cosines,
                        float* sines) {
  for (int64_t position = first; position < end; ++position)
    for (const double frequency : frequencies) {
      const SineCosine turn = sine_cosine(static_cast<double>(position) * frequency);
      *cosines++ = static_cast<float>(turn.cosine * factor);
      *sines++ = static_cast<float>(turn.sine * factor);
    }
}

}  // namespace antiphon
