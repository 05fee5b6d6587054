// A reranker as a backend: a query and documents in, a BM25 score for each document out. Okapi BM25
// (Robertson and Zaragoza, 2009) over the documents of the request, as retrieval pipelines use it.

#include <troupe/actors/backend_api.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace troupe::backends;
using troupe::errc;
using troupe::error;
using troupe::fail;
using troupe::result;

using words = std::vector<std::string>;

/// Letters and digits in runs, ASCII in lower case; bytes beyond ASCII count as letters.
words words_of(std::string_view text) {
  words all;
  std::string word;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || u >= 0x80)
      word += upper ? static_cast<char>(c - 'A' + 'a') : c;
    else if (!word.empty())
      all.push_back(std::exchange(word, {}));
  }
  if (!word.empty())
    all.push_back(std::move(word));
  return all;
}

class bm25 : public backend {
public:
  result<void> auto_complete_config(const model_facts&, declarations& wanted) override {
    wanted.inputs = {{"query", datatype::bytes, {1}},
                     {"documents", datatype::bytes, {-1}},
                     {"top_k", datatype::int32, {1}, true}};
    wanted.outputs = {{"scores", datatype::fp32, {-1}}, {"order", datatype::int32, {-1}}};
    wanted.max_batch_size = 0;
    wanted.decoupled = false;
    return {};
  }

  result<void> initialize(const model_facts& model, host& around) override {
    host_ = &around;
    try {
      k1_ = std::stod(model.parameter("k1", "1.2"));
      b_ = std::stod(model.parameter("b", "0.75"));
    } catch (const std::exception&) {
      return fail(errc::invalid_argument, "the parameters k1 and b must be numbers");
    }
    if (!(k1_ >= 0) || !(b_ >= 0 && b_ <= 1))
      return fail(errc::invalid_argument, "k1 must be 0 or more, and b from 0 to 1");
    std::ifstream file{model.version_directory() / "stopwords.txt"};
    for (std::string word; file >> word;)
      stopwords_.insert(word);
    around.log(log_severity::info, "bm25: " + std::to_string(stopwords_.size()) + " stop words");
    return {};
  }

  result<void> execute(std::span<const exchange_ptr> requests) override {
    for (const auto& one : requests)
      answer(*one);
    return {};
  }

private:
  void answer(exchange& one) {
    const auto& request = one.input();
    const auto documents = request.find("documents")->strings();
    const auto query = words_of(request.find("query")->strings().at(0));
    auto keep = static_cast<std::int64_t>(documents.size());
    if (const auto* top = request.find("top_k")) {
      if (top->as<std::int32_t>()[0] < 1)
        return one.fail({errc::invalid_argument, "top_k must be 1 or more"});
      keep = std::min<std::int64_t>(keep, top->as<std::int32_t>()[0]);
    }
    const auto scores = scores_of(query, documents);
    std::vector<std::int32_t> order(documents.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t x, std::int32_t y) {
      return scores[static_cast<std::size_t>(x)] > scores[static_cast<std::size_t>(y)];
    });
    order.resize(static_cast<std::size_t>(keep));
    host_->count("documents", static_cast<double>(documents.size()));
    const auto count = static_cast<std::int64_t>(scores.size());
    one.respond({.outputs = {tensor::of<float>("scores", datatype::fp32, {count}, scores),
                             tensor::of<std::int32_t>("order", datatype::int32, {keep}, order)},
                 .parameters = {}});
  }

  std::vector<float> scores_of(const words& query, const std::vector<std::string_view>& documents) {
    std::vector<std::map<std::string, double>> counts(documents.size());
    std::vector<double> lengths(documents.size());
    std::map<std::string, double> holders;
    for (std::size_t d = 0; d < documents.size(); ++d) {
      for (auto& word : words_of(documents[d]))
        if (!stopwords_.contains(word) && ++counts[d][word] == 1)
          ++holders[word];
      for (const auto& [word, n] : counts[d])
        lengths[d] += n;
    }
    const auto total = std::accumulate(lengths.begin(), lengths.end(), 0.0);
    const auto n = static_cast<double>(documents.size());
    const double mean = total > 0 ? total / n : 1;
    std::vector<float> scores(documents.size());
    for (std::size_t d = 0; d < documents.size(); ++d) {
      double score = 0;
      for (const auto& word : query) {
        const auto found = counts[d].find(word);
        if (found == counts[d].end())
          continue;
        const double with = holders[word];
        const double rarity = std::log(1 + (n - with + 0.5) / (with + 0.5));
        const double tf = found->second;
        score += rarity * tf * (k1_ + 1) / (tf + k1_ * (1 - b_ + b_ * lengths[d] / mean));
      }
      scores[d] = static_cast<float>(score);
    }
    return scores;
  }

  host* host_ = nullptr;
  double k1_ = 1.2;
  double b_ = 0.75;
  std::set<std::string> stopwords_;
};

} // namespace

TROUPE_BACKEND("bm25", bm25)
