// Matrices: as a checkpoint stores them, and in the kernels' layout.
#include "bindings.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "quantize.h"

namespace antiphon {
namespace {

template <class T>
using Array1 = nb::ndarray<nb::numpy, const T, nb::ndim<1>>;

// A view of a part of a packed matrix; a property's result keeps its object alive.
template <class T>
Array1<T> part_of(const T* data, int64_t size) {
  return {data, {to_size(data ? size : 0)}};
}

int64_t num_groups(const PackedMatrix& matrix) { return matrix.num_panels() * (matrix.view().columns / kGroup); }

}  // namespace

PyStoredMatrix::PyStoredMatrix(nb::object buffer, const std::string& type, int64_t rows, int64_t columns)
    : owner(std::move(buffer)) {
  Py_buffer bytes;
  if (PyObject_GetBuffer(owner.ptr(), &bytes, PyBUF_SIMPLE) != 0) throw nb::python_error();
  const auto* data = static_cast<const uint8_t*>(bytes.buf);
  const auto size = static_cast<size_t>(bytes.len);
  PyBuffer_Release(&bytes);
  matrix = stored_matrix(data, size, storage_type(type), rows, columns);
}

void PyStoredMatrix::dequantize(FloatTable out) const {
  if (static_cast<int64_t>(out.shape(0)) != matrix.rows || static_cast<int64_t>(out.shape(1)) != matrix.columns)
    throw std::invalid_argument("the output's shape differs from the matrix'");
  for (int64_t row = 0; row < matrix.rows; ++row)
    for (int64_t g = 0; g < matrix.columns / kGroup; ++g)
      dequantize_group(matrix.group(row, g), out.data() + row * matrix.columns + g * kGroup);
}

void PyStoredMatrix::dequantize_rows(const std::vector<int64_t>& rows, FloatTable out) const {
  if (out.shape(0) < rows.size() || static_cast<int64_t>(out.shape(1)) != matrix.columns)
    throw std::invalid_argument("the output's shape does not fit the rows");
  float* to = out.data();
  for (const int64_t row : rows) {
    if (row < 0 || row >= matrix.rows) throw std::invalid_argument("the matrix has no such row");
    for (int64_t g = 0; g < matrix.columns / kGroup; ++g, to += kGroup) dequantize_group(matrix.group(row, g), to);
  }
}

bool PyStoredMatrix::has_codes() const {
  return storage_layout(matrix.type).code_bits > 0 || matrix.type == StorageType::kQ6_K;
}

std::tuple<Table<int8_t>, Table<float>, Table<float>> PyStoredMatrix::codes() const {
  if (!has_codes()) throw std::invalid_argument("this type has no codes");
  const size_t rows = to_size(matrix.rows), columns = to_size(matrix.columns), halves = columns / 16;
  auto codes = new_table<int8_t>(rows, columns);
  auto scales = new_table<float>(rows, halves), mins = new_table<float>(rows, halves);
  {
    nb::gil_scoped_release release;
    int64_t at = 0;
    for (int64_t row = 0; row < matrix.rows; ++row)
      for (int64_t g = 0; g < matrix.columns / kGroup; ++g, ++at)
        split_group(matrix.group(row, g), codes.data() + kGroup * at, scales.data() + 2 * at, mins.data() + 2 * at);
  }
  return {codes, scales, mins};
}

Device::Device(const std::string& instruction_set, int threads, std::optional<ProgressCounter> progress_counter)
    : kernels(choose_kernels(instruction_set)),
      pool(std::make_shared<ThreadPool>(std::clamp(threads, 1, 1024))),
      counter(std::move(progress_counter)) {}

std::shared_ptr<PackedMatrix> Device::pack(const std::vector<PyStoredMatrix>& parts, bool interleave) const {
  std::vector<StoredMatrix> stored;
  for (const PyStoredMatrix& part : parts) stored.push_back(part.matrix);
  nb::gil_scoped_release release;
  return std::make_shared<PackedMatrix>(stored, interleave, *pool, progress(), arena.get());
}

std::tuple<nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>, double, double> Device::quantize(
    const PyStoredMatrix& stored, const std::string& type, const std::vector<float>& importance) const {
  const StorageType target = storage_type(type);
  auto quantized = std::make_unique<QuantizedMatrix>();
  {
    nb::gil_scoped_release release;
    *quantized = quantize_matrix(stored.matrix, target, importance, kernels, *pool, progress());
  }
  const Memory& blocks = quantized->blocks;
  const double error = quantized->error, norm = quantized->norm;
  uint8_t* data = blocks.as<uint8_t>();
  const size_t size = blocks.bytes();
  nb::capsule owner(quantized.release(), [](void* p) noexcept { delete static_cast<QuantizedMatrix*>(p); });
  return {nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(data, {size}, owner), error, norm};
}

void Device::require_finite(const PyStoredMatrix& stored) const {
  nb::gil_scoped_release release;
  std::atomic<bool> finite{true};
  pool->run(stored.matrix.rows, [&](int64_t row, int) {
    if (!row_is_finite(stored.matrix, row)) finite = false;
    progress().note();
  });
  if (!finite) throw std::invalid_argument("holds a weight or a scale that is not a finite number");
}

void bind_weights(nb::module_& m) {
  nb::class_<PyStoredMatrix>(m, "StoredMatrix", "A matrix as a checkpoint stores it; keeps the buffer alive.")
      .def(nb::init<nb::object, const std::string&, int64_t, int64_t>(), "buffer"_a, "type"_a, "rows"_a, "columns"_a)
      .def_prop_ro("rows", [](const PyStoredMatrix& self) { return self.matrix.rows; })
      .def_prop_ro("columns", [](const PyStoredMatrix& self) { return self.matrix.columns; })
      .def("dequantize", &PyStoredMatrix::dequantize, "out"_a, "Write all values to `out`, float32 [rows, columns].")
      .def("dequantize_rows", &PyStoredMatrix::dequantize_rows, "rows"_a, "out"_a,
           "Write the values of some rows to the first rows of `out`, float32 [at least len(rows), columns].")
      .def_prop_ro("has_codes", &PyStoredMatrix::has_codes, "Whether `codes` can be called: not for floats.")
      .def("codes", &PyStoredMatrix::codes,
           "Codes, int8 [rows, columns], and for each 16 of them a scale and a minimum, float32 [rows, columns / 16]: "
           "a value is scale * code + minimum.");
  nb::class_<PackedMatrix>(m, "PackedMatrix", "A weight matrix in the kernels' layout.")
      .def_prop_ro("num_bytes", &PackedMatrix::bytes)
      .def_prop_ro("format", &PackedMatrix::format_name)
      .def_prop_ro("rows", [](const PackedMatrix& self) { return self.view().rows; })
      .def_prop_ro("columns", [](const PackedMatrix& self) { return self.view().columns; })
      .def_prop_ro("zero_point", [](const PackedMatrix& self) { return self.view().zero_point; })
      .def_prop_ro(
          "codes",
          [](const PackedMatrix& self) {
            const PackedView view = self.view();
            return part_of(view.codes, num_groups(self) * group_code_bytes(view.format));
          },
          "The codes of all panels, uint8, in the order of native/kernels.h (PackedView).")
      .def_prop_ro(
          "scales", [](const PackedMatrix& self) { return part_of(self.view().scales, num_groups(self) * kPanel); },
          "The scales as bits of half precision, uint16 [panels * groups * 32].")
      .def_prop_ro(
          "mins", [](const PackedMatrix& self) { return part_of(self.view().mins, num_groups(self) * kPanel); },
          "The mins, like the scales; empty where the format has none.")
      .def("row_energies", &PackedMatrix::row_energies, "first_row"_a, "count"_a, "factors"_a,
           "The sum of (weight * factor)² of each of `count` rows; `factors`: one for each column.");
  nb::class_<Device>(m, "Device", "Threads and the kernels of one instruction set ('auto': the best there is).")
      .def(nb::init<const std::string&, int, std::optional<ProgressCounter>>(), "instruction_set"_a, "threads"_a,
           "progress"_a = nb::none(),
           "`progress`: one number that grows with every piece of work done. RuntimeError: threads could not be "
           "started.")
      .def("pack", &Device::pack, "parts"_a, "interleave"_a = false,
           "Pack stored matrices, rows one after the other, or two in alternate panels of 32 rows.")
      .def("quantize", &Device::quantize, "matrix"_a, "type"_a, "importance"_a = std::vector<float>{},
           "The matrix as blocks of Q4_0, Q4_1 or Q8_0, the importance-weighted sum of its squared errors, and that of "
           "its squared weights. `importance`: one number for each column.")
      .def("require_finite", &Device::require_finite, "matrix"_a, "Raise ValueError unless every value is finite.")
      .def_prop_ro("instruction_set", [](const Device& self) { return self.kernels.name; })
      .def_prop_ro("threads", [](const Device& self) { return self.pool->size(); });
}

}  // namespace antiphon
