// A panel of a quantized matrix product, written once over the vector layer. Included inside an instruction set's
// namespace; see kernels.h for the layouts and for what is promised about the bits.

// `Rows` rows of activations times one group of one panel: exact integers, then one fused multiply-add a channel.
template <WeightFormat Format, int Rows>
static inline void multiply_group(const uint8_t* lines, const int8_t* codes, const float* scales, const int32_t* sums,
                                  int32_t bias, const uint16_t* weight_scales, const uint16_t* mins, float* out) {
  Dot<Format> left[Rows], right[Rows];
  for (int r = 0; r < Rows; ++r) {
    left[r] = Dot<Format>::start(bias, sums[r]);
    right[r] = Dot<Format>::start(bias, sums[r]);
  }
  for (int line = 0; line < 8; ++line) {
    for (int r = 0; r < Rows; ++r) left[r].step(lines + 64 * line, codes + kGroup * r + 4 * line);
    for (int r = 0; r < Rows; ++r) right[r].step(lines + 512 + 64 * line, codes + kGroup * r + 4 * line);
  }
  const F32 left_scale = load_half(weight_scales), right_scale = load_half(weight_scales + 16);
  for (int r = 0; r < Rows; ++r) {
    const F32 scale = set1(scales[r]);
    float* row = out + kPanel * r;
    F32 left_sum = fma(from_int(left[r].finish()), mul(left_scale, scale), load(row));
    F32 right_sum = fma(from_int(right[r].finish()), mul(right_scale, scale), load(row + 16));
    if (mins) {
      const F32 offset = set1(scales[r] * static_cast<float>(sums[r]));
      left_sum = fma(load_half(mins), offset, left_sum);
      right_sum = fma(load_half(mins + 16), offset, right_sum);
    }
    store(row, left_sum);
    store(row + 16, right_sum);
  }
}

template <WeightFormat Format, int Rows>
static inline int64_t multiply_rows(int64_t row, int64_t num_rows, const uint8_t* lines, const int8_t* codes,
                                    const float* scales, const int32_t* sums, int32_t bias,
                                    const uint16_t* weight_scales, const uint16_t* mins, float* out) {
  for (; row + Rows <= num_rows; row += Rows)
    multiply_group<Format, Rows>(lines, codes + kGroup * row, scales + row, sums + row, bias, weight_scales, mins,
                                 out + kPanel * row);
  return row;
}

template <WeightFormat Format>
static void linear_panel_of(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row,
                            int64_t num_rows, float* out) {
  alignas(64) uint8_t expanded[kPanel * kGroup];
  const int64_t groups = matrix.columns / kGroup;
  const int64_t code_bytes = group_code_bytes(Format);
  const uint8_t* packed = matrix.codes + panel * groups * code_bytes;
  for (int64_t g = 0; g < groups; ++g, packed += code_bytes) {
    const uint8_t* lines = packed;
    for (int64_t ahead = 0; ahead < code_bytes; ahead += 64) prefetch(packed + 4 * code_bytes + ahead);
    if (Format == WeightFormat::kW4) {
      for (int half = 0; half < 2; ++half)
        for (int line = 0; line < 4; ++line)
          split_nibbles(packed + 256 * half + 64 * line, expanded + 512 * half + 64 * line,
                        expanded + 512 * half + 64 * (line + 4));
      lines = expanded;
    }
    const int64_t at = g * in.capacity + first_row;
    const int8_t* codes = in.codes + at * kGroup;
    const float* scales = in.scales + at;
    const int32_t* sums = in.sums + at;
    const int64_t scale_at = (panel * groups + g) * kPanel;
    const uint16_t* weight_scales = matrix.scales + scale_at;
    const uint16_t* mins = matrix.mins ? matrix.mins + scale_at : nullptr;
    int64_t row = 0;
    row = multiply_rows<Format, kTileRows>(row, num_rows, lines, codes, scales, sums, matrix.bias, weight_scales, mins,
                                           out);
    row = multiply_rows<Format, (kTileRows + 1) / 2>(row, num_rows, lines, codes, scales, sums, matrix.bias,
                                                     weight_scales, mins, out);
    multiply_rows<Format, 1>(row, num_rows, lines, codes, scales, sums, matrix.bias, weight_scales, mins, out);
  }
}

static void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row,
                         int64_t num_rows, float* out) {
  if (matrix.format == WeightFormat::kW4)
    linear_panel_of<WeightFormat::kW4>(matrix, panel, in, first_row, num_rows, out);
  else
    linear_panel_of<WeightFormat::kW8>(matrix, panel, in, first_row, num_rows, out);
}
