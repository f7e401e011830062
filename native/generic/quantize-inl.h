// Rounding to 4 bits, 16 groups at a time: one group in each lane, so that every sum is a lane's own and nothing is
// folded. Included inside the namespace of an instruction set.
//
// It searches the scale and the min whose 16 levels leave the smallest sum of importance * (value - level)². From each
// of several step widths: values go to their nearest levels, then the levels are fitted to these values (weighted least
// squares). This is Lloyd's algorithm (Lloyd, Least squares quantization in PCM, 1982) on evenly spaced levels. The
// first width is that of plain rounding and the best result is kept, so the result is never worse than plain rounding.
// Errors are measured with scale and min already in half precision, as they are stored.

struct Levels {
  F32 scale, min;
};

// What one walk over the groups finds: the error, and the sums that give the next levels.
struct Rounding {
  F32 error, codes, squares, products;  // of importance times: error², code, code², code * value
};

static inline F32 to_half_and_back(F32 v) {
  uint16_t halves[16];
  store_half(halves, v);
  return load_half(halves);
}

static inline F32 four_bit_code(F32 value, F32 inverse, F32 lowest) {
  const F32 nearest = from_int(round_to_int(mul(sub(value, lowest), inverse)));
  return min(max(nearest, set1(0.0f)), set1(15.0f));
}

static inline F32 inverse_or_zero(F32 scale) {
  const F32 zero = set1(0.0f);
  return select(less(zero, abs(scale)), div(set1(1.0f), scale), zero);
}

static inline Rounding round_once(const float* values, const float* importance, Levels levels, float center) {
  const F32 zero = set1(0.0f), middle = set1(center), inverse = inverse_or_zero(levels.scale);
  Rounding found = {zero, zero, zero, zero};
  for (int k = 0; k < kGroup; ++k) {
    const F32 value = load(values + 16 * k), weight = set1(importance[k]);
    const F32 code = four_bit_code(value, inverse, levels.min);
    const F32 error = sub(value, fma(levels.scale, code, levels.min));
    const F32 centered = sub(code, middle);
    const F32 weighted = mul(weight, centered);
    found.error = fma(mul(weight, error), error, found.error);
    found.codes = add(found.codes, weighted);
    found.squares = fma(weighted, centered, found.squares);
    found.products = fma(weighted, value, found.products);
  }
  return found;
}

// Two unknowns: scale and min, from total importance and importance-weighted sum of values.
static inline Levels fit_line(const Rounding& r, F32 total, F32 sum, Levels otherwise) {
  const F32 spread = sub(mul(total, r.squares), mul(r.codes, r.codes));
  const F32 scale = div(sub(mul(total, r.products), mul(r.codes, sum)), spread);
  const F32 lowest = div(sub(sum, mul(scale, r.codes)), total);
  const Mask sound = less(set1(0.0f), spread);
  return {select(sound, scale, otherwise.scale), select(sound, lowest, otherwise.min)};
}

// One unknown: code 0 stands for -8 scales.
static inline Levels fit_scale(const Rounding& r, Levels otherwise) {
  const Mask sound = less(set1(0.0f), r.squares);
  return {select(sound, div(r.products, r.squares), otherwise.scale), otherwise.min};
}

// What the groups of all lanes are, apart from their values.
struct GroupFacts {
  F32 low, high, sum;  // sum: of importance * value
  float total;         // of importance
};

static inline GroupFacts look_at(const float* values, const float* importance) {
  GroupFacts facts = {load(values), load(values), set1(0.0f), 0.0f};
  for (int k = 0; k < kGroup; ++k) {
    const F32 value = load(values + 16 * k);
    facts.low = min(facts.low, value);
    facts.high = max(facts.high, value);
    facts.sum = fma(set1(importance[k]), value, facts.sum);
    facts.total += importance[k];
  }
  return facts;
}

// Levels to the range of the values, or to the one of largest magnitude; the first is plain rounding. With fewer than
// 15 between the ends the levels lie wider apart than the values, with more the outermost values are cut.
constexpr float kLineSteps[] = {15.0f, 13.8f, 14.4f, 15.6f, 16.3f, 17.2f};
constexpr float kScaleSteps[] = {-8.0f, -7.6f, -8.4f, -9.0f, 7.0f, 7.5f, 8.0f, 8.5f};
constexpr int kRefinements = 3;  // each brings less; three come within 2 % of what a hundred widths find

static inline Levels first_levels(const GroupFacts& facts, bool has_min, int start) {
  if (has_min) {
    const F32 range = sub(facts.high, facts.low);
    return {div(range, set1(kLineSteps[start])), fma(range, set1(0.5f - 7.5f / kLineSteps[start]), facts.low)};
  }
  const F32 extreme = select(less(abs(facts.low), abs(facts.high)), facts.high, facts.low);
  return {div(extreme, set1(kScaleSteps[start])), set1(0.0f)};
}

static inline void round_to_4_bits(const float* values, const float* importance, bool has_min, FourBitGroups* out) {
  const GroupFacts facts = look_at(values, importance);
  const int num_starts = static_cast<int>(has_min ? sizeof kLineSteps : sizeof kScaleSteps) / 4;
  Levels best = {set1(0.0f), set1(0.0f)};
  F32 best_error = set1(__builtin_inff());
  for (int start = 0; start < num_starts; ++start) {
    Levels levels = first_levels(facts, has_min, start);
    for (int refinement = 0; refinement <= kRefinements; ++refinement) {
      levels.scale = to_half_and_back(levels.scale);
      levels.min = has_min ? to_half_and_back(levels.min) : mul(levels.scale, set1(-8.0f));
      const Rounding found = round_once(values, importance, levels, has_min ? 0.0f : 8.0f);
      const Mask better = less(found.error, best_error);
      best_error = select(better, found.error, best_error);
      best.scale = select(better, levels.scale, best.scale);
      best.min = select(better, levels.min, best.min);
      levels = has_min ? fit_line(found, set1(facts.total), facts.sum, levels) : fit_scale(found, levels);
    }
  }
  store(out->scales, best.scale);
  store(out->mins, best.min);
  store(out->errors, best_error);
  const F32 inverse = inverse_or_zero(best.scale);
  for (int k = 0; k < kGroup; ++k)
    store_int8(out->codes[k], round_to_int(four_bit_code(load(values + 16 * k), inverse, best.min)));
}
