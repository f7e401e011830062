// The module itself, and functions without a class.
#include "bindings.h"

#include <cmath>

#include "elementary.h"
#include "half.h"
#include "rotary.h"

namespace antiphon {
namespace {

std::tuple<Table<float>, Table<float>> rotary_tables(const std::vector<double>& frequencies, double factor,
                                                     int64_t positions) {
  if (positions < 0) throw std::invalid_argument("there must be 0 positions or more");
  for (const double frequency : frequencies)
    if (!(std::abs(frequency) * static_cast<double>(positions) <= kLargestAngle))
      throw std::invalid_argument("a rotary frequency must stay below 2^25 radians within the positions");
  auto cosines = new_table<float>(to_size(positions), frequencies.size());
  auto sines = new_table<float>(to_size(positions), frequencies.size());
  fill_rotary_tables(frequencies, factor, 0, positions, cosines.data(), sines.data());
  return {cosines, sines};
}

}  // namespace
}  // namespace antiphon

NB_MODULE(_native, m) {
  using namespace antiphon;
  m.doc() = "Antiphon's native kernels and the program that replays them.";
  m.attr("GROUP") = kGroup;
  m.attr("BLOCK_TOKENS") = kBlockTokens;
  m.def(
      "instruction_sets",
      [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
        return names;
      },
      "Instruction sets this machine can run, best first.");
  m.def(
      "sine_cosine",
      [](double angle) {
        if (!(std::abs(angle) <= kLargestAngle)) throw std::invalid_argument("the angle must be at most 2^25");
        const SineCosine turn = sine_cosine(angle);
        return std::tuple(turn.sine, turn.cosine);
      },
      "angle"_a, "Of an angle in radians, at most 2^25; as in the rotary tables.");
  m.def(
      "natural_logarithm",
      [](double x) {
        if (!std::isnormal(x) || x < 0.0) throw std::invalid_argument("the number must be positive, finite and normal");
        return natural_logarithm(x);
      },
      "x"_a, "Of a positive, finite, normal number; as in log-probabilities.");
  m.def("fused_multiply_add", &fused_multiply_add, "a"_a, "b"_a, "c"_a,
        "a * b + c of float32 numbers, rounded once; as the plain C++ kernels compute it.");
  m.def("rotary_tables", &rotary_tables, "frequencies"_a, "factor"_a, "positions"_a,
        "Cosines and sines of the angles of positions 0, 1, …, times `factor`, each float32 [positions, frequencies]; "
        "frequencies in radians a position.");
  m.def("half_to_float", &half_to_float, "bits"_a);
  m.def("float_to_half", &float_to_half, "value"_a);
  bind_sampling(m);
  bind_weights(m);
  bind_program(m);
  bind_roofline(m);
}
