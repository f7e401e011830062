// What the machine can do at best.
#include "bindings.h"

#include "roofline.h"

namespace antiphon {
namespace {

// Memory to read and threads that read it; for benchmarks.
struct Roofline {
  std::string instruction_set;
  std::shared_ptr<ThreadPool> pool;
  MemoryReader reader;

  Roofline(const Device& device, size_t bytes)
      : instruction_set(device.kernels.name), pool(device.pool), reader(bytes, *pool) {}
};

}  // namespace

void bind_roofline(nb::module_& m) {
  nb::class_<Roofline>(m, "Roofline", "What this machine can do at best, measured; for benchmarks.")
      .def(nb::init<const Device&, size_t>(), "device"_a, "num_bytes"_a = size_t{512} << 20)
      .def(
          "bytes_per_second", [](const Roofline& self) { return self.reader.bytes_per_second(*self.pool); },
          nb::call_guard<nb::gil_scoped_release>(), "The rate of one pass over num_bytes of memory, all threads.")
      .def(
          "products_per_second",
          [](const Roofline& self, double seconds) {
            return products_per_second(self.instruction_set, seconds, *self.pool);
          },
          nb::call_guard<nb::gil_scoped_release>(), "seconds"_a = 0.05,
          "Products of 8-bit integers, added up in registers by the device's instruction set, all threads.")
      .def(
          "seconds_per_loop", [](const Roofline& self) { return seconds_per_loop(*self.pool); },
          nb::call_guard<nb::gil_scoped_release>(), "What handing over from one parallel loop to the next takes.");
}

}  // namespace antiphon
