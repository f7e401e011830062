// The recorded model, and what it computes of sequences in a step.
#include "bindings.h"

#include <algorithm>

#include "program.h"

namespace antiphon {
namespace {

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

Table<float> last_logits(const PyProgram& self, int64_t vocabulary) {
  const auto logits = self.program.last_logits();
  const size_t columns = to_size(vocabulary);
  auto copy = new_table<float>(logits.size() / columns, columns);
  std::copy(logits.begin(), logits.end(), copy.data());
  return copy;
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<SequenceInput>(m, "SequenceInput", "What a step computes of one sequence.")
      .def(
          "__init__",
          [](SequenceInput* self, std::vector<int32_t> token_ids, int64_t first_position,
             std::vector<int32_t> block_table, std::vector<SampleRequest> samples) {
            new (self) SequenceInput{std::move(token_ids), first_position, std::move(block_table), std::move(samples)};
          },
          "token_ids"_a, "first_position"_a, "block_table"_a, "samples"_a,
          "`samples`: how to draw what follows each of the last tokens, in order.");
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

}  // namespace antiphon
