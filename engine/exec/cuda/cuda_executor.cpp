#include "engine/exec/cuda/cuda_executor.hpp"

#include "engine/exec/cuda/likelihood.hpp"

#include "engine/exec/sampler.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::engine::cuda {

namespace {

using clock_type = std::chrono::steady_clock;

std::chrono::microseconds since(clock_type::time_point begin) {
  return std::chrono::duration_cast<std::chrono::microseconds>(clock_type::now() - begin);
}

std::chrono::microseconds between(const event& begin, const event& end) {
  return std::chrono::microseconds{
      static_cast<std::int64_t>(milliseconds_between(begin, end).value_or(0) * 1000)};
}

sampling_row sampling_of(const sampling_params& params, std::uint32_t position,
                         std::uint32_t vocabulary) {
  sampling_row row;
  row.seed = params.seed;
  row.choice = params.choice;
  row.position = position;
  row.logprobs = params.logprobs;
  if (params.temperature < greedy_temperature)
    return row;
  row.temperature = static_cast<double>(std::max(params.temperature, least_temperature));
  row.top_k =
      params.top_k > 0 && static_cast<std::uint32_t>(params.top_k) < vocabulary ? params.top_k : 0;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.bounded = row.top_k > 0 || row.top_p < 1 || row.min_p > 0 ? 1 : 0;
  return row;
}

} // namespace

cuda_executor::cuda_executor(executor_options options, device_info device)
    : options_{std::move(options)}, device_{std::move(device)} {}

cuda_executor::~cuda_executor() {
  // Graphs that hold sums end before the communicator.
  if (use_device(device_.index))
    graphs_.clear();
  if (link_)
    link_->close();
  link_.reset();
  quiesce();
}

void cuda_executor::quiesce() {
  if (!stream_ || !use_device(device_.index))
    return;
  if (link_ && !link_->drains(stream_.get())) {
    graphs_.clear();
    link_->close();
  }
  static_cast<void>(wait(stream_.get()));
}

tl::unexpected<error> cuda_executor::give_up(error e) {
  const step_id last = last_prepared_;
  reset();
  last_prepared_ = last;
  return fail(std::move(e));
}

tl::unexpected<error> cuda_executor::broken(step_id step, const error& e) {
  // The ranks have lost step with each other.
  if (link_)
    link_->abort(e);
  auto told =
      give_up({e.code, fmt::format("step {}: cuda:{}: {}", value(step), device_.index, e.note)});
  look_for_spoil(device_.index);
  return told;
}

result<cuda_executor::staged_step*> cuda_executor::find(step_id step, phase wanted,
                                                        std::string_view verb) {
  for (staged_step& staged : steps_)
    if (staged.at == wanted && staged.id == step)
      return &staged;
  return fail(
      errc::invalid_argument,
      fmt::format("step {}: cannot {} it: it is not in the phase before that", value(step), verb));
}

result<void> cuda_executor::prepare(const step_batch& step) {
  const auto begin = clock_type::now();
  if (!model_)
    return fail(errc::invalid_argument, fmt::format("step {}: nothing is loaded", value(step.id)));
  if (step.id <= last_prepared_)
    return give_up({errc::invalid_argument, fmt::format("step {}: comes after step {}",
                                                        value(step.id), value(last_prepared_))});
  staged_step* const slot = &steps_[turn_];
  if (slot->at != phase::free)
    return give_up({errc::busy, fmt::format("step {}: {} steps before it have not been collected",
                                            value(step.id), most_steps)});
  slot->rows.clear();
  slot->failed.clear();
  slot->samplers.clear();
  if (auto applied = table_.apply(step, slot->rows); !applied)
    return give_up(applied.error());
  slot->saved = step.saved;
  slot->restored = step.restored;
  turn_ = (turn_ + 1) % most_steps;
  slot->follows = std::exchange(running_, true);
  slot->id = step.id;
  slot->at = phase::prepared;
  last_prepared_ = step.id;
  slot->timings = {};
  slot->timings.prepare = since(begin);
  return {};
}

std::int32_t cuda_executor::token_at(const known_sequence& sequence, std::uint32_t position,
                                     std::size_t hint) const {
  if (position < sequence.tokens.size())
    return sequence.tokens[position];
  // Steps in work know where on the device it will be. Batches of decode keep their order, so the
  // place of this row is where it is found as a rule.
  for (std::size_t s = 0; s < steps_.size(); ++s) {
    const staged_step& other = steps_[s];
    if (other.at != phase::sampled || other.samplers.empty())
      continue;
    const std::size_t count = other.samplers.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = (hint + i) % count;
      if (other.samplers[at].sequence == &sequence && other.samplers[at].position == position)
        return -1 - static_cast<std::int32_t>(s * options_.max_num_seqs + at);
    }
  }
  return 0;
}

void cuda_executor::add_sequence(staged_step& staged, const sequence_table::row& row) {
  const known_sequence& sequence = *row.sequence;
  host_inputs& inputs = staged.inputs;
  const std::uint32_t end = row.position + row.tokens;
  const std::uint32_t blocks = (end + options_.block_size - 1) / options_.block_size;
  const auto index = static_cast<std::int32_t>(inputs.sequences());
  inputs.add({.row_begin = static_cast<std::int32_t>(inputs.rows()),
              .rows = static_cast<std::int32_t>(row.tokens),
              .first_position = static_cast<std::int32_t>(row.position)},
             std::span{sequence.blocks}.first(blocks), row.begins);
  for (std::uint32_t p = row.position; p < end; ++p) {
    const std::uint64_t block = value(sequence.blocks[p / options_.block_size]);
    inputs.add_row(
        {.token = token_at(sequence, p, staged.samplers.size()),
         .position = static_cast<std::int32_t>(p),
         .sequence = index,
         .slot = static_cast<std::int32_t>(block * options_.block_size + p % options_.block_size)});
  }
  if (!row.samples)
    return;
  inputs.pick(sampling_of(sequence.sampling, end, description_.vocab_size));
  staged.samplers.push_back({row.sequence, end});
}

void cuda_executor::gather_inputs(staged_step& staged) {
  staged.inputs.clear();
  for (const sequence_table::row& row : staged.rows) {
    const known_sequence& sequence = *row.sequence;
    if (sequence.failure)
      staged.failed.push_back({sequence.id, sequence.failure->code, sequence.failure->note});
    else
      add_sequence(staged, row);
  }
  staged.inputs.order_prompts();
  staged.inputs.deal_decodes();
}

result<void> cuda_executor::forward(staged_step& staged) {
  host_inputs& inputs = staged.inputs;
  const std::uint32_t rows = inputs.rows();
  const bool with_graphs = !link_ || kernels::cuda::shortcuts_taken().graphs_of_ranks;
  const bool decodes =
      with_graphs && inputs.decodes_alone() && kernels::cuda::attends_by_items(caches_.front());
  const std::uint32_t most =
      std::min(description_.max_num_seqs, description_.max_num_batched_tokens);
  const std::uint32_t bucket = decodes ? step_graphs::bucket_of(rows, most) : rows;
  inputs.pad(bucket);
  if (auto sent = inputs_.send(inputs, stream_.get()); !sent)
    return sent;
  forward_batch batch = inputs_.batch_of(inputs);
  batch.sampled = sampled_.as<std::int32_t>();
  batch.logits = inputs.any_random() || inputs.any_logprobs();
  staged.leaders = model_->count_leaders(inputs.picked());
  logits_left_out_ = staged.leaders > 0 && !batch.logits ? inputs.picked() : 0;
  const auto pass = [&] { return model_->forward(batch, caches_, stream_.get()); };
  if (!decodes)
    return pass();
  batch.rows = batch.picked = bucket;
  // turned_attention() reads what earlier steps have stored before the rows of this one store.
  if (turns() && !inputs.reads_own_stores())
    batch.turned = kernels::cuda::turned_team(caches_.front(), inputs.decode_items());
  // A graph is replayed with other numbers of items: its grids are made for any of them.
  const std::int64_t tiles =
      static_cast<std::int64_t>(bucket) * ((config_.heads / config_.kv_heads + 15) / 16);
  batch.attention.decode_items_max = std::max<std::int64_t>(tiles, 4096);
  batch.attention.join_items_max = inputs.joins() > 0 ? tiles : 0;
  return graphs_.run(
      {.rows = bucket, .joins = inputs.joins() > 0, .turned = batch.turned, .logits = batch.logits},
      pass, stream_.get());
}

result<void> cuda_executor::launch(step_id step) {
  const auto begin = clock_type::now();
  const auto found = find(step, phase::prepared, "launch");
  if (!found)
    return give_up(found.error());
  staged_step& staged = **found;
  const bool ready = std::all_of(steps_.begin(), steps_.end(), [&](const staged_step& other) {
    return other.at == phase::free || other.at == phase::sampled || other.id >= step;
  });
  if (!ready)
    return give_up({errc::invalid_argument,
                    fmt::format("step {}: cannot launch it before the one before it has sampled",
                                value(step))});
  if (auto used = use_device(device_.index); !used)
    return broken(step, used.error());
  if (link_)
    if (auto lost = link_->lost())
      return broken(step, *lost);
  gather_inputs(staged);
  if (auto marked = record(staged.begun, stream_.get()); !marked)
    return broken(step, marked.error());
  if (auto copied = copy_blocks(staged); !copied)
    return broken(step, copied.error());
  if (staged.inputs.rows() > 0)
    if (auto done = forward(staged); !done)
      return broken(step, done.error());
  if (auto marked = record(staged.forwarded, stream_.get()); !marked)
    return broken(step, marked.error());
  staged.at = phase::launched;
  staged.timings.prepare += since(begin);
  return {};
}

result<void> cuda_executor::sample(step_id step) {
  const auto found = find(step, phase::launched, "sample");
  if (!found)
    return give_up(found.error());
  staged_step& staged = **found;
  if (auto used = use_device(device_.index); !used)
    return broken(step, used.error());
  const auto slot = static_cast<std::size_t>(&staged - steps_.data()) * options_.max_num_seqs;
  const host_inputs& inputs = staged.inputs;
  if (inputs.picked() > 0) {
    const auto chosen = sample_rows({.logits = model_->logits(),
                                     .stride = config_.vocab_size,
                                     .rows = inputs.picked(),
                                     .vocabulary = static_cast<std::int32_t>(config_.vocab_size),
                                     .how = inputs_.sampling(),
                                     .scratch = scratch_.as<sampling_scratch>(),
                                     .leaders = model_->leaders(),
                                     .leader_count = staged.leaders,
                                     .any_random = inputs.any_random(),
                                     .any_bounded = inputs.any_bounded(),
                                     .sampled = sampled_.as<std::int32_t>() + slot,
                                     .outcome = staged.outcome.as<std::int32_t>()},
                                    stream_.get());
    if (!chosen)
      return broken(step, chosen.error());
  }
  if (auto ranked = rank(staged, slot); !ranked)
    return broken(step, ranked.error());
  // Others may have the blocks that were saved once the step has ended.
  if (swap_)
    if (auto joined = swap_->join(stream_.get()); !joined)
      return broken(step, joined.error());
  if (auto marked = record(staged.done, stream_.get()); !marked)
    return broken(step, marked.error());
  staged.at = phase::sampled;
  staged.enqueued = clock_type::now();
  return {};
}

/// How likely the chosen tokens are, where any request asks.
result<void> cuda_executor::rank(staged_step& staged, std::size_t slot) {
  const host_inputs& inputs = staged.inputs;
  if (!inputs.any_logprobs())
    return {};
  auto* const likelihoods = likelihoods_.as<device_likelihood>() + slot;
  if (auto ranked = rank_rows({.logits = model_->logits(),
                               .stride = config_.vocab_size,
                               .rows = inputs.picked(),
                               .vocabulary = static_cast<std::int32_t>(config_.vocab_size),
                               .how = inputs_.sampling(),
                               .outcome = staged.outcome.as<std::int32_t>(),
                               .likelihoods = likelihoods},
                              stream_.get());
      !ranked)
    return ranked;
  return download(staged.likelihoods.data(), likelihoods,
                  inputs.picked() * sizeof(device_likelihood), stream_.get());
}

void cuda_executor::settle(staged_step& staged, std::size_t index, step_result& brought) {
  const auto [sequence, position] = staged.samplers[index];
  const std::int32_t token = staged.outcome.as<std::int32_t>()[index];
  --sequence->promised;
  if (!sequence->failure && token < 0)
    sequence->failure =
        error{errc::corrupt_data, fmt::format("the model's logits for position {} are not finite "
                                              "numbers",
                                              position)};
  if (sequence->failure) {
    brought.failed.push_back({sequence->id, sequence->failure->code, sequence->failure->note});
    return;
  }
  sequence->tokens.push_back(token);
  brought.tokens.push_back({sequence->id, token});
  if (const auto top = sequence->sampling.logprobs; top >= 0)
    brought.logprobs.push_back(
        {sequence->id, to_logprobs(staged.likelihoods.as<device_likelihood>()[index], token, top,
                                   static_cast<std::int32_t>(config_.vocab_size))});
}

bool cuda_executor::finished(step_id step) const {
  const auto staged = std::find_if(steps_.begin(), steps_.end(), [&](const staged_step& s) {
    return s.at == phase::sampled && s.id == step;
  });
  // One that cannot be collected is told so at once.
  if (staged == steps_.end() || !use_device(device_.index) || passed(staged->done))
    return true;
  return link_ && (link_->overdue(std::max(staged->enqueued, collected_)) || link_->lost());
}

/// What lies between the end of the step before and the begin of this one. A gap that no host needs
/// is a lack of requests.
std::chrono::microseconds cuda_executor::idle_before(const staged_step& staged) const {
  constexpr std::chrono::milliseconds longest{20};
  if (!staged.follows)
    return {};
  const auto at = static_cast<std::size_t>(&staged - steps_.data());
  const auto gap = between(steps_[(at + most_steps - 1) % most_steps].done, staged.begun);
  return gap < longest ? gap : std::chrono::microseconds{0};
}

result<step_result> cuda_executor::collect(step_id step) {
  const auto found = find(step, phase::sampled, "collect");
  if (!found)
    return give_up(found.error());
  staged_step& staged = **found;
  if (auto used = use_device(device_.index); !used)
    return broken(step, used.error());
  const auto waited = link_ ? link_->wait_for(staged.done, std::max(staged.enqueued, collected_))
                            : wait(staged.done);
  if (!waited)
    return broken(step, waited.error());
  collected_ = clock_type::now();
  staged.timings.forward = between(staged.begun, staged.forwarded);
  staged.timings.sample = between(staged.forwarded, staged.done);
  staged.timings.idle = idle_before(staged);
  step_result brought{
      .id = step, .tokens = {}, .logprobs = {}, .failed = staged.failed, .timings = staged.timings};
  brought.tokens.reserve(staged.samplers.size());
  for (std::size_t i = 0; i < staged.samplers.size(); ++i)
    settle(staged, i, brought);
  staged.at = phase::free;
  table_.release(step);
  return brought;
}

void cuda_executor::reset() {
  // What is in work reads page-locked memory that the next step would overwrite.
  quiesce();
  for (staged_step& staged : steps_)
    staged.at = phase::free;
  table_.clear();
  running_ = false;
  last_prepared_ = step_id{};
}

std::span<const float> cuda_executor::logits(std::size_t index) {
  logits_.resize(static_cast<std::size_t>(config_.vocab_size));
  if (const auto picked = std::exchange(logits_left_out_, 0); picked > 0)
    if (!model_->make_logits(picked, false, stream_.get()))
      return {};
  const float* const from = model_->logits() + index * logits_.size();
  const auto sent = download(logits_.data(), from, logits_.size() * sizeof(float), stream_.get());
  if (!sent || !wait(stream_.get()))
    logits_.clear();
  return logits_;
}

} // namespace troupe::engine::cuda
