#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "troupe/config/triton.hpp"

/// What passes between the reader of a repository and whoever can open libraries: a backend that is
/// no part of the program is asked what its model needs while the model is read, so that `check`
/// shows it and what a person wrote still wins.

namespace troupe::config {

/// A model whose config.pbtxt names a backend that the program does not have.
struct backend_question {
  std::string backend;
  std::string model;
  std::filesystem::path model_directory;
  /// The highest that the policy chooses.
  std::uint64_t version = 0;
  /// The cluster's `backend_directory`; empty: the program's own.
  std::filesystem::path backend_directory;
  std::map<std::string, std::string> parameters;
};

/// A tensor that a backend reads or writes.
struct needed_tensor {
  std::string name;
  tensor_type type = tensor_type::invalid;
  std::vector<std::int64_t> dims;
  bool optional = false;
};

/// The answer.
struct backend_needs {
  /// The library that serves the model.
  std::filesystem::path library;
  /// Of a hybrid: the backend of the program that it builds on, whose tensors and arguments it has.
  std::string base;
  /// Of a hybrid: keys of model.json, and parameters of requests, that are its own.
  std::vector<std::string> own_keys;
  std::vector<std::string> own_parameters;
  std::vector<needed_tensor> inputs;
  std::vector<needed_tensor> outputs;
  /// The largest batch that it takes; empty: any.
  std::optional<std::uint32_t> max_batch_size;
  std::optional<bool> decoupled;
  /// It wants batches made where nobody chose how requests are given out.
  bool dynamic_batching = false;
};

} // namespace troupe::config
