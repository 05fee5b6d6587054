#include "engine/models/loader.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::engine {

result<kernels::cpu::packed_matrix> load_matrix(const load_context& from,
                                                std::span<const matrix_part> parts,
                                                std::int64_t cols, const matrix_form& form) {
  std::vector<weight_tensor> tensors;
  std::vector<kernels::tensor_view> views;
  for (const matrix_part& part : parts) {
    auto tensor = from.source->get({part.name, {part.rows, cols}});
    if (!tensor)
      return fail(tensor.error());
    views.push_back(view_of_shard(tensor->view, form.axis, from.shard));
    tensors.push_back(std::move(*tensor));
  }
  auto packed = kernels::cpu::pack(
      {.sources = views, .compute = from.compute, .layout = form.layout, .helpers = from.helpers});
  for (const weight_tensor& tensor : tensors)
    from.source->done_with(tensor);
  if (!packed)
    return fail(packed.error().code,
                fmt::format("tensor '{}': {}", parts.front().name, packed.error().note));
  return packed;
}

result<std::vector<float>> load_vector(const load_context& from, const std::string& name,
                                       std::int64_t size) {
  const auto tensor = from.source->get({name, {size}});
  if (!tensor)
    return fail(tensor.error());
  std::vector<float> values(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i)
    values[static_cast<std::size_t>(i)] =
        kernels::load_as_f32(tensor->view.data, tensor->view.type, i);
  from.source->done_with(*tensor);
  return values;
}

result<void> check_all_used(const load_context& from, std::span<const std::string_view> ignored) {
  std::vector<std::string> names = from.source->unused();
  std::erase_if(names, [&](const std::string& name) {
    return std::any_of(ignored.begin(), ignored.end(),
                       [&](std::string_view suffix) { return name.ends_with(suffix); });
  });
  if (names.empty())
    return {};
  const std::size_t count = names.size();
  names.resize(std::min<std::size_t>(count, 5));
  return fail(errc::unsupported,
              fmt::format("the checkpoint has {} tensor{} that {} does not use, for example '{}'; "
                          "does config.json name the right architecture?",
                          count, count == 1 ? "" : "s", from.config.architecture,
                          fmt::join(names, "', '")));
}

} // namespace troupe::engine
