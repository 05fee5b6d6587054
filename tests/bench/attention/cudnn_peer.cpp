#include "engine/exec/cuda/chain.hpp"
#include "tests/bench/attention/attention_peer.hpp"

// libcudnn is opened while the bench runs: a bench that was built beside its headers starts without
// it too. Nothing here is written as JSON, which is a third of the time that the headers compile.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <string>
#include <unordered_map>
#include <utility>

namespace cudnn_frontend {

/// Where the frontend looks for every function of cuDNN; it declares this and leaves it to us.
void* cudnn_dlhandle = nullptr;

} // namespace cudnn_frontend

namespace troupe::bench {

namespace {

namespace fe = cudnn_frontend;
using engine::cuda::device_buffer;
using engine::cuda::stream_ref;

/// The names of the graph's tensors in the pack of addresses that it runs on.
enum tensor_id : std::int64_t {
  q_id = 1,
  k_id,
  v_id,
  out_id,
  rows_id,
  positions_id,
  k_table_id,
  v_table_id,
  q_offsets_id,
  out_offsets_id,
};

struct handle_closer {
  void operator()(cudnnContext* handle) const noexcept {
    static_cast<void>(fe::detail::destroy_handle(handle));
  }
};
using handle = std::unique_ptr<cudnnContext, handle_closer>;

/// What the graph of a load is built from: all that is not in device memory.
struct load_shape {
  std::int64_t batch = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t dim = 0;
  std::int64_t block_size = 0;
  std::int64_t blocks = 0;
  std::int64_t rows_max = 0;
  std::int64_t positions_max = 0;
  /// Whether the sequences differ in their rows, so that no stride leads from one to the next.
  bool ragged = false;

  /// Blocks of the longest sequence: what every sequence has in the table that cuDNN reads.
  [[nodiscard]] std::int64_t table_width() const noexcept {
    return (positions_max + block_size - 1) / block_size;
  }
};

load_shape shape_of(const attention_load& load) {
  load_shape shape{.batch = static_cast<std::int64_t>(load.sequences.size()),
                   .heads = load.heads,
                   .kv_heads = load.kv_heads,
                   .dim = load.dim,
                   .block_size = load.block_size,
                   .blocks = load.blocks};
  for (const attention_load::member& one : load.sequences) {
    shape.rows_max = std::max<std::int64_t>(shape.rows_max, one.rows);
    shape.positions_max = std::max<std::int64_t>(shape.positions_max, one.positions());
    shape.ragged = shape.ragged || one.rows != load.sequences.front().rows;
  }
  return shape;
}

/// What the graph reads beside the tensors, one entry or row of entries per sequence.
struct load_arrays {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> tables;
  /// Where the rows of each sequence begin in q and out, in elements, and where the last end.
  std::vector<std::int64_t> offsets;
};

load_arrays arrays_of(const attention_load& load, const load_shape& shape) {
  load_arrays made;
  made.tables.reserve(static_cast<std::size_t>(shape.batch * shape.table_width()));
  made.offsets.push_back(0);
  auto block = load.tables.begin();
  for (const attention_load::member& one : load.sequences) {
    made.rows.push_back(one.rows);
    made.positions.push_back(one.positions());
    made.offsets.push_back(made.offsets.back() + one.rows * shape.heads * shape.dim);
    // A kernel may fetch past the end of a sequence and multiply by 0. Its first block behind its
    // end keeps what it fetches finite; a block that nobody wrote could hold a NaN.
    const std::int64_t own = load.blocks_of(one);
    const std::int32_t first = own > 0 ? *block : 0;
    made.tables.insert(made.tables.end(), block, block + own);
    made.tables.insert(made.tables.end(), static_cast<std::size_t>(shape.table_width() - own),
                       first);
    block += own;
  }
  return made;
}

using quad = std::array<std::int64_t, 4>;

fe::graph::Tensor_attributes tensor_of(tensor_id id, fe::DataType_t type, const quad& dims,
                                       const quad& strides) {
  fe::graph::Tensor_attributes made;
  made.set_uid(id)
      .set_data_type(type)
      .set_dim({dims.begin(), dims.end()})
      .set_stride({strides.begin(), strides.end()});
  return made;
}

/// The attention of a load as the cuDNN frontend says it, not yet built.
std::shared_ptr<fe::graph::Graph> graph_of(const load_shape& shape) {
  using enum fe::DataType_t;
  auto made = std::make_shared<fe::graph::Graph>();
  fe::graph::Graph& graph = *made;
  graph.set_io_data_type(BFLOAT16).set_intermediate_data_type(FLOAT).set_compute_data_type(FLOAT);
  // No other GPU can be opened (see open_device). Told so, the frontend has no need of a shared
  // libcudart to ask. A captured run would make its launches slower by holding what it runs; the
  // peer holds that instead.
  graph.set_sm_version(90).set_cuda_graph_retention(fe::CudaGraphRetention_t::NONE);

  const std::int64_t row = shape.heads * shape.dim;
  const quad q_dims{shape.batch, shape.heads, shape.rows_max, shape.dim};
  const quad q_strides{shape.rows_max * row, shape.dim, row, 1};
  const std::int64_t head = shape.block_size * shape.dim;
  const quad kv_dims{shape.blocks, shape.kv_heads, shape.block_size, shape.dim};
  const quad kv_strides{shape.kv_heads * head, head, shape.dim, 1};
  const std::int64_t width = shape.table_width();
  const quad table_dims{shape.batch, 1, width, 1};
  const quad table_strides{width, width, 1, 1};
  const auto list = [&](tensor_id id, fe::DataType_t type, std::int64_t count) {
    return graph.tensor(tensor_of(id, type, {count, 1, 1, 1}, {1, 1, 1, 1}));
  };

  const auto q = graph.tensor(tensor_of(q_id, BFLOAT16, q_dims, q_strides));
  const auto k = graph.tensor(tensor_of(k_id, BFLOAT16, kv_dims, kv_strides));
  const auto v = graph.tensor(tensor_of(v_id, BFLOAT16, kv_dims, kv_strides));
  fe::graph::SDPA_attributes how;
  how.set_name("attention")
      .set_generate_stats(false)
      .set_attn_scale(1.0F / std::sqrt(static_cast<float>(shape.dim)))
      .set_padding_mask(true)
      .set_seq_len_q(list(rows_id, INT32, shape.batch))
      .set_seq_len_kv(list(positions_id, INT32, shape.batch))
      .set_paged_attention_k_table(
          graph.tensor(tensor_of(k_table_id, INT32, table_dims, table_strides)))
      .set_paged_attention_v_table(
          graph.tensor(tensor_of(v_table_id, INT32, table_dims, table_strides)))
      .set_paged_attention_max_seq_len_kv(static_cast<int>(shape.positions_max));
  // A lone row sees all its positions. cuDNN's release notes advise against a mask there: with
  // fewer KV heads than heads its kernels for decoding get it wrong.
  if (shape.rows_max > 1)
    how.set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
        .set_diagonal_band_right_bound(0);
  if (shape.ragged)
    q->set_ragged_offset(list(q_offsets_id, INT64, shape.batch + 1));
  const auto out = graph.sdpa(q, k, v, how)[0];
  *out = tensor_of(out_id, BFLOAT16, q_dims, q_strides).set_output(true);
  if (shape.ragged)
    out->set_ragged_offset(list(out_offsets_id, INT64, shape.batch + 1));
  return made;
}

/// What `call` into the frontend says: some of its failures are a status, some are thrown.
template <class Call>
result<void> told(errc code, std::string_view what, Call&& call) {
  try {
    fe::error_t status = std::forward<Call>(call)();
    if (status.is_good())
      return {};
    return fail(code, fmt::format("{}: {}", what, status.get_message()));
  } catch (const std::exception& thrown) {
    return fail(code, fmt::format("{}: {}", what, thrown.what()));
  }
}

/// A status of the library, with its words, as one of the frontend.
fe::error_t status_of(cudnnStatus_t status) {
  if (status == CUDNN_STATUS_SUCCESS)
    return {};
  return {fe::error_code_t::CUDNN_BACKEND_API_FAILED,
          fmt::format("{} ({})", fe::detail::get_error_string(status),
                      fe::detail::get_last_error_string_())};
}

class cudnn_peer final : public attention_peer {
public:
  cudnn_peer(handle cudnn, std::string name) : name_{std::move(name)}, handle_{std::move(cudnn)} {}

  [[nodiscard]] std::string_view name() const override { return name_; }

  [[nodiscard]] result<void> plan(const attention_load& load, stream_ref on) override {
    // The last plan's memory is given back: no run of it may be under way.
    if (auto idle = engine::cuda::wait(on); !idle)
      return idle;
    planned_ = false;
    const load_shape shape = shape_of(load);
    if (shape.rows_max == 0)
      return fail(errc::unsupported, fmt::format("{}: the load has no rows", name_));
    if (auto built = build(shape); !built)
      return built;
    // The copies read the arrays, so that also a failure waits for those that were enqueued.
    const load_arrays arrays = arrays_of(load, shape);
    const auto sent = send(arrays, on);
    const auto arrived = engine::cuda::wait(on);
    planned_ = sent && arrived;
    return sent ? arrived : sent;
  }

  [[nodiscard]] result<void> run(const attention_tensors& at, stream_ref on) override {
    if (!planned_)
      return fail(errc::internal, fmt::format("{}: run() without a plan()", name_));
    bound_[q_id] = at.q;
    bound_[k_id] = at.k;
    bound_[v_id] = at.v;
    bound_[out_id] = at.out;
    return told(errc::internal, name_, [&]() -> fe::error_t {
      if (fe::error_t set = status_of(fe::detail::set_stream(handle_.get(), on)); set.is_bad())
        return set;
      return graphs_.back()->execute(handle_.get(), bound_, workspace_.data());
    });
  }

private:
  /// Finds kernels for the shape and takes the memory that they work in.
  result<void> build(const load_shape& shape) {
    std::int64_t bytes = 0;
    auto built = told(errc::unsupported, name_, [&]() -> fe::error_t {
      auto graph = graph_of(shape);
      fe::error_t status =
          graph->build(handle_.get(), {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
      graphs_.push_back(graph);
      return status.is_good() ? graph->get_workspace_size(bytes) : status;
    });
    workspace_ = {};
    if (!built || bytes == 0)
      return built;
    auto taken = device_buffer::make(static_cast<std::size_t>(bytes), "cuDNN's workspace");
    if (!taken)
      return fail(taken.error());
    workspace_ = std::move(*taken);
    return {};
  }

  result<void> send(const load_arrays& arrays, stream_ref on) {
    engine::cuda::chain all;
    all.take(rows_, [&] { return copied(arrays.rows, "the sequences' rows", on); });
    all.take(positions_, [&] { return copied(arrays.positions, "the sequences' positions", on); });
    all.take(tables_, [&] { return copied(arrays.tables, "the block tables", on); });
    all.take(offsets_, [&] { return copied(arrays.offsets, "the sequences' offsets", on); });
    if (!all.state())
      return all.state();
    // The offsets are not looked for unless the graph has them.
    bound_ = {{rows_id, rows_.data()},         {positions_id, positions_.data()},
              {k_table_id, tables_.data()},    {v_table_id, tables_.data()},
              {q_offsets_id, offsets_.data()}, {out_offsets_id, offsets_.data()}};
    return {};
  }

  std::string name_;
  handle handle_;
  device_buffer workspace_;
  device_buffer rows_;
  device_buffer positions_;
  device_buffer tables_;
  device_buffer offsets_;
  std::unordered_map<std::int64_t, void*> bound_;
  /// Of all plans, the last one's at the end: a captured run needs its plan's kernels until it is
  /// destroyed. They go before the handle that they were built with.
  std::vector<std::shared_ptr<fe::graph::Graph>> graphs_;
  bool planned_ = false;
};

} // namespace

result<std::unique_ptr<attention_peer>> make_cudnn_peer() {
  // It stays open until the process ends: the frontend keeps addresses of its functions.
  if (fe::cudnn_dlhandle == nullptr)
    fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (fe::cudnn_dlhandle == nullptr)
    return fail(errc::not_found,
                fmt::format("no cuDNN: {}; LD_LIBRARY_PATH can name its folder (in a Python "
                            "installation site-packages/nvidia/cudnn/lib)",
                            dlerror()));
  std::string name;
  handle made;
  auto started = told(errc::internal, "cuDNN does not start", [&] {
    name = "cuDNN " + fe::detail::get_backend_version_string();
    cudnnContext* raw = nullptr;
    fe::error_t status = status_of(fe::detail::create_handle(&raw));
    made.reset(raw);
    return status;
  });
  if (!started)
    return fail(started.error());
  return std::make_unique<cudnn_peer>(std::move(made), std::move(name));
}

} // namespace troupe::bench
