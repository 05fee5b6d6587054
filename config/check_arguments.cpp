#include <fmt/core.h>

#include "config/model_reader.hpp"
#include "config/reader.hpp"

namespace troupe::config {

namespace {

bool is_default(const origin& from) { return from.kind == origin_kind::default_value; }

/// A step must hold one token of each running sequence.
void check_step(model_config& model, diagnostic_sink& sink) {
  auto& e = model.engine;
  const auto path = join_path("models", model.name);
  if (!*e.max_num_batched_tokens)
    return;
  const auto tokens = **e.max_num_batched_tokens;
  const auto& said = e.max_num_batched_tokens.from;
  if (tokens < *e.max_num_seqs && is_default(e.max_num_seqs.from))
    e.max_num_seqs = {tokens, {origin_kind::default_value, "", 0, "max_num_batched_tokens"}};
  if (tokens < *e.max_num_seqs)
    sink.error(errc::conflict, said, join_path(path, "max_num_batched_tokens"),
               fmt::format("{} (by {}) is less than max_num_seqs {} (by {}), but a step holds a "
                           "token of every running sequence; raise the one or lower the other",
                           tokens, to_string(said), *e.max_num_seqs,
                           to_string(e.max_num_seqs.from)));
  if (!*e.enable_chunked_prefill && *e.max_model_len && tokens < **e.max_model_len)
    sink.error(errc::conflict, said, join_path(path, "max_num_batched_tokens"),
               fmt::format("{} (by {}) is less than max_model_len {} (by {}), but without "
                           "enable_chunked_prefill a prompt is one step; raise it, or allow chunks",
                           tokens, to_string(said), **e.max_model_len,
                           to_string(e.max_model_len.from)));
}

} // namespace

void check_arguments(model_config& model, const build_capabilities& can, diagnostic_sink& sink) {
  auto& e = model.engine;
  const auto path = join_path("models", model.name);
  check_step(model, sink);
  const auto ranks = *e.tensor_parallel_size;
  if (ranks <= can.max_tensor_parallel_size && (ranks & (ranks - 1)) != 0)
    sink.error(errc::unsupported, e.tensor_parallel_size.from,
               join_path(path, "tensor_parallel_size"),
               fmt::format("{} ranks cannot share the eight segments in which o_proj and down_proj "
                           "are summed; write 1, 2, 4 or 8",
                           ranks));
  if (ranks > can.max_tensor_parallel_size)
    sink.error(errc::unsupported, e.tensor_parallel_size.from,
               join_path(path, "tensor_parallel_size"),
               fmt::format("{} is not supported in this build, which has at most {} rank(s) a "
                           "replica; write {}, or raise instances instead",
                           *e.tensor_parallel_size, can.max_tensor_parallel_size,
                           can.max_tensor_parallel_size));
  const auto& threshold = e.long_prefill_token_threshold;
  if (*e.max_model_len && *threshold > **e.max_model_len)
    sink.error(errc::conflict, threshold.from, join_path(path, "long_prefill_token_threshold"),
               fmt::format("{} (by {}) is more than max_model_len {} (by {}); lower it, or write 0 "
                           "for no limit",
                           *threshold, to_string(threshold.from), **e.max_model_len,
                           to_string(e.max_model_len.from)));
  const auto& most = model.generation.max_tokens;
  if (*most && *e.max_model_len && **most > **e.max_model_len)
    model.generation.max_tokens = {**e.max_model_len, e.max_model_len.from};
}

} // namespace troupe::config
