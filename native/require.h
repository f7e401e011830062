// Checks of what callers hand over.
#pragma once
#include <stdexcept>
#include <string>

namespace antiphon {

[[noreturn]] inline void refuse(const std::string& what) { throw std::invalid_argument(what); }

// Throws std::invalid_argument(what) unless the condition holds.
inline void require(bool holds, const char* what) {
  if (!holds) refuse(what);
}

}  // namespace antiphon
