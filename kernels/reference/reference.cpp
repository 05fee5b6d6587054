#include "kernels/reference/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace troupe::kernels::reference {

namespace {

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += a[i] * b[i];
  return sum;
}

} // namespace

std::vector<double> linear(std::span<const double> a, std::span<const double> w, std::int64_t k) {
  const auto width = static_cast<std::size_t>(k);
  std::vector<double> c;
  c.reserve(a.size() / width * (w.size() / width));
  for (std::size_t m = 0; m < a.size(); m += width)
    for (std::size_t n = 0; n < w.size(); n += width)
      c.push_back(dot(a.subspan(m, width), w.subspan(n, width)));
  return c;
}

std::vector<double> silu_mul(std::span<const double> gate, std::span<const double> up) {
  std::vector<double> out(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i)
    out[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  return out;
}

std::vector<double> rms_norm(std::span<const double> x, std::span<const double> weight,
                             double eps) {
  const std::size_t cols = weight.size();
  std::vector<double> out(x.size());
  for (std::size_t row = 0; row < x.size(); row += cols) {
    const auto values = x.subspan(row, cols);
    const double mean = dot(values, values) / static_cast<double>(cols);
    for (std::size_t c = 0; c < cols; ++c)
      out[row + c] = values[c] / std::sqrt(mean + eps) * weight[c];
  }
  return out;
}

std::vector<double> rope(std::span<const double> head, std::int64_t position,
                         std::int64_t rotary_dim, double theta) {
  std::vector<double> out(head.begin(), head.end());
  const auto half = static_cast<std::size_t>(rotary_dim / 2);
  for (std::size_t i = 0; i < half; ++i) {
    const double power = -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim);
    const double angle = static_cast<double>(position) * std::pow(theta, power);
    out[i] = head[i] * std::cos(angle) - head[half + i] * std::sin(angle);
    out[half + i] = head[half + i] * std::cos(angle) + head[i] * std::sin(angle);
  }
  return out;
}

std::vector<double> attention(const attention_shape& shape, std::span<const double> q,
                              std::span<const double> k, std::span<const double> v) {
  const auto dim = static_cast<std::size_t>(shape.dim);
  const auto at = [dim](std::span<const double> x, std::int64_t index) {
    return x.subspan(static_cast<std::size_t>(index) * dim, dim);
  };
  std::vector<double> out;
  for (std::int64_t item = 0; item < shape.rows * shape.heads; ++item) {
    const std::int64_t row = item / shape.heads;
    const std::int64_t kv_head = item % shape.heads / (shape.heads / shape.kv_heads);
    const std::int64_t seen = shape.positions - shape.rows + row + 1;
    std::vector<double> p(static_cast<std::size_t>(seen));
    double most = -std::numeric_limits<double>::infinity();
    for (std::int64_t i = 0; i < seen; ++i) {
      const double score = dot(at(q, item), at(k, i * shape.kv_heads + kv_head)) * shape.scale;
      p[static_cast<std::size_t>(i)] = score;
      most = std::max(most, score);
    }
    double sum = 0;
    for (double& x : p)
      sum += x = std::exp(x - most);
    std::vector<double> acc(dim);
    for (std::int64_t i = 0; i < seen; ++i)
      for (std::size_t d = 0; d < dim; ++d)
        acc[d] += p[static_cast<std::size_t>(i)] / sum * at(v, i * shape.kv_heads + kv_head)[d];
    out.insert(out.end(), acc.begin(), acc.end());
  }
  return out;
}

} // namespace troupe::kernels::reference
