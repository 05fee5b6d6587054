#include "kernels/cuda/matmul.hpp"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

// Row-major out = a w^T is, in the column-major words of cuBLASLt, out^T [n, m] = w^T' a^T with
// both operands as they lie in memory.
namespace troupe::kernels::cuda {

namespace {

constexpr int most_algorithms = 8;

[[nodiscard]] result<void> good(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS)
    return {};
  return fail(errc::internal, std::string{what} + ": " + cublasLtGetStatusName(status));
}

cudaDataType_t data_type(dtype type) {
  return type == dtype::f32 ? CUDA_R_32F : type == dtype::bf16 ? CUDA_R_16BF : CUDA_R_16F;
}

/// A kernel of ours that may be faster than cuBLASLt.
struct own_kernel {
  std::string_view name;
  bool (*takes)(const ordered_matmul_args&);
  matmul_library::gated_product* multiply;
  /// nullptr where it has none.
  matmul_library::gated_product* gated;
  /// Its choice for one number of rows is good for others near it.
  bool many_rows = false;
  /// It tells leaders.
  bool leads = false;
};

/// Rows from which the kernels for some hundred rows and for many are candidates.
constexpr std::int64_t halved_rows = 16;
constexpr std::int64_t wide_rows = 48;

constexpr std::array<own_kernel, 4> own_kernels{
    {{"skinny",
      [](const ordered_matmul_args& args) {
        return takes_skinny(args) && args.m <= shortcuts_taken().skinny_rows;
      },
      skinny_matmul, skinny_gated_matmul},
     {"streamed",
      [](const ordered_matmul_args& args) {
        return takes_streamed(args) && shortcuts_taken().streamed;
      },
      streamed_matmul, streamed_gated_matmul},
     {"wide",
      [](const ordered_matmul_args& args) {
        return takes_wide(args) && args.m >= wide_rows && shortcuts_taken().wide;
      },
      wide_matmul, wide_gated_matmul, true, true},
     {"halved",
      [](const ordered_matmul_args& args) {
        return takes_halved(args) && args.m >= halved_rows && shortcuts_taken().halved;
      },
      halved_matmul, nullptr, true}}};

/// A shape and the algorithm that serves it.
struct product {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool chosen = false;
  bool tuned = false;
  /// The kernel of ours that is the fastest, if one is.
  const own_kernel* own = nullptr;

  product() = default;
  product(const product&) = delete;
  product& operator=(const product&) = delete;
  ~product() {
    for (const cublasLtMatrixLayout_t layout : {w, a, out})
      if (layout != nullptr)
        cublasLtMatrixLayoutDestroy(layout);
    if (operation != nullptr)
      cublasLtMatmulDescDestroy(operation);
  }

  [[nodiscard]] result<void> describe(const matmul_args& args) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const auto cols = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
    const std::array<cublasStatus_t, 5> done{
        cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                       sizeof transposed),
        cublasLtMatrixLayoutCreate(&w, data_type(args.type), cols(args.k), cols(args.n), args.k),
        cublasLtMatrixLayoutCreate(&a, data_type(args.type), cols(args.k), cols(args.m), args.lda),
        cublasLtMatrixLayoutCreate(&out, data_type(args.out_type), cols(args.n), cols(args.m),
                                   args.ldo)};
    for (const cublasStatus_t status : done)
      if (auto fine = good(status, "cuBLASLt"); !fine)
        return fine;
    return {};
  }
};

std::string shape_of(const matmul_args& args) {
  return std::to_string(args.m) + " x " + std::to_string(args.n) + " x " + std::to_string(args.k);
}

/// A shape without its rows.
std::string family_of(const matmul_args& args) {
  std::string key;
  for (const std::int64_t part : {args.n, args.k, args.lda, args.ldo})
    key += std::to_string(part) + ",";
  return key + std::to_string(static_cast<int>(args.type)) +
         std::to_string(static_cast<int>(args.out_type)) + (args.add ? "+" : "");
}

std::string key_of(const matmul_args& args) {
  return std::to_string(args.m) + "," + family_of(args);
}

/// To be raised when a kernel of our own gets faster or slower.
constexpr int own_version = 10;
constexpr std::string_view hex_digits = "0123456789abcdef";

/// The name of the kernel of ours, or the algorithm of cuBLASLt's in hexadecimal digits.
std::string choice_of(const product& p) {
  if (p.own != nullptr)
    return std::string{p.own->name};
  std::string text;
  std::array<unsigned char, sizeof p.algorithm> bytes{};
  std::memcpy(bytes.data(), &p.algorithm, bytes.size());
  for (const unsigned char byte : bytes) {
    text += hex_digits[byte >> 4U];
    text += hex_digits[byte & 15U];
  }
  return text;
}

std::optional<cublasLtMatmulAlgo_t> algorithm_of(std::string_view text) {
  cublasLtMatmulAlgo_t algorithm{};
  std::array<unsigned char, sizeof algorithm> bytes{};
  if (text.size() != 2 * bytes.size())
    return std::nullopt;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = hex_digits.find(text[i]);
    if (digit == std::string_view::npos)
      return std::nullopt;
    bytes[i / 2] = static_cast<unsigned char>(bytes[i / 2] << 4U | digit);
  }
  std::memcpy(&algorithm, bytes.data(), bytes.size());
  return algorithm;
}

} // namespace

ordered_matmul_args plain(const matmul_args& args) {
  return {.a = args.a,
          .lda = args.lda,
          .w = args.w,
          .out = args.out,
          .ldo = args.ldo,
          .m = args.m,
          .n = args.n,
          .k = args.k,
          .type = args.type,
          .out_type = args.out_type,
          .add = args.add,
          .begins = args.begins,
          .ends = args.ends,
          .leaders = args.leaders};
}

struct matmul_library::state {
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  std::unordered_map<std::string, product> products;
  matmul_choices known;
  /// Of each family which kernel of ours serves a tuned number of rows, if one does.
  std::unordered_map<std::string, std::map<std::int64_t, const own_kernel*>> tuned;

  ~state() {
    products.clear();
    if (handle != nullptr)
      cublasLtDestroy(handle);
  }

  /// The algorithms that cuBLASLt thinks best, the first one first.
  [[nodiscard]] result<int>
  candidates(const product& p,
             std::array<cublasLtMatmulHeuristicResult_t, most_algorithms>& found) const {
    cublasLtMatmulPreference_t preference = nullptr;
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &workspace_bytes, sizeof workspace_bytes);
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, p.operation, p.w, p.a, p.out, p.out, preference,
                                       most_algorithms, found.data(), &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_SUCCESS && count > 0)
      return count;
    return fail(errc::unsupported,
                std::string{"cuBLASLt has no algorithm: "} + cublasLtGetStatusName(status));
  }

  [[nodiscard]] result<product*> find(const matmul_args& args) {
    if (args.m <= 0 || args.n <= 0 || args.k <= 0 || args.lda < args.k || args.ldo < args.n)
      return fail(errc::bad_shape,
                  "matmul: strides below the columns, or an empty " + shape_of(args) + " product");
    const std::string key = key_of(args);
    product& p = products[key];
    if (p.chosen)
      return &p;
    if (auto described = p.describe(args); !described)
      return fail(described.error());
    std::array<cublasLtMatmulHeuristicResult_t, most_algorithms> found;
    const auto count = candidates(p, found);
    if (!count) {
      products.erase(key);
      return fail(count.error().code, shape_of(args) + ": " + count.error().note);
    }
    p.algorithm = found[0].algo;
    p.chosen = true;
    p.own = own_near(args);
    if (shortcuts_taken().own_untuned)
      for (const own_kernel& one : own_kernels)
        // Those that add go by the last, as they mostly do where they are measured.
        if (one.takes(plain(args)) && (p.own == nullptr || args.add))
          p.own = &one;
    return &p;
  }

  /// The kernel of ours for many rows, where it is what the next greater number of rows that was
  /// tuned takes, or else the next smaller one.
  [[nodiscard]] const own_kernel* own_near(const matmul_args& args) const {
    const auto family = tuned.find(family_of(args));
    if (family == tuned.end())
      return nullptr;
    const auto& by_rows = family->second;
    const auto above = by_rows.lower_bound(args.m);
    const own_kernel* const own = above == by_rows.end() ? std::prev(above)->second : above->second;
    return own != nullptr && own->many_rows && own->takes(plain(args)) ? own : nullptr;
  }

  /// Takes what is known of a shape; false where nothing is, or it cannot be run here.
  [[nodiscard]] bool recall(const matmul_args& args, product& p) const {
    const auto at = known.find(key_of(args));
    if (at == known.end())
      return false;
    const auto* const own =
        std::find_if(own_kernels.begin(), own_kernels.end(), [&](const own_kernel& one) {
          return one.name == at->second && one.takes(plain(args));
        });
    if (own != own_kernels.end()) {
      p.own = own;
      return true;
    }
    const auto algorithm = algorithm_of(at->second);
    cublasLtMatmulHeuristicResult_t checked{};
    if (!algorithm ||
        cublasLtMatmulAlgoCheck(handle, p.operation, p.w, p.a, p.out, p.out, &*algorithm,
                                &checked) != CUBLAS_STATUS_SUCCESS ||
        checked.workspaceSize > workspace_bytes)
      return false;
    p.algorithm = *algorithm;
    p.own = nullptr;
    return true;
  }

  [[nodiscard]] cublasStatus_t multiply(const product& p, const matmul_args& args,
                                        const cublasLtMatmulAlgo_t& algorithm,
                                        stream_ref stream) const {
    const float one = 1;
    const float kept = args.add ? 1 : 0;
    return cublasLtMatmul(handle, p.operation, &one, args.w, p.w, args.a, p.a, &kept, args.out,
                          p.out, args.out, p.out, &algorithm, workspace, workspace_bytes, stream);
  }

  /// Milliseconds of products that `multiply` enqueues, or a huge number when they do not run.
  template <class Multiply>
  [[nodiscard]] static float time_of(Multiply multiply, std::span<const void* const> weights,
                                     std::int64_t rows, stream_ref stream) {
    // Long products are timed well by few.
    const std::size_t rounds = rows > 256 ? 2 : 8;
    constexpr float never = 1e30F;
    std::array<cudaEvent_t, 2> marks{};
    for (cudaEvent_t& mark : marks)
      if (cudaEventCreate(&mark) != cudaSuccess)
        return never;
    bool good = true;
    // The host is slower at enqueuing small products than the device at making them.
    for (std::size_t i = 0; i <= rounds && good; ++i) {
      good = multiply(weights[i % weights.size()]);
      if (i == 0) {
        good = good && stall(150, stream).has_value();
        cudaEventRecord(marks[0], stream);
      }
    }
    cudaEventRecord(marks[1], stream);
    const bool ran = cudaEventSynchronize(marks[1]) == cudaSuccess;
    float time = never;
    if (!ran || !good || cudaEventElapsedTime(&time, marks[0], marks[1]) != cudaSuccess)
      time = never;
    for (const cudaEvent_t mark : marks)
      cudaEventDestroy(mark);
    return time;
  }

  /// How tune() measures.
  struct measurement {
    std::span<const void* const> weights;
    stream_ref stream;
    const matmul_follower& behind;
  };

  /// Takes the fastest of cuBLASLt's algorithms and of the kernels of ours.
  [[nodiscard]] result<void> measure(const matmul_args& args, product& p,
                                     const measurement& how) const {
    std::array<cublasLtMatmulHeuristicResult_t, most_algorithms> all;
    const auto count = candidates(p, all);
    if (!count)
      return fail(count.error());
    const auto& [weights, stream, behind] = how;
    matmul_args with = args;
    float best = 1e29F;
    for (int i = 0; i < *count; ++i) {
      const auto& algorithm = all[static_cast<std::size_t>(i)].algo;
      const auto product = [&](const void* w) {
        with.w = w;
        return multiply(p, with, algorithm, stream) == CUBLAS_STATUS_SUCCESS &&
               (!behind.run || behind.run());
      };
      const float time = time_of(product, weights, args.m, stream);
      if (time < best) {
        best = time;
        p.algorithm = algorithm;
      }
    }
    p.own = nullptr;
    for (const own_kernel& one : own_kernels) {
      if (!one.takes(plain(args)))
        continue;
      const auto product = [&](const void* w) {
        ordered_matmul_args own = plain(args);
        own.w = w;
        if (behind.in_product && one.gated != nullptr) {
          own.n /= 2;
          return one.gated(own, stream).has_value();
        }
        const bool leads = behind.leaders != nullptr && one.leads;
        own.leaders = leads ? behind.leaders : nullptr;
        return one.multiply(own, stream).has_value() && (leads || !behind.run || behind.run());
      };
      const float time = time_of(product, weights, args.m, stream);
      if (time < best) {
        best = time;
        p.own = &one;
      }
    }
    return {};
  }
};

matmul_library::matmul_library() = default;
matmul_library::matmul_library(matmul_library&&) noexcept = default;
matmul_library& matmul_library::operator=(matmul_library&&) noexcept = default;
matmul_library::~matmul_library() = default;

result<matmul_library> matmul_library::make(void* workspace, std::size_t bytes) {
  matmul_library made;
  made.state_ = std::make_unique<state>();
  made.state_->workspace = workspace;
  made.state_->workspace_bytes = bytes;
  if (auto begun = good(cublasLtCreate(&made.state_->handle), "cuBLASLt does not start"); !begun)
    return fail(begun.error());
  return made;
}

result<void> matmul_library::run(const matmul_args& args, stream_ref stream) {
  const auto found = state_->find(args);
  if (!found)
    return fail(found.error());
  if ((*found)->own != nullptr)
    return (*found)->own->multiply(plain(args), stream);
  if (!alone(plain(args)))
    return fail(errc::unsupported, "matmul: cuBLASLt has no part in norms and tells no leaders");
  return good(state_->multiply(**found, args, (*found)->algorithm, stream), "cuBLASLt");
}

matmul_library::gated_product* matmul_library::gated(const matmul_args& args) const {
  const auto found = state_->find(args);
  return found && (*found)->own != nullptr ? (*found)->own->gated : nullptr;
}

std::string_view matmul_library::kernel_of(const matmul_args& args) const {
  const auto found = state_->find(args);
  return found && (*found)->own != nullptr ? (*found)->own->name : "cuBLASLt";
}

result<void> matmul_library::tune(const matmul_args& args, std::span<const void* const> weights,
                                  stream_ref stream, const matmul_follower& behind) {
  const auto found = state_->find(args);
  if (!found)
    return fail(found.error());
  product& p = **found;
  p.tuned = true;
  if (!state_->recall(args, p))
    if (auto measured = state_->measure(args, p, {weights, stream, behind}); !measured)
      return measured;
  state_->tuned[family_of(args)][args.m] = p.own;
  return {};
}

std::vector<std::string_view> matmul_library::own_kernels_of(const matmul_args& args) {
  std::vector<std::string_view> names;
  for (const own_kernel& one : own_kernels)
    if (one.takes(plain(args)))
      names.push_back(one.name);
  return names;
}

void matmul_library::choose(const matmul_args& args, std::string_view kernel) {
  const auto* const own = std::find_if(own_kernels.begin(), own_kernels.end(),
                                       [&](const own_kernel& one) { return one.name == kernel; });
  if (const auto found = state_->find(args))
    (*found)->own = state_->tuned[family_of(args)][args.m] =
        own == own_kernels.end() ? nullptr : own;
}

bool matmul_library::recalls(const matmul_args& args) const {
  return state_->known.contains(key_of(args));
}

matmul_choices matmul_library::choices() const {
  matmul_choices made;
  for (const auto& [key, one] : state_->products)
    if (one.tuned)
      made.emplace(key, choice_of(one));
  return made;
}

void matmul_library::recall(matmul_choices known) { state_->known = std::move(known); }

std::string matmul_library::version() {
  return "cublasLt-" + std::to_string(cublasLtGetVersion()) + "-kernels-" +
         std::to_string(own_version);
}

} // namespace troupe::kernels::cuda
