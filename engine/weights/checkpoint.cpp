// The weight source over safetensors files.
#include "engine/weights/fingerprint.hpp"
#include "engine/weights/json_file.hpp"
#include "engine/weights/safetensors.hpp"
#include "engine/weights/weight_source.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

namespace troupe::engine {

namespace {

namespace fs = std::filesystem;
using kernels::dtype;

std::optional<dtype> dtype_of(std::string_view name) {
  if (name == "F32")
    return dtype::f32;
  if (name == "F16")
    return dtype::f16;
  if (name == "BF16")
    return dtype::bf16;
  return std::nullopt;
}

class checkpoint final : public weight_source {
public:
  explicit checkpoint(fs::path shown) : shown_{std::move(shown)} {}

  /// Takes a file into the checkpoint. With `index`, only the tensors that it places there.
  result<void> add(safetensors_file file, const std::set<std::string>* index) {
    const fs::path path = file.file().path();
    files_.push_back({.file = std::move(file)});
    for (const auto& [name, entry] : files_.back().file.entries())
      if ((index == nullptr || index->contains(name)) &&
          !tensors_.try_emplace(name, place{entry, files_.size() - 1}).second)
        return fail(errc::corrupt_data,
                    fmt::format("{}: tensor '{}' is in another shard too", path.string(), name));
    if (index == nullptr)
      return {};
    for (const std::string& name : *index)
      if (!tensors_.contains(name))
        return fail(errc::corrupt_data,
                    fmt::format("{}: tensor '{}', which the index places there, is missing",
                                path.string(), name));
    return {};
  }

  result<weight_tensor> get(const weight_request& wanted) override {
    const auto at = tensors_.find(wanted.name);
    if (at == tensors_.end())
      return fail(errc::not_found,
                  fmt::format("{}: tensor '{}' of shape [{}] is missing", shown_.string(),
                              wanted.name, fmt::join(wanted.shape, ", ")));
    at->second.used = true;
    const safetensors_entry& entry = at->second.entry;
    shard& from = files_[at->second.file];
    const std::string path = from.file.file().path().string();
    if (entry.shape != wanted.shape)
      return fail(errc::bad_shape,
                  fmt::format("{}: tensor '{}' has the shape [{}], config.json asks for [{}]", path,
                              wanted.name, fmt::join(entry.shape, ", "),
                              fmt::join(wanted.shape, ", ")));
    const auto type = dtype_of(entry.dtype);
    if (!type)
      return fail(errc::unsupported,
                  fmt::format("{}: tensor '{}' is {}; weights may be F32, F16 or BF16", path,
                              wanted.name, entry.dtype));
    auto tensor = view_of(entry, *type);
    if (tensor && tensor->view.data == entry.bytes.data())
      from.views.push_back(entry.bytes);
    return tensor;
  }

  result<void> copy(std::span<const std::byte> part, std::byte* to) const override {
    if (const shard* from = shard_of(part))
      return from->file.file().copy(part, to);
    return weight_source::copy(part, to);
  }

  void done_with(const weight_tensor& tensor) noexcept override {
    const std::span part{static_cast<const std::byte*>(tensor.view.data),
                         static_cast<std::size_t>(tensor.view.size()) *
                             kernels::size_of(tensor.view.type)};
    if (shard* const from = shard_of(part)) {
      from->file.file().drop(part);
      const auto one = std::ranges::find_if(
          from->views, [&](const auto& view) { return view.data() == part.data(); });
      if (one != from->views.end())
        from->views.erase(one);
    }
  }

  result<void> settle() override {
    auto good = intact();
    std::erase_if(tensors_,
                  [&](const auto& item) { return files_[item.second.file].views.empty(); });
    for (shard& one : files_)
      if (one.views.empty())
        one.file = {};
      else
        one.file.keep_only(one.views);
    return good;
  }

  result<void> intact() const override {
    for (const shard& one : files_)
      if (!one.file.file().path().empty())
        if (auto good = one.file.file().intact(); !good)
          return good;
    return {};
  }

  std::vector<std::string> unused() const override {
    std::vector<std::string> names;
    for (const auto& [name, at] : tensors_)
      if (!at.used)
        names.push_back(name);
    return names;
  }

  std::uint64_t identity() const override {
    fingerprint print;
    for (const shard& one : files_)
      print.add(one.file.identity());
    return print.value();
  }

private:
  struct place {
    safetensors_entry entry;
    std::size_t file;
    bool used = false;
  };

  struct shard {
    safetensors_file file{};
    /// Of tensors that were handed out as views into the file and are not done with.
    std::vector<std::span<const std::byte>> views{};
  };

  /// The file that `part` lies in; nullptr for what was made from one.
  const shard* shard_of(std::span<const std::byte> part) const noexcept {
    for (const shard& one : files_) {
      const auto whole = one.file.file().bytes();
      if (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size())
        return &one;
    }
    return nullptr;
  }
  shard* shard_of(std::span<const std::byte> part) noexcept {
    return const_cast<shard*>(std::as_const(*this).shard_of(part));
  }

  static result<weight_tensor> view_of(const safetensors_entry& entry, dtype type) {
    weight_tensor tensor;
    tensor.view.type = type;
    tensor.view.rank = static_cast<int>(entry.shape.size());
    std::copy(entry.shape.begin(), entry.shape.end(), tensor.view.shape.begin());
    tensor.view.data = entry.bytes.data();
    if (reinterpret_cast<std::uintptr_t>(entry.bytes.data()) % kernels::size_of(type) == 0)
      return tensor;
    // A header of odd length puts the values at odd addresses, which kernels may not read.
    auto copy = kernels::buffer::make(entry.bytes.size());
    if (!copy)
      return fail(copy.error());
    std::memcpy(copy->data(), entry.bytes.data(), entry.bytes.size());
    tensor.view.data = copy->data();
    tensor.storage = std::move(*copy);
    return tensor;
  }

  fs::path shown_;
  std::vector<shard> files_;
  std::map<std::string, place, std::less<>> tensors_;
};

/// Which tensors lie in which shard, as an index file says.
using shard_map = std::map<std::string, std::set<std::string>>;

result<shard_map> read_index(const fs::path& path) {
  auto parsed = read_json_object(path);
  if (!parsed)
    return fail(parsed.error());
  const auto weights = parsed->find("weight_map");
  if (weights == parsed->end() || !weights->is_object())
    return fail(errc::corrupt_data, fmt::format("{}: has no object 'weight_map'", path.string()));
  shard_map shards;
  for (const auto& [name, file] : weights->items()) {
    if (!file.is_string())
      return fail(errc::corrupt_data, fmt::format("{}: weight_map['{}'] is not a file name",
                                                  path.string(), name.substr(0, 200)));
    const std::string shard = file.get<std::string>();
    if (shard.empty() || shard.front() == '.' || shard.find('/') != std::string::npos ||
        shard.find('\0') != std::string::npos)
      return fail(
          errc::corrupt_data,
          fmt::format("{}: weight_map['{}'] = '{}' is not the plain name of a file beside it",
                      path.string(), name.substr(0, 200), shard.substr(0, 200)));
    shards[shard].insert(name);
  }
  return shards;
}

} // namespace

result<void> weight_source::copy(std::span<const std::byte> part, std::byte* to) const {
  std::memcpy(to, part.data(), part.size());
  return {};
}

result<void> weight_source::settle() { return {}; }

result<void> weight_source::intact() const { return {}; }

result<std::unique_ptr<weight_source>> open_safetensors(const fs::path& model_dir) {
  auto source = std::make_unique<checkpoint>(model_dir);
  std::error_code ignored;
  const fs::path single = model_dir / "model.safetensors";
  const fs::path index = model_dir / "model.safetensors.index.json";
  shard_map shards;
  if (!fs::exists(single, ignored)) {
    if (!fs::exists(index, ignored))
      return fail(errc::not_found,
                  fmt::format("{}: has neither model.safetensors nor model.safetensors.index.json; "
                              "put the checkpoint there, or set load_format to \"dummy\"",
                              model_dir.string()));
    auto read = read_index(index);
    if (!read)
      return fail(read.error());
    shards = std::move(*read);
  }
  if (shards.empty()) {
    auto file = safetensors_file::open(single);
    if (!file)
      return fail(file.error());
    if (auto added = source->add(std::move(*file), nullptr); !added)
      return fail(added.error());
  }
  for (const auto& [name, tensors] : shards) {
    auto file = safetensors_file::open(model_dir / name);
    if (!file)
      return fail(file.error());
    if (auto added = source->add(std::move(*file), &tensors); !added)
      return fail(added.error());
  }
  return source;
}

} // namespace troupe::engine
