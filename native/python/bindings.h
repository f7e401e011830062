// What the files of this folder share. Only they know Python: thin, typed wrappers; the lock is released wherever real
// work is done.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "packed_matrix.h"
#include "progress.h"
#include "storage.h"
#include "thread_pool.h"

namespace antiphon {

namespace nb = nanobind;
using nb::literals::operator""_a;

template <class T>
using Table = nb::ndarray<nb::numpy, T, nb::ndim<2>>;
using FloatTable = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ProgressCounter = nb::ndarray<uint64_t, nb::shape<1>, nb::c_contig, nb::device::cpu>;

// A new array of a shape, which frees its memory.
template <class T>
Table<T> new_table(size_t rows, size_t columns) {
  auto values = std::make_unique<T[]>(rows * columns);
  const nb::capsule owner(values.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return {values.release(), {rows, columns}, owner};
}

// A stored matrix together with the Python object that owns its bytes.
struct PyStoredMatrix {
  nb::object owner;
  StoredMatrix matrix;

  // Any object with a contiguous buffer; the type is one of GGUF's names.
  PyStoredMatrix(nb::object buffer, const std::string& type, int64_t rows, int64_t columns);

  void dequantize(FloatTable out) const;
  void dequantize_rows(const std::vector<int64_t>& rows, FloatTable out) const;
  bool has_codes() const;
  // Codes without their zero points, and for each 16 values a scale and a minimum.
  std::tuple<Table<int8_t>, Table<float>, Table<float>> codes() const;
};

// Threads and kernels, shared by packing and by programs; the counter that packing moves, and the memory of matrices.
struct Device {
  const Kernels& kernels;
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<Arena> arena = std::make_shared<Arena>();
  std::optional<ProgressCounter> counter;  // keeps its memory alive

  Device(const std::string& instruction_set, int threads, std::optional<ProgressCounter> progress_counter);

  Progress progress() const { return Progress(counter ? counter->data() : nullptr); }
  std::shared_ptr<PackedMatrix> pack(const std::vector<PyStoredMatrix>& parts, bool interleave) const;
  // The blocks, their error and the matrix' norm.
  std::tuple<nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>, double, double> quantize(
      const PyStoredMatrix& stored, const std::string& type, const std::vector<float>& importance) const;
  void require_finite(const PyStoredMatrix& stored) const;
};

// Each adds its classes and functions to the module.
void bind_sampling(nb::module_& m);
void bind_weights(nb::module_& m);
void bind_program(nb::module_& m);
void bind_roofline(nb::module_& m);

}  // namespace antiphon
