// The only file that knows Python: thin, typed wrappers; the lock is released wherever real work is done.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>

#include "dispatch.h"
#include "elementary.h"
#include "half.h"
#include "program.h"
#include "quantize.h"
#include "roofline.h"
#include "rotary.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace antiphon {
namespace {

using Table = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// A stored matrix together with the Python object that owns its bytes.
struct PyStoredMatrix {
  nb::object owner;
  StoredMatrix matrix;

  // Any object with a contiguous buffer; the type is one of GGUF's names.
  PyStoredMatrix(nb::object buffer, const std::string& type, int64_t rows, int64_t columns) : owner(std::move(buffer)) {
    Py_buffer bytes;
    if (PyObject_GetBuffer(owner.ptr(), &bytes, PyBUF_SIMPLE) != 0) throw nb::python_error();
    const auto* data = static_cast<const uint8_t*>(bytes.buf);
    const auto size = static_cast<size_t>(bytes.len);
    PyBuffer_Release(&bytes);
    matrix = stored_matrix(data, size, storage_type(type), rows, columns);
  }

  void dequantize(nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> out) const {
    if (static_cast<int64_t>(out.shape(0)) != matrix.rows || static_cast<int64_t>(out.shape(1)) != matrix.columns)
      throw std::invalid_argument("the output's shape differs from the matrix'");
    for (int64_t row = 0; row < matrix.rows; ++row)
      for (int64_t g = 0; g < matrix.columns / 32; ++g)
        dequantize_group(matrix.group(row, g), out.data() + row * matrix.columns + g * 32);
  }

  void dequantize_rows(const std::vector<int64_t>& rows,
                       nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> out) const {
    if (out.shape(0) < rows.size() || static_cast<int64_t>(out.shape(1)) != matrix.columns)
      throw std::invalid_argument("the output's shape does not fit the rows");
    float* to = out.data();
    for (const int64_t row : rows) {
      if (row < 0 || row >= matrix.rows) throw std::invalid_argument("the matrix has no such row");
      for (int64_t g = 0; g < matrix.columns / 32; ++g, to += 32) dequantize_group(matrix.group(row, g), to);
    }
  }

  bool has_codes() const { return storage_layout(matrix.type).code_bits > 0 || matrix.type == StorageType::kQ6_K; }

  // Codes without their zero points, and for each 16 values a scale and a minimum.
  std::tuple<nb::ndarray<nb::numpy, int8_t, nb::ndim<2>>, Table, Table> codes() const {
    if (!has_codes()) throw std::invalid_argument("this type has no codes");
    const size_t rows = to_size(matrix.rows), columns = to_size(matrix.columns), halves = columns / 16;
    auto* values = new int8_t[rows * columns];
    auto *scales = new float[rows * halves], *mins = new float[rows * halves];
    const nb::capsule value_owner(values, [](void* p) noexcept { delete[] static_cast<int8_t*>(p); });
    const auto owner = [](float* p) {
      return nb::capsule(p, [](void* q) noexcept { delete[] static_cast<float*>(q); });
    };
    const nb::capsule scale_owner = owner(scales), min_owner = owner(mins);
    {
      nb::gil_scoped_release release;
      int64_t at = 0;
      for (int64_t row = 0; row < matrix.rows; ++row)
        for (int64_t g = 0; g < matrix.columns / 32; ++g, ++at)
          split_group(matrix.group(row, g), values + 32 * at, scales + 2 * at, mins + 2 * at);
    }
    return {nb::ndarray<nb::numpy, int8_t, nb::ndim<2>>(values, {rows, columns}, value_owner),
            Table(scales, {rows, halves}, scale_owner), Table(mins, {rows, halves}, min_owner)};
  }
};

using ProgressCounter = nb::ndarray<uint64_t, nb::shape<1>, nb::c_contig, nb::device::cpu>;

// Threads and kernels, shared by packing and by programs; the counter that packing moves, and the memory of matrices.
struct Device {
  const Kernels& kernels;
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<Arena> arena = std::make_shared<Arena>();
  std::optional<ProgressCounter> counter;  // keeps its memory alive

  Device(const std::string& instruction_set, int threads, std::optional<ProgressCounter> progress_counter)
      : kernels(choose_kernels(instruction_set)),
        pool(std::make_shared<ThreadPool>(std::clamp(threads, 1, 1024))),
        counter(std::move(progress_counter)) {}

  Progress progress() const { return Progress(counter ? counter->data() : nullptr); }

  std::shared_ptr<PackedMatrix> pack(const std::vector<PyStoredMatrix>& parts, bool interleave) const {
    std::vector<StoredMatrix> stored;
    for (const PyStoredMatrix& part : parts) stored.push_back(part.matrix);
    nb::gil_scoped_release release;
    return std::make_shared<PackedMatrix>(stored, interleave, *pool, progress(), arena.get());
  }

  // The blocks, their error and the matrix' norm.
  std::tuple<nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>, double, double> quantize(
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

  void require_finite(const PyStoredMatrix& stored) const {
    nb::gil_scoped_release release;
    std::atomic<bool> finite{true};
    pool->run(stored.matrix.rows, [&](int64_t row, int) {
      if (!row_is_finite(stored.matrix, row)) finite = false;
      progress().note();
    });
    if (!finite) throw std::invalid_argument("holds a weight or a scale that is not a finite number");
  }
};

struct PyProgram {
  std::optional<ProgressCounter> counter;  // keeps its memory alive
  std::vector<nb::object> owners;          // and the embedding's
  Program program;

  PyProgram(const Device& device, const ProgramShape& shape, std::optional<ProgressCounter> progress_counter)
      : counter(std::move(progress_counter)),
        program(shape, device.kernels, device.pool, Progress(counter ? counter->data() : nullptr)) {}

  void embed(const PyStoredMatrix& table, int out) {
    owners.push_back(table.owner);
    program.embed(table.matrix, out);
  }
};

template <class T>
using Array1 = nb::ndarray<nb::numpy, const T, nb::ndim<1>>;

// A view of a part of a packed matrix; a property's result keeps its object alive.
template <class T>
Array1<T> part_of(const T* data, int64_t size) {
  return {data, {to_size(data ? size : 0)}};
}

int64_t num_groups(const PackedMatrix& matrix) { return matrix.num_panels() * (matrix.view().columns / kGroup); }

std::tuple<Table, Table> rotary_tables(const std::vector<double>& frequencies, double factor, int64_t positions) {
  if (positions < 0) throw std::invalid_argument("there must be 0 positions or more");
  for (const double frequency : frequencies)
    if (!(std::abs(frequency) * static_cast<double>(positions) <= kLargestAngle))
      throw std::invalid_argument("a rotary frequency must stay below 2^25 radians within the positions");
  const size_t size = to_size(positions) * frequencies.size();
  auto *cosines = new float[size], *sines = new float[size];
  const auto owner = [](float* values) {
    return nb::capsule(values, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  };
  const nb::capsule cosine_owner = owner(cosines), sine_owner = owner(sines);
  fill_rotary_tables(frequencies, factor, 0, positions, cosines, sines);
  return {Table(cosines, {to_size(positions), frequencies.size()}, cosine_owner),
          Table(sines, {to_size(positions), frequencies.size()}, sine_owner)};
}

// Draws a token from each row, as a program does from its own logits.
std::vector<SampleOutcome> sample_rows(const Device& device,
                                       nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> logits,
                                       const std::vector<SampleRequest>& requests) {
  const auto vocabulary = static_cast<int64_t>(logits.shape(1));
  if (logits.shape(0) < requests.size()) throw std::invalid_argument("there are fewer rows of logits than requests");
  for (const SampleRequest& request : requests)
    if (request.sampling == nullptr) throw std::invalid_argument("a token is to be drawn, but not how");
  std::vector<SampleOutcome> outcomes(requests.size());
  nb::gil_scoped_release release;
  device.pool->run(std::ssize(requests), [&](int64_t row, int) {
    float* values = logits.data() + row * vocabulary;
    std::vector<ShardSummary> shards;
    for (int64_t begin = 0; begin < vocabulary; begin += kShard)
      shards.push_back(device.kernels.summarize(values + begin, std::min(kShard, vocabulary - begin)));
    RowSampler sampler(device.kernels, values, shards.data(), vocabulary);
    outcomes[to_size(row)] = sampler.sample(requests[to_size(row)]);
    device.progress().note();
  });
  return outcomes;
}

ProgramShape make_shape(int64_t max_tokens, int64_t max_sequences, int64_t vocabulary, int64_t num_layers,
                        int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t context_length,
                        int64_t num_blocks, const std::string& kv_type, std::vector<double> rope_frequencies,
                        double rope_attention_factor) {
  if (kv_type != "int8" && kv_type != "f16") throw std::invalid_argument("kv_type must be int8 or f16");
  ProgramShape shape;
  shape.max_tokens = max_tokens;
  shape.max_sequences = max_sequences;
  shape.vocabulary = vocabulary;
  shape.num_layers = num_layers;
  shape.num_heads = num_heads;
  shape.num_kv_heads = num_kv_heads;
  shape.head_dim = head_dim;
  shape.context_length = context_length;
  shape.num_blocks = num_blocks;
  shape.kv_type = kv_type == "int8" ? KvType::kInt8 : KvType::kHalf;
  shape.rope_frequencies = std::move(rope_frequencies);
  shape.rope_attention_factor = rope_attention_factor;
  return shape;
}

std::vector<SampleOutcome> run(PyProgram& self, const std::vector<SequenceInput>& sequences) {
  nb::gil_scoped_release release;
  return self.program.run(sequences);
}

constexpr const char* kPhaseNames[kNumPhases] = {"linear", "attention", "head", "sampling", "rest"};  // as in StepPhase

std::map<std::string, double> last_seconds(const PyProgram& self) {
  std::map<std::string, double> seconds;
  for (size_t i = 0; i < kNumPhases; ++i) seconds[kPhaseNames[i]] = self.program.last_seconds()[i];
  return seconds;
}

std::vector<std::tuple<std::string, int64_t>> last_loops(const PyProgram& self) {
  std::vector<std::tuple<std::string, int64_t>> loops;
  for (const StepLoop& loop : self.program.last_loops())
    loops.emplace_back(kPhaseNames[static_cast<size_t>(loop.phase)], loop.num_tasks);
  return loops;
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> last_logits(const PyProgram& self, int64_t vocabulary) {
  const auto logits = self.program.last_logits();
  auto* copy = new float[logits.size()];
  std::copy(logits.begin(), logits.end(), copy);
  nb::capsule owner(copy, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return {copy, {logits.size() / static_cast<size_t>(vocabulary), static_cast<size_t>(vocabulary)}, owner};
}

void put_biases(const std::map<int32_t, float>& logit_bias, std::vector<int32_t>& token_ids,
                std::vector<float>& values) {
  for (const auto& [token_id, bias] : logit_bias) {
    token_ids.push_back(token_id);
    values.push_back(bias);
  }
}

void bind_inputs(nb::module_& m) {
  nb::class_<SequenceSampling>(m, "SequenceSampling",
                               "How the tokens of one sequence are drawn; the fields are those of "
                               "request.SamplingParams. Registered once, then told of each token that penalties count.")
      .def(
          "__init__",
          [](SequenceSampling* self, float temperature, int32_t top_k, float top_p, float min_p,
             float repetition_penalty, float presence_penalty, float frequency_penalty, uint64_t seed,
             uint32_t choice_index, int32_t num_logprobs, const std::map<int32_t, float>& logit_bias) {
            new (self) SequenceSampling{temperature,
                                        top_k,
                                        top_p,
                                        min_p,
                                        repetition_penalty,
                                        presence_penalty,
                                        frequency_penalty,
                                        seed,
                                        choice_index,
                                        num_logprobs,
                                        {},
                                        {},
                                        {}};
            put_biases(logit_bias, self->bias_token_ids, self->bias_values);
          },
          nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0f, "min_p"_a = 0.0f,
          "repetition_penalty"_a = 1.0f, "presence_penalty"_a = 0.0f, "frequency_penalty"_a = 0.0f, "seed"_a = 0,
          "choice_index"_a = 0, "num_logprobs"_a = -1, "logit_bias"_a = std::map<int32_t, float>{})
      .def(
          "count",
          [](SequenceSampling& self, const std::vector<int32_t>& token_ids, bool generated) {
            self.known_tokens.add(token_ids, generated);
          },
          "token_ids"_a, "generated"_a, "Count tokens that the sequence knows from now on.")
      .def_ro("top_k", &SequenceSampling::top_k)
      .def_ro("seed", &SequenceSampling::seed)
      .def_ro("repetition_penalty", &SequenceSampling::repetition_penalty)
      .def_prop_ro(
          "token_counts",
          [](const SequenceSampling& self) {
            std::map<int32_t, int32_t> counts;
            for (const TokenCounts::Count& known : self.known_tokens.counts()) counts[known.token_id] = known.generated;
            return counts;
          },
          "The known tokens, and how often each was generated.");
  nb::class_<SampleRequest>(m, "SampleRequest", "How to draw one token of a sequence.")
      .def(
          "__init__",
          [](SampleRequest* self, std::shared_ptr<SequenceSampling> sampling, uint64_t position,
             std::vector<int32_t> masked_token_ids, const std::map<int32_t, float>& logit_bias,
             const nb::bytes& token_bitmask) {
            if (token_bitmask.size() % sizeof(uint32_t)) throw std::invalid_argument("a token bitmask has whole words");
            new (self) SampleRequest{std::move(sampling), position, std::move(masked_token_ids), {}, {}, {}};
            put_biases(logit_bias, self->bias_token_ids, self->bias_values);
            self->token_bitmask.resize(token_bitmask.size() / sizeof(uint32_t));
            std::memcpy(self->token_bitmask.data(), token_bitmask.data(), token_bitmask.size());
          },
          "sampling"_a, "position"_a, "masked_token_ids"_a = std::vector<int32_t>{},
          "logit_bias"_a = std::map<int32_t, float>{}, "token_bitmask"_a = nb::bytes("", 0),
          "`logit_bias` replaces that of the sequence for the same tokens. `token_bitmask`: bytes with a bit for each "
          "token, the lowest first: whether it may be drawn; empty: every token may.");
  nb::class_<SequenceInput>(m, "SequenceInput", "What a step computes of one sequence.")
      .def(
          "__init__",
          [](SequenceInput* self, std::vector<int32_t> token_ids, int64_t first_position,
             std::vector<int32_t> block_table, std::vector<SampleRequest> samples) {
            new (self) SequenceInput{std::move(token_ids), first_position, std::move(block_table), std::move(samples)};
          },
          "token_ids"_a, "first_position"_a, "block_table"_a, "samples"_a,
          "`samples`: how to draw what follows each of the last tokens, in order.");
  nb::class_<SampleOutcome>(m, "SampleOutcome", "A drawn token, or token_id -1 and why none could be drawn.")
      .def_ro("token_id", &SampleOutcome::token_id)
      .def_prop_ro(
          "error",
          [](const SampleOutcome& self) { return self.error ? std::optional<std::string>(self.error) : std::nullopt; })
      .def_ro("logprob", &SampleOutcome::logprob)
      .def_ro("top_token_ids", &SampleOutcome::top_token_ids)
      .def_ro("top_logprobs", &SampleOutcome::top_logprobs);
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

// Memory to read and threads that read it; for benchmarks.
struct Roofline {
  std::string instruction_set;
  std::shared_ptr<ThreadPool> pool;
  MemoryReader reader;

  Roofline(const Device& device, size_t bytes)
      : instruction_set(device.kernels.name), pool(device.pool), reader(bytes, *pool) {}
};

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

void bind_program(nb::module_& m) {
  nb::class_<ProgramShape>(m, "ProgramShape", "Every size a program needs to know.")
      .def(
          "__init__",
          [](ProgramShape* self, int64_t max_tokens, int64_t max_sequences, int64_t vocabulary, int64_t num_layers,
             int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t context_length, int64_t num_blocks,
             const std::string& kv_type, std::vector<double> rope_frequencies, double rope_attention_factor) {
            new (self) ProgramShape(make_shape(max_tokens, max_sequences, vocabulary, num_layers, num_heads,
                                               num_kv_heads, head_dim, context_length, num_blocks, kv_type,
                                               std::move(rope_frequencies), rope_attention_factor));
          },
          nb::kw_only(), "max_tokens"_a, "max_sequences"_a, "vocabulary"_a, "num_layers"_a, "num_heads"_a,
          "num_kv_heads"_a, "head_dim"_a, "context_length"_a, "num_blocks"_a, "kv_type"_a, "rope_frequencies"_a,
          "rope_attention_factor"_a = 1.0);
  nb::class_<PyProgram>(m, "Program", "A recorded model; see native/program.h.")
      .def(nb::init<const Device&, const ProgramShape&, std::optional<ProgressCounter>>(), "device"_a, "shape"_a,
           "progress"_a.none())
      .def(
          "float_buffer",
          [](PyProgram& p, int64_t width, bool sampled) { return p.program.float_buffer(width, sampled); }, "width"_a,
          "sampled"_a)
      .def(
          "quantized_buffer",
          [](PyProgram& p, int64_t width, bool sampled, bool wide) {
            return p.program.quantized_buffer(width, sampled, wide);
          },
          "width"_a, "sampled"_a, "wide"_a)
      .def("embed", &PyProgram::embed, "table"_a, "out"_a)
      .def(
          "reorder",
          [](PyProgram& p, int in, std::vector<int32_t> order, int out) {
            p.program.reorder(in, std::move(order), out);
          },
          "source"_a, "order"_a, "out"_a, "Columns in another order: column i of out is column order[i].")
      .def(
          "rms_norm",
          [](PyProgram& p, int in, std::vector<float> weight, float epsilon, int out) {
            p.program.rms_norm(in, std::move(weight), epsilon, out);
          },
          "source"_a, "weight"_a, "epsilon"_a, "out"_a)
      .def(
          "linear",
          [](PyProgram& p, int in, std::shared_ptr<PackedMatrix> matrix, std::vector<float> bias, int out,
             bool accumulate, int64_t first_column) {
            p.program.linear(in, std::move(matrix), std::move(bias), out, accumulate, first_column);
          },
          "source"_a, "matrix"_a, "bias"_a, "out"_a, "accumulate"_a, "first_column"_a = 0)
      .def(
          "linear_silu_mul",
          [](PyProgram& p, int in, std::shared_ptr<PackedMatrix> matrix, int out) {
            p.program.linear_silu_mul(in, std::move(matrix), out);
          },
          "source"_a, "matrix"_a, "out"_a)
      .def(
          "attention",
          [](PyProgram& p, int qkv, int64_t layer, int out, std::vector<float> query_norm, std::vector<float> key_norm,
             float epsilon, const std::vector<float>& key_bias) {
            p.program.attention(qkv, layer, out, {std::move(query_norm), std::move(key_norm), epsilon}, key_bias);
          },
          "qkv"_a, "layer"_a, "out"_a, "query_norm"_a, "key_norm"_a, "epsilon"_a, "key_bias"_a = std::vector<float>{},
          "Causal attention. The norms of query and key heads are empty in models without them. `key_bias`, "
          "[num_kv_heads "
          "* head_dim] or empty: what the keys in `qkv` lack and the scores are to have.")
      .def(
          "select_rows", [](PyProgram& p, int in, int out) { p.program.select_rows(in, out); }, "source"_a, "out"_a)
      .def(
          "logits",
          [](PyProgram& p, int in, std::shared_ptr<PackedMatrix> matrix) { p.program.logits(in, std::move(matrix)); },
          "source"_a, "matrix"_a)
      .def("run", &run, "sequences"_a, "One step; an outcome for each sample, in order. Releases the lock.")
      .def("last_logits", &last_logits, "vocabulary"_a,
           "The logits of the last step's last sampled rows, float32 [at most max_sequences, vocabulary].")
      .def_prop_ro("last_seconds", &last_seconds, "What each part of the last step took, in seconds.")
      .def_prop_ro("last_loops", &last_loops,
                   "The parallel loops of the last step, in order: the part of the step, and the number of tasks.")
      .def_prop_ro("head_dim", [](const PyProgram& p) { return p.program.shape().head_dim; })
      .def_prop_ro("num_kv_heads", [](const PyProgram& p) { return p.program.shape().num_kv_heads; })
      .def_prop_ro("has_int8_kv", [](const PyProgram& p) { return p.program.shape().kv_type == KvType::kInt8; })
      .def_prop_ro("block_bytes", [](const PyProgram& p) { return p.program.block_bytes(); });
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
  m.def("uniform_draw", &uniform_draw, "seed"_a, "choice_index"_a, "position"_a,
        "The random number of one draw, in [0, 1).");
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
  bind_inputs(m);
  bind_weights(m);
  bind_program(m);
  m.def("sample_rows", &sample_rows, "device"_a, "logits"_a, "requests"_a,
        "Draw a token from each row of logits, float32 [at least len(requests), vocabulary], which penalties and masks "
        "change. Releases the lock.");
  bind_roofline(m);
}
