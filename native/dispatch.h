// Which kernels run: the best instruction set the machine has, or the one that is asked for.
#pragma once
#include <string>
#include <vector>

#include "kernels.h"

namespace antiphon {

// Best first.
std::vector<const Kernels*> available_kernels();

// `name` is "auto" or an instruction set's name; throws std::invalid_argument, naming what there is.
const Kernels& choose_kernels(const std::string& name);

}  // namespace antiphon
