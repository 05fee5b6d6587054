#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "troupe/base/error.hpp"
#include "troupe/config/origin.hpp"

/// A model as Triton's repository describes it: what config.pbtxt says, completed, with the origin
/// of every field. `config/triton_message.hpp` (not installed) turns it into the protobuf message
/// `inference::ModelConfig` of proto/model_config.proto, for gRPC.

namespace troupe::config {

/// The types of tensors; the numbers are those of DataType in proto/model_config.proto.
enum class tensor_type : std::uint8_t {
  invalid,
  boolean,
  uint8,
  uint16,
  uint32,
  uint64,
  int8,
  int16,
  int32,
  int64,
  fp16,
  fp32,
  fp64,
  string,
  bf16,
};

/// As in config.pbtxt: "TYPE_BOOL", ..., "TYPE_STRING".
[[nodiscard]] std::string_view config_name(tensor_type type) noexcept;
/// As in KServe's protocols: "BOOL", ..., "BYTES"; "" for invalid.
[[nodiscard]] std::string_view wire_name(tensor_type type) noexcept;
/// The type called `name` on the wire, or invalid.
[[nodiscard]] tensor_type type_of_wire_name(std::string_view name) noexcept;
/// Bytes of one element; 0 for strings and invalid.
[[nodiscard]] std::uint32_t byte_size(tensor_type type) noexcept;

/// An input or an output.
struct tensor_config {
  std::string name;
  setting<tensor_type> type;
  /// Without the batch dimension; -1 is any length.
  setting<std::vector<std::int64_t>> dims;
  /// Of inputs only: a request may leave it out.
  setting<bool> optional;
  /// The shape that the backend sees in place of `dims`.
  setting<std::optional<std::vector<std::int64_t>>> reshape;
  bool is_shape_tensor = false;
  bool allow_ragged_batch = false;
  /// Of outputs only: names of classes, relative to the model's directory.
  std::string label_filename;
  /// Who declared the tensor: a file and line, or auto-completion.
  origin from;
};

enum class instance_kind : std::uint8_t { automatic, gpu, cpu, model };

struct instance_group {
  setting<std::string> name;
  setting<instance_kind> kind;
  /// Instances on each of `gpus`, or in all for the other kinds.
  setting<std::uint32_t> count{1, {}};
  setting<std::vector<std::uint32_t>> gpus;
};

/// What waits, and how long; how Triton's dynamic batcher says it.
struct queue_policy {
  /// A request whose time has passed is refused, or else only served after the others.
  bool reject = true;
  /// 0: no limit.
  std::uint64_t default_timeout_us = 0;
  bool allow_timeout_override = false;
  /// Requests that wait at most; 0: no limit of its own.
  std::uint32_t max_queue_size = 0;
};

/// `dynamic_batching`. The engine batches continuously, so that sizes and delays mean something to
/// libraries alone; limits, time-outs and priorities to both.
struct dynamic_batching {
  /// Sizes at which a batch goes at once, without waiting for more.
  std::vector<std::uint32_t> preferred_batch_sizes;
  /// How long the oldest request waits at most for others to fill a batch.
  std::uint64_t max_queue_delay_us = 0;
  std::uint64_t priority_levels = 0;
  std::uint64_t default_priority_level = 0;
  queue_policy default_queue_policy;
  std::map<std::uint64_t, queue_policy> priority_queue_policy;
  origin from;
};

/// One line of the completed configuration in protobuf's text format, and who said it.
struct config_line {
  /// Not in what the person wrote: completion added it.
  bool added = false;
  /// Indented by its depth.
  std::string text;
  /// As to_string(origin); empty where the line is only a bracket.
  std::string from;
};

/// Something of config.pbtxt that is accepted, answered and changes nothing here.
struct config_without_effect {
  /// E.g. "optimization".
  std::string field;
  origin from;
  std::string reason;
};

/// One model of a repository: which versions are served, and its completed configuration. A value:
/// nothing changes it after loading.
///
/// What a person wrote is kept word for word. A backend fills only what nobody wrote; a written
/// value that it cannot honour is a load error that names the field, both values, file and line.
struct triton_model {
  /// The directory's name in the repository, and what clients ask for.
  std::string name;
  std::filesystem::path directory;
  /// Empty when there is none.
  std::filesystem::path config_pbtxt;
  /// The versions that the policy chooses among those on disk, ascending; at least one. A request
  /// that names no version means the last.
  std::vector<std::uint64_t> versions;

  setting<std::string> backend;
  /// Empty unless written; the protocols then show the backend's name.
  setting<std::string> platform;
  /// 0: shapes are as declared. N: each tensor has a leading batch dimension of at most N.
  setting<std::uint32_t> max_batch_size;
  /// In the order of the file, then what completion added.
  std::vector<tensor_config> inputs;
  std::vector<tensor_config> outputs;
  /// A request may have any number of responses.
  setting<bool> decoupled;
  /// At least one.
  std::vector<instance_group> instance_groups;
  std::map<std::string, setting<std::string>> parameters;
  std::map<std::string, std::string> metric_tags;
  std::optional<config::dynamic_batching> dynamic_batching;
  setting<bool> response_cache;
  std::vector<config_without_effect> without_effect;
  /// The library of a backend that is no part of the program; empty for the engine.
  std::filesystem::path library;
  /// Of each of `versions`, which may have libraries of their own; empty for the engine.
  std::vector<std::filesystem::path> libraries;
  /// The backend that this library builds on, "troupe"; empty when it stands alone.
  std::string base;
  /// Parameters of requests that are the library's own.
  std::vector<std::string> own_parameters;

  /// The whole completed configuration, what is not above included, as the bytes of an
  /// inference::ModelConfig; equal configurations have equal bytes.
  std::string message;
  /// Who said each field, by its path: "max_batch_size", "input[0].dims", "parameters[\"KEY\"]". A
  /// field that is not here was said by nobody.
  std::map<std::string, origin> origins;
  /// The same for people, as a difference to what was written.
  std::vector<config_line> lines;

  [[nodiscard]] const tensor_config* find_input(std::string_view tensor) const noexcept;
  [[nodiscard]] const tensor_config* find_output(std::string_view tensor) const noexcept;
  /// The parameter's text, or "" when there is none.
  [[nodiscard]] std::string_view parameter(std::string_view key) const noexcept;

  /// JSON as GET /v2/models/<name>/config answers: all scalars are there, 64-bit integers are
  /// numbers, sub-messages that nobody set are absent.
  [[nodiscard]] std::string to_json() const;
  /// protobuf's text format, as it could stand in config.pbtxt.
  [[nodiscard]] std::string to_text() const;
};

/// True for the names that mean the built-in engine: "troupe" and "vllm".
[[nodiscard]] bool is_engine_backend(std::string_view backend) noexcept;

/// What a repository holds, before anything in it is read.
struct repository_listing {
  std::string name;
  /// All version directories, ascending; which of them are served, config.pbtxt says.
  std::vector<std::uint64_t> versions;
};

/// The models of a repository by name.
/// @errors not_found, io_failure: the directory cannot be listed; limit_exceeded
/// @cost   lists directories; reads no file
[[nodiscard]] result<std::vector<repository_listing>>
list_repository(const std::filesystem::path& repository);

/// A number that changes when a file of the model is added, removed or written: what the poll mode
/// compares. Weights outside of the model's directory do not count.
/// @errors not_found: there is no such model; io_failure; limit_exceeded: more than 65,536 files
/// @cost   one stat a file, at most 8 directories deep; reads no file
[[nodiscard]] result<std::uint64_t> fingerprint_model(const std::filesystem::path& repository,
                                                      std::string_view name);

} // namespace troupe::config
