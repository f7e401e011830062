// AMX's vector layer: AVX-512's, and a matrix product of its own on tiles.
#pragma once
#include "../avx512/vector.h"
#include "linear_panel.h"

#define ANTIPHON_HAS_OWN_LINEAR_PANEL

namespace antiphon::ANTIPHON_AMX {
using namespace avx512;
}  // namespace antiphon::ANTIPHON_AMX
