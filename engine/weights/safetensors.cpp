#include "engine/weights/safetensors.hpp"

#include "engine/weights/fingerprint.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <utility>

namespace troupe::engine {

namespace {

using json = nlohmann::json;

/// Bits of one element of each dtype that the format knows.
constexpr std::array<std::pair<std::string_view, std::uint64_t>, 18> dtype_bits{{
    {"BOOL", 8},
    {"U8", 8},
    {"I8", 8},
    {"F8_E5M2", 8},
    {"F8_E4M3", 8},
    {"F8_E8M0", 8},
    {"I16", 16},
    {"U16", 16},
    {"F16", 16},
    {"BF16", 16},
    {"I32", 32},
    {"U32", 32},
    {"F32", 32},
    {"I64", 64},
    {"U64", 64},
    {"F64", 64},
    {"C64", 64},
    {"F4", 4},
}};

std::optional<std::uint64_t> bits_of(std::string_view dtype) {
  for (const auto& [name, bits] : dtype_bits)
    if (name == dtype)
      return bits;
  return std::nullopt;
}

/// One entry as it stands in the header, unchecked.
struct raw_entry {
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

/// Reads the header event by event, so that neither nesting nor a repeated name is lost in a tree.
class header_reader final : public nlohmann::json_sax<json> {
public:
  static constexpr int max_depth = 8;

  std::map<std::string, raw_entry, std::less<>> entries;
  std::string problem;

  bool null() override { return other_value("null"); }
  bool boolean(bool) override { return other_value("a boolean"); }
  bool number_integer(number_integer_t) override { return other_value("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return other_value("a number that is not whole");
  }
  bool binary(binary_t&) override { return other_value("binary data"); }

  bool number_unsigned(number_unsigned_t number) override {
    if (list_ == nullptr)
      return other_value("a number");
    list_->push_back(number);
    return list_->size() <= 16 || broken("a list of more than 16 numbers");
  }

  bool string(string_t& text) override {
    if (depth_ != 2 || in_metadata_ || field_ != "dtype")
      return other_value("text");
    entry_->dtype = std::move(text);
    return true;
  }

  bool start_object(std::size_t) override {
    if (depth_ == 1)
      in_metadata_ = name_ == "__metadata__";
    else if (depth_ > 1 && !in_metadata_)
      return broken("an object inside an entry");
    return deeper();
  }

  bool key(string_t& text) override {
    if (depth_ == 1)
      return start_entry(std::move(text));
    field_ = std::move(text);
    return true;
  }

  bool end_object() override {
    --depth_;
    return true;
  }

  bool start_array(std::size_t) override {
    if (depth_ == 0)
      return broken("a list instead of an object");
    if (in_metadata_ && depth_ > 1)
      return deeper();
    if (depth_ != 2 || (field_ != "shape" && field_ != "data_offsets"))
      return broken("an unexpected list");
    auto& list = field_ == "shape" ? entry_->shape : entry_->offsets;
    if (list)
      return broken(fmt::format("'{}' twice", field_));
    list_ = &list.emplace();
    return deeper();
  }

  bool end_array() override {
    list_ = nullptr;
    --depth_;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    problem = fmt::format("the header is not JSON (byte {} of it)", position);
    return false;
  }

private:
  bool deeper() {
    return ++depth_ <= max_depth || broken(fmt::format("nesting deeper than {}", max_depth));
  }

  bool start_entry(std::string name) {
    name_ = std::move(name);
    if (name_ == "__metadata__")
      return true;
    const auto [at, inserted] = entries.try_emplace(name_);
    entry_ = &at->second;
    return inserted || broken("the name stands there twice");
  }

  bool other_value(std::string_view kind) {
    return (in_metadata_ && depth_ > 1) || broken(fmt::format("has {} where none belongs", kind));
  }

  bool broken(std::string what) {
    problem = name_.empty() ? fmt::format("the header: {}", what)
                            : fmt::format("tensor '{}': {}", name_.substr(0, 200), what);
    return false;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  std::string name_;
  std::string field_;
  raw_entry* entry_ = nullptr;
  std::vector<std::uint64_t>* list_ = nullptr;
};

/// Bytes of a tensor of that shape, or nothing when they do not fit 62 bits or end inside a byte.
std::optional<std::uint64_t> bytes_of(std::span<const std::uint64_t> shape, std::uint64_t bits) {
  std::uint64_t product = bits;
  for (const std::uint64_t extent : shape) {
    if (extent > (std::uint64_t{1} << 62) || __builtin_mul_overflow(product, extent, &product) ||
        product >> 62 != 0)
      return std::nullopt;
  }
  return product % 8 == 0 ? std::optional{product / 8} : std::nullopt;
}

/// What is wrong with an entry, or "".
std::string examine(const raw_entry& raw, std::uint64_t data_bytes) {
  if (!raw.dtype || !raw.shape || !raw.offsets)
    return "dtype, shape or data_offsets is missing";
  if (raw.offsets->size() != 2)
    return "data_offsets is not a pair";
  const auto bits = bits_of(*raw.dtype);
  if (!bits)
    return fmt::format("unknown dtype '{}'", raw.dtype->substr(0, 40));
  const std::uint64_t begin = raw.offsets->front();
  const std::uint64_t end = raw.offsets->back();
  if (begin > end || end > data_bytes)
    return fmt::format("its bytes [{}, {}) are not inside the file's {} bytes of data; the file is "
                       "truncated or damaged",
                       begin, end, data_bytes);
  const auto needed = bytes_of(*raw.shape, *bits);
  if (!needed)
    return fmt::format("shape [{}] of {} is too large or ends inside a byte",
                       fmt::join(*raw.shape, ", "), *raw.dtype);
  if (*needed != end - begin)
    return fmt::format("shape [{}] of {} needs {} bytes, data_offsets give {}",
                       fmt::join(*raw.shape, ", "), *raw.dtype, *needed, end - begin);
  return {};
}

/// What is wrong with how the tensors lie in the file, or "".
std::string examine_cover(const std::map<std::string, raw_entry, std::less<>>& entries,
                          std::uint64_t data_bytes) {
  struct extent {
    std::uint64_t begin;
    std::uint64_t end;
    const std::string* name;
    auto operator<=>(const extent& other) const noexcept = default;
  };
  std::vector<extent> extents;
  extents.reserve(entries.size());
  for (const auto& [name, raw] : entries)
    extents.push_back({raw.offsets->front(), raw.offsets->back(), &name});
  std::sort(extents.begin(), extents.end());
  std::uint64_t reached = 0;
  for (const extent& e : extents) {
    if (e.begin != reached)
      return fmt::format("tensor '{}': begins at byte {} of the data where {} is next: tensors {}",
                         e.name->substr(0, 200), e.begin, reached,
                         e.begin < reached ? "overlap" : "leave a hole");
    reached = e.end;
  }
  if (reached != data_bytes)
    return fmt::format("the tensors cover {} of {} bytes of data", reached, data_bytes);
  return {};
}

auto corrupt(const std::filesystem::path& path, std::string_view what) {
  return fail(errc::corrupt_data, fmt::format("{}: {}", path.string(), what));
}

} // namespace

result<safetensors_file> safetensors_file::open(const std::filesystem::path& path) {
  auto mapped = mapped_file::open(path);
  if (!mapped)
    return fail(mapped.error());
  const std::span<const std::byte> bytes = mapped->bytes();
  if (bytes.size() < 10)
    return corrupt(path, fmt::format("{} bytes are too few for a safetensors file", bytes.size()));
  static_assert(std::endian::native == std::endian::little);
  std::uint64_t header_bytes = 0;
  if (auto read = mapped->copy(bytes.first(8), reinterpret_cast<std::byte*>(&header_bytes)); !read)
    return fail(read.error());
  if (header_bytes > max_header_bytes || header_bytes > bytes.size() - 8)
    return corrupt(path, fmt::format("the header claims {} bytes; the file has {} and a header at "
                                     "most {}: it is truncated or no safetensors file",
                                     header_bytes, bytes.size(), max_header_bytes));
  const auto text = mapped->text(8 + header_bytes);
  if (!text)
    return fail(text.error());
  header_reader reader;
  if (!json::sax_parse(text->begin() + 8, text->end(), &reader) || !reader.problem.empty())
    return corrupt(path, reader.problem);

  const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);
  for (const auto& [name, raw] : reader.entries)
    if (const std::string problem = examine(raw, data.size()); !problem.empty())
      return corrupt(path, fmt::format("tensor '{}': {}", name.substr(0, 200), problem));
  if (const std::string problem = examine_cover(reader.entries, data.size()); !problem.empty())
    return corrupt(path, problem);

  safetensors_file file;
  for (auto& [name, raw] : reader.entries) {
    const std::uint64_t begin = raw.offsets->front();
    file.entries_.emplace(
        name, safetensors_entry{.dtype = std::move(*raw.dtype),
                                .shape = {raw.shape->begin(), raw.shape->end()},
                                .bytes = data.subspan(begin, raw.offsets->back() - begin)});
  }
  file.header_bytes_ = header_bytes;
  file.file_ = std::move(*mapped);
  return file;
}

std::uint64_t safetensors_file::identity() const noexcept {
  constexpr std::size_t most = 32;
  fingerprint print;
  // Read without the map: a file that has become shorter is found by whoever copies its tensors.
  const auto sample = [&](std::span<const std::byte> part) {
    std::array<std::byte, most> taken{};
    if (file_.copy(part, taken.data()))
      print.add(std::span<const std::byte>{taken}.first(part.size()));
  };
  print.add(std::uint64_t{file_.bytes().size()});
  if (const auto header = file_.text(8 + header_bytes_))
    print.add(std::as_bytes(std::span{*header}));
  // Every tensor is sampled at its ends and in its middle, so that a checkpoint in which only some
  // layers were trained further is told apart.
  for (const auto& [name, entry] : entries_) {
    const std::size_t taken = std::min(entry.bytes.size(), most);
    sample(entry.bytes.first(taken));
    sample(entry.bytes.last(taken));
    sample(entry.bytes.subspan((entry.bytes.size() - taken) / 2, taken));
  }
  return print.value();
}

} // namespace troupe::engine
