#include "engine/exec/cuda/weight_uploader.hpp"

#include "engine/weights/fingerprint.hpp"
#include "kernels/cpu/team.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

namespace troupe::engine::cuda {

namespace {

using kernels::dtype;

/// The seed that make_dummy_weights() gives a tensor.
std::uint64_t seed_of(std::uint64_t seed, std::string_view name) {
  fingerprint print;
  print.add(seed);
  print.add(name);
  return print.value();
}

/// Adjacent elements [begin, begin + count) of memory as `type`, to `out`.
void convert_run(std::byte* out, dtype type, const kernels::tensor_view& view, std::int64_t begin,
                 std::int64_t count) {
  const auto size = static_cast<std::int64_t>(kernels::size_of(type));
  if (view.type == type) {
    std::memcpy(out, static_cast<const std::byte*>(view.data) + begin * size,
                static_cast<std::size_t>(count * size));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i)
    kernels::store_f32(out, type, i, kernels::load_as_f32(view.data, view.type, begin + i));
}

/// Elements [begin, begin + count) of a matrix, row by row, as `type`, to `out`.
void convert(std::byte* out, dtype type, const kernels::tensor_view& view, std::int64_t begin,
             std::int64_t count) {
  const std::int64_t cols = view.shape[1];
  if (view.stride() == cols)
    return convert_run(out, type, view, begin, count);
  const auto size = static_cast<std::int64_t>(kernels::size_of(type));
  for (std::int64_t at = begin; at < begin + count;) {
    const std::int64_t run = std::min(cols - at % cols, begin + count - at);
    convert_run(out + (at - begin) * size, type, view, at / cols * view.stride() + at % cols, run);
    at += run;
  }
}

} // namespace

result<weight_uploader> weight_uploader::make(const load_context& from,
                                              std::optional<std::uint64_t> dummy_seed,
                                              stream_ref on) {
  weight_uploader made;
  made.from_ = &from;
  made.dummy_seed_ = dummy_seed;
  made.stream_ = on;
  for (std::size_t i = 0; i < made.staging_.size(); ++i) {
    auto memory = pinned_buffer::make(staging_bytes, "staging of weights");
    if (!memory)
      return fail(memory.error());
    made.staging_[i] = std::move(*memory);
    auto mark = make_event(false);
    if (!mark)
      return fail(mark.error());
    made.copied_[i] = std::move(*mark);
  }
  return made;
}

result<void> weight_uploader::stage(std::byte* to, const kernels::tensor_view& view,
                                    std::int64_t begin, std::int64_t count) {
  const auto size = static_cast<std::int64_t>(kernels::size_of(from_->compute));
  const bool as_it_lies = view.type == from_->compute && view.stride() == view.shape[1];
  std::mutex guard;
  result<void> staged;
  from_->helpers->run([&](kernels::cpu::member& m) {
    const auto mine = m.split(count);
    auto* const out = to + mine.begin * size;
    const std::int64_t elements = mine.end - mine.begin;
    if (!as_it_lies)
      return convert(out, from_->compute, view, begin + mine.begin, elements);
    const auto* const in = static_cast<const std::byte*>(view.data) + (begin + mine.begin) * size;
    auto copied = from_->source->copy({in, static_cast<std::size_t>(elements * size)}, out);
    const std::lock_guard lock{guard};
    if (!copied)
      staged = std::move(copied);
  });
  return staged;
}

result<void> weight_uploader::copy(std::byte* to, const kernels::tensor_view& view) {
  const auto size = static_cast<std::int64_t>(kernels::size_of(from_->compute));
  const std::int64_t most = static_cast<std::int64_t>(staging_bytes) / size;
  for (std::int64_t begin = 0; begin < view.size(); begin += most) {
    const std::int64_t count = std::min(most, view.size() - begin);
    const std::size_t slot = turn_++ % staging_.size();
    if (auto free = wait(copied_[slot]); !free)
      return free;
    auto* const staging = staging_[slot].as<std::byte>();
    if (auto staged = stage(staging, view, begin, count); !staged)
      return staged;
    if (auto sent =
            upload(to + begin * size, staging, static_cast<std::size_t>(count * size), stream_);
        !sent)
      return sent;
    if (auto marked = record(copied_[slot], stream_); !marked)
      return marked;
  }
  return {};
}

result<void> weight_uploader::fill(std::byte* to, const matrix_part& part, std::int64_t cols,
                                   shard_axis axis) {
  const model_shard& shard = from_->shard;
  const shard_range rows =
      axis == shard_axis::rows ? range_of_shard(part.rows, shard) : shard_range{0, part.rows};
  const shard_range own =
      axis == shard_axis::cols ? range_of_shard(cols, shard) : shard_range{0, cols};
  return kernels::cuda::fill_random({.out = to,
                                     .count = rows.size() * own.size(),
                                     .type = from_->compute,
                                     .seed = seed_of(*dummy_seed_, part.name),
                                     .sigma = 1.0 / std::sqrt(static_cast<double>(cols)),
                                     .first = rows.begin * cols + own.begin,
                                     .cols = own.size() == cols ? 0 : own.size(),
                                     .row_stride = cols},
                                    stream_);
}

result<device_buffer> weight_uploader::matrix(std::span<const matrix_part> parts, std::int64_t cols,
                                              shard_axis axis) {
  const auto size = static_cast<std::int64_t>(kernels::size_of(from_->compute));
  const auto elements_of = [&](const matrix_part& part) {
    const auto own = [&](shard_axis split, std::int64_t whole) {
      return axis == split ? range_of_shard(whole, from_->shard).size() : whole;
    };
    return own(shard_axis::rows, part.rows) * own(shard_axis::cols, cols);
  };
  std::int64_t elements = 0;
  for (const matrix_part& part : parts)
    elements += elements_of(part);
  auto memory = device_buffer::make(static_cast<std::size_t>(elements * size),
                                    fmt::format("tensor '{}'", parts.front().name));
  if (!memory)
    return fail(memory.error());
  auto* to = memory->as<std::byte>();
  for (const matrix_part& part : parts) {
    result<void> done;
    if (dummy_seed_) {
      done = fill(to, part, cols, axis);
    } else {
      const auto tensor = from_->source->get({part.name, {part.rows, cols}});
      if (!tensor)
        return fail(tensor.error());
      done = copy(to, view_of_shard(tensor->view, axis, from_->shard));
      from_->source->done_with(*tensor);
    }
    if (!done)
      return fail(done.error().code, fmt::format("tensor '{}': {}", part.name, done.error().note));
    to += elements_of(part) * size;
  }
  bytes_ += memory->size();
  return memory;
}

result<device_buffer> weight_uploader::vector(const std::string& name, std::int64_t size) {
  if (dummy_seed_) {
    const std::vector<float> ones(static_cast<std::size_t>(size), 1.0F);
    return floats(ones, name);
  }
  const auto values = load_vector(*from_, name, size);
  if (!values)
    return fail(values.error());
  return floats(*values, name);
}

result<device_buffer> weight_uploader::floats(std::span<const float> values,
                                              std::string_view what) {
  auto memory = device_buffer::make(values.size_bytes(), what);
  if (!memory)
    return fail(memory.error());
  // Pageable memory: the copy has read it when the call returns.
  if (auto sent = upload(memory->data(), values.data(), values.size_bytes(), stream_); !sent)
    return fail(sent.error());
  return memory;
}

result<void> weight_uploader::finish() { return wait(stream_); }

} // namespace troupe::engine::cuda
