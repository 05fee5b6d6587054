// The products of the recipe: their shapes, and which kernels serve them.
#include "engine/exec/cuda/chain.hpp"
#include "engine/exec/cuda/device_model.hpp"
#include "engine/exec/cuda/sampling.hpp"
#include "engine/exec/cuda/step_graphs.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace troupe::engine::cuda {

std::vector<device_model::product> device_model::products_of(const layer& of,
                                                             std::int64_t rows) const {
  const model_config& c = config_;
  return {qkv_product(of),
          summed_product(attended_, of.output, c.heads * c.head_dim, rows),
          {&normed_, &of.gate_up, &gate_up_, 2 * c.intermediate_size, c.hidden_size, compute_},
          summed_product(gated_, of.down, c.intermediate_size, rows),
          head_product()};
}

device_model::product device_model::qkv_product(const layer& of) const {
  const std::int64_t cols = (config_.heads + 2 * config_.kv_heads) * config_.head_dim;
  return {&normed_, &of.qkv, &qkv_, cols, config_.hidden_size, compute_};
}

bool device_model::sums_in_products(std::int64_t rows) const noexcept {
  // Up to 48 rows `streamed` is the fastest, and storing.
  return norms_in_products(rows) || (kernels::cuda::shortcuts_taken().sum_in_product && !ordered_ &&
                                     link_ == nullptr && rows > 48);
}

bool device_model::norms_in_products(std::int64_t rows) const noexcept {
  const kernels::cuda::shortcuts& taken = kernels::cuda::shortcuts_taken();
  const layer& first = layers_.front();
  return rows <= kernels::cuda::max_normed_rows && taken.norm_in_product && taken.gate_in_product &&
         taken.streamed && !ordered_ && link_ == nullptr &&
         kernels::cuda::takes_normed(kernels::cuda::plain(padded_args_of(qkv_product(first), rows)),
                                     residual_normed_by(first.attention_norm));
}

bool device_model::splits_norm(std::size_t index, std::int64_t rows) const {
  const kernels::cuda::shortcuts& taken = kernels::cuda::shortcuts_taken();
  // Large products of more rows are at the card's limit of power, where a kernel less is no time
  // less.
  const std::int64_t most = config_.hidden_size < 2048 ? kernels::cuda::max_split_rows : 128;
  // Before its norm is ended a row may be beyond the range of float16.
  if (!taken.split_norms || compute_ != kernels::dtype::bf16 || !sums_in_products(rows) ||
      rows > most || norms_in_products(rows) ||
      config_.hidden_size % (4 * kernels::cuda::norm_part) != 0)
    return false;
  const std::vector<product> products = products_of(layers_.front(), rows);
  const auto kernel = [&](std::size_t of) {
    return library_.kernel_of(padded_args_of(products[of], rows));
  };
  const std::string_view behind = kernel(index);
  return kernel(index == 0 ? 3 : 1) == "halved" &&
         (behind == "wide" || (behind == "halved" && index == 0));
}

device_model::layer_norms device_model::norms_of(std::int64_t rows) const {
  return {.delta = sums_in_products(rows) ? nullptr : &delta_,
          .split_attention = splits_norm(0, rows),
          .split_mlp = splits_norm(2, rows)};
}

bool device_model::norms_itself(std::size_t index, std::int64_t rows) const noexcept {
  return (index == 0 || index == 2) && norms_in_products(rows);
}

kernels::cuda::matmul_args device_model::args_of(const product& p, std::int64_t rows) const {
  const auto size = static_cast<std::int64_t>(kernels::size_of(compute_));
  const auto out_size = static_cast<std::int64_t>(kernels::size_of(p.out_type));
  const std::int64_t ldo = p.ldo == 0 ? p.n : p.ldo;
  const std::int64_t before = p.gathered ? shard_.rank * rows * ldo * out_size : 0;
  return {.a = p.a->data(),
          .lda = p.k,
          .w = p.w->as<std::byte>() + p.first_row * p.k * size,
          .out = p.stores ? p.out->as<std::byte>() + before : nullptr,
          .ldo = ldo,
          .m = rows,
          .n = p.n,
          .k = p.k,
          .type = compute_,
          .out_type = p.out_type,
          .add = p.add,
          .begins = p.begins == nullptr
                        ? kernels::cuda::begun_norm{}
                        : kernels::cuda::begun_norm{p.begins->as<float>(), normed_.data(),
                                                    squares_.as<float>()},
          .ends = {.squares = p.ends ? squares_.as<float>() : nullptr,
                   .eps = static_cast<float>(config_.rms_norm_eps)},
          .leaders = p.leads ? leaders() : nullptr};
}

std::int64_t device_model::padded(std::int64_t rows, std::int64_t most) noexcept {
  if (rows <= step_graphs::buckets().back())
    return step_graphs::bucket_of(static_cast<std::uint32_t>(rows),
                                  static_cast<std::uint32_t>(most));
  // Products are made in tiles of so many rows: 320 take longer than 384.
  constexpr std::int64_t step = 128;
  return std::min((rows + step - 1) / step * step, most);
}

kernels::cuda::matmul_args device_model::padded_args_of(const product& p, std::int64_t rows) const {
  // What other ranks read lies by the rows that there are.
  if (p.gathered)
    return args_of(p, rows);
  return args_of(p, padded(rows, p.out == &logits_ ? limits_.picked : limits_.rows));
}

result<void> device_model::multiply(const product& p, std::int64_t rows, stream_ref on) {
  if (!ordered_)
    return library_.run(padded_args_of(p, rows), on);
  const auto args = kernels::cuda::plain(args_of(p, rows));
  return kernels::cuda::takes_wide(args) ? kernels::cuda::wide_matmul(args, on)
                                         : kernels::cuda::ordered_matmul(args, on);
}

std::int32_t device_model::count_leaders(std::int64_t picked) const {
  const auto args = padded_args_of(head_product(), picked);
  // Of ranks each has its columns alone.
  if (!kernels::cuda::shortcuts_taken().head_leads || link_ != nullptr ||
      !kernels::cuda::takes_wide(kernels::cuda::plain(args)) ||
      (!ordered_ && library_.kernel_of(args) != "wide"))
    return 0;
  return static_cast<std::int32_t>(kernels::cuda::count_leaders(config_.vocab_size));
}

result<void> device_model::make_logits(std::int64_t picked, bool only_leaders, stream_ref on) {
  product head = head_product();
  head.leads = count_leaders(picked) > 0;
  head.stores = !head.leads || !only_leaders;
  if (auto made = multiply(head, picked, on); !made)
    return made;
  return gather_logits(picked, on);
}

result<void> device_model::tune(std::int64_t rows, bool with_head, stream_ref on) {
  if (ordered_)
    return {};
  for (std::size_t i = 0; i < (with_head ? 5 : 4); ++i) {
    if (norms_itself(i, rows))
      continue;
    std::vector<const void*> weights;
    for (const layer& one : layers_)
      weights.push_back(products_of(one, rows)[i].w->data());
    const product p = products_of(layers_.front(), rows)[i];
    // A norm for whatever small kernel stands behind the product.
    kernels::cuda::matmul_follower behind{
        [&] { return norm(last_norm_, &delta_, rows, nullptr, on); }};
    if (i == 2)
      behind = {[&] { return silu(rows, on); }, kernels::cuda::shortcuts_taken().gate_in_product};
    if (i == 4 && kernels::cuda::shortcuts_taken().head_leads && link_ == nullptr)
      behind = {.run = [&]() -> result<void> {
                  find_leaders({.logits = logits(),
                                .stride = config_.vocab_size,
                                .rows = rows,
                                .vocabulary = static_cast<std::int32_t>(config_.vocab_size),
                                .leaders = leaders()},
                               on);
                  return {};
                },
                .leaders = leaders()};
    if (auto tuned = library_.tune(args_of(p, rows), weights, on, behind); !tuned)
      return tuned;
  }
  return choose_in_layers(rows, with_head, on);
}

result<float> device_model::time_layers(std::int64_t rows, stream_ref on) {
  constexpr std::size_t most = 6;
  auto begin = make_event(true);
  auto end = make_event(true);
  if (!begin || !end)
    return fail(begin ? end.error() : begin.error());
  layer_norms norms = norms_of(rows);
  const auto pass = [&](const layer& of) {
    norms.next = norms.split_attention ? &of.attention_norm : nullptr;
    chain all;
    all.then([&] { return project(of, norms, rows, on); });
    // For rope and attention.
    all.then([&] { return norm(last_norm_, norms.delta, rows, nullptr, on); });
    all.then([&] { return put_out(of, norms, rows, on); });
    all.then([&] { return feed(of, norms, rows, on); });
    return all.state();
  };
  // The host takes longer to enqueue small layers than the device to run them.
  if (auto stalled = kernels::cuda::stall(1000, on); !stalled)
    return fail(stalled.error());
  if (auto marked = record(*begin, on); !marked)
    return fail(marked.error());
  for (std::size_t i = 0; i < std::min(most, layers_.size()); ++i)
    if (auto made = pass(layers_[i]); !made)
      return fail(made.error());
  if (auto marked = record(*end, on); !marked)
    return fail(marked.error());
  if (auto passed = wait(*end); !passed)
    return fail(passed.error());
  return milliseconds_between(*begin, *end);
}

result<void> device_model::choose_in_layers(std::int64_t rows, bool decodes, stream_ref on) {
  const std::vector<product> products = products_of(layers_.front(), rows);
  // The largest first.
  for (const std::size_t i : std::array<std::size_t, 4>{2, 3, 0, 1}) {
    if (norms_itself(i, rows))
      continue;
    const auto args = args_of(products[i], rows);
    if (library_.recalls(args))
      continue;
    auto names = library_.own_kernels_of(args);
    // With fewer rows one of ours always wins, with more tune() does well, but where norms are
    // split between some of ours.
    if (rows > 32 && rows <= kernels::cuda::max_split_rows &&
        (i != 0 || !decodes || rows <= kernels::cuda::max_streamed_rows))
      names.push_back("cuBLASLt");
    auto best = library_.kernel_of(args);
    if (std::find(names.begin(), names.end(), best) == names.end()) {
      // Attention of decodes brings K and V as soon as qkv lets it in, which cuBLASLt's kernels do
      // not do: the norm in its place does not show that.
      if (i != 0 || !decodes || names.empty())
        continue;
      best = names.front();
      library_.choose(args, best);
    }
    if (names.size() < 2)
      continue;
    float least = 1e30F;
    // In turns, for clocks drift; the first round loads kernels.
    for (int round = 0; round < 6; ++round)
      for (const std::string_view name : names) {
        library_.choose(args, name);
        const auto time = time_layers(rows, on);
        if (!time)
          return fail(time.error());
        if (round > 0 && *time < least) {
          least = *time;
          best = name;
        }
      }
    library_.choose(args, best);
  }
  return {};
}

result<void> device_model::warm(std::int64_t rows, stream_ref on) {
  if (ordered_)
    return {};
  const std::vector<product> products = products_of(layers_.front(), rows);
  for (std::size_t i = 0; i < (rows <= limits_.picked ? 5 : 4); ++i) {
    // Those behind a norm may be kernels with it, and that of gate and up one that is gated.
    const auto made = i == 0   ? project(layers_.front(), {}, rows, on)
                      : i == 2 ? gate(layers_.front(), {}, rows, on)
                               : multiply(products[i], rows, on);
    if (!made)
      return made;
  }
  // What the last layer has beside those.
  if (auto made = multiply(kv_product(layers_.front()), rows, on); !made)
    return made;
  return rows <= limits_.picked ? multiply(query_product(layers_.front(), delta_), rows, on)
                                : result<void>{};
}

std::string device_model::kernels_of(std::int64_t rows) const {
  if (layers_.empty())
    return "none";
  if (ordered_)
    return kernels::cuda::takes_wide(
               kernels::cuda::plain(args_of(products_of(layers_.front(), rows)[0], rows)))
               ? "wide"
               : "ordered";
  const std::vector<product> products = products_of(layers_.front(), rows);
  constexpr std::array<std::string_view, 5> names{"qkv", "o", "gate_up", "down", "lm_head"};
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += fmt::format("{}{} {}{}", i == 0 ? "" : ", ", names[i],
                        norms_itself(i, rows) ? "streamed with norm"
                                              : library_.kernel_of(args_of(products[i], rows)),
                        (i == 0 || i == 2) && splits_norm(i, rows) ? " behind a split norm" : "");
  return text;
}

} // namespace troupe::engine::cuda
