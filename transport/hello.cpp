#include "transport/hello.hpp"

#include "transport/byte_io.hpp"
#include "transport/wire.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::net {

namespace {

constexpr std::size_t name_bytes_max = 256;
constexpr std::size_t note_bytes_max = 2048;
constexpr std::size_t config_parts_max = 64;

void write(byte_writer& w, const node_id& id) {
  w.number(id.high);
  w.number(id.low);
}
void write(byte_writer& w, const address& where) {
  w.text(where.host);
  w.number(where.port);
}
node_id read_node_id(byte_reader& r) {
  node_id id;
  id.high = r.number<std::uint64_t>();
  id.low = r.number<std::uint64_t>();
  return id;
}
address read_address(byte_reader& r) {
  address where;
  where.host = r.text(name_bytes_max);
  where.port = r.number<std::uint16_t>();
  return where;
}

/// The names of the parts that are not the same in both lists.
std::vector<std::string> differing_parts(const hello& a, const hello& b) {
  std::vector<std::string> out;
  // A client has no files of the cluster; what it may do, the secret decides.
  if (a.config.empty() || b.config.empty())
    return out;
  const auto lacks = [](const hello& in, const config_part& part) {
    return std::find(in.config.begin(), in.config.end(), part) == in.config.end();
  };
  for (const auto* pair : {&a, &b}) {
    const auto& other = pair == &a ? b : a;
    for (const auto& part : pair->config)
      if (lacks(other, part) && std::find(out.begin(), out.end(), part.name) == out.end())
        out.push_back(part.name);
  }
  return out;
}

} // namespace

hello hello_of(const identity& self) {
  hello out;
  out.id = self.id;
  out.name = self.name;
  out.types_hash = self.types_hash;
  out.config = self.config;
  out.has_secret = !self.secret.empty();
  return out;
}

std::vector<std::byte> encode(const hello& body) {
  std::vector<std::byte> out;
  byte_writer w{out};
  w.number(body.token);
  write(w, body.id);
  w.text(body.name);
  write(w, body.listens_at);
  w.number(body.types_hash);
  w.number(static_cast<std::uint32_t>(body.config.size()));
  for (const auto& part : body.config) {
    w.text(part.name);
    w.number(part.hash);
  }
  w.number(static_cast<std::uint8_t>(body.has_secret));
  w.number(body.window_bytes);
  w.number(body.where.host);
  w.number(body.where.process);
  w.number(body.where.started);
  w.raw(body.challenge);
  return out;
}

result<hello> decode_hello(std::span<const std::byte> body) {
  byte_reader r{body};
  hello out;
  out.token = r.number<std::uint64_t>();
  out.id = read_node_id(r);
  out.name = r.text(name_bytes_max);
  out.listens_at = read_address(r);
  out.types_hash = r.number<std::uint64_t>();
  const auto parts = r.number<std::uint32_t>();
  if (parts > config_parts_max)
    return fail(errc::corrupt_data, fmt::format("a hello with {} config parts", parts));
  for (std::uint32_t i = 0; i < parts && r.good(); ++i) {
    auto name = r.text(name_bytes_max);
    out.config.push_back({std::move(name), r.number<std::uint64_t>()});
  }
  const auto has_secret = r.number<std::uint8_t>();
  out.has_secret = has_secret == 1;
  out.window_bytes = r.number<std::uint64_t>();
  out.where.host = r.number<std::uint64_t>();
  out.where.process = r.number<std::uint64_t>();
  out.where.started = r.number<std::uint64_t>();
  const auto challenge = r.raw(out.challenge.size());
  if (!r.complete() || has_secret > 1 || out.token == 0 || !out.id)
    return fail(errc::corrupt_data, fmt::format("a hello of {} bytes is malformed", body.size()));
  std::copy(challenge.begin(), challenge.end(), out.challenge.begin());
  return out;
}

std::vector<std::byte> encode(const refusal& body) {
  std::vector<std::byte> out;
  byte_writer w{out};
  w.number(static_cast<std::uint8_t>(body.kind));
  w.text(std::string_view{body.note}.substr(0, note_bytes_max));
  write(w, body.by);
  w.text(std::string_view{body.by_name}.substr(0, name_bytes_max));
  return out;
}

result<refusal> decode_refusal(std::span<const std::byte> body) {
  byte_reader r{body};
  refusal out;
  const auto kind = r.number<std::uint8_t>();
  out.note = r.text(note_bytes_max);
  out.by = read_node_id(r);
  out.by_name = r.text(name_bytes_max);
  // Later versions may add kinds and fields; the note says enough to people.
  if (!r.good() || kind == 0)
    return fail(errc::corrupt_data, "a refusal is malformed");
  out.kind = refusal_kind{kind};
  return out;
}

error to_error(const refusal& why) {
  const auto code = [&] {
    switch (why.kind) {
    case refusal_kind::version:
      return errc::unsupported;
    case refusal_kind::types:
    case refusal_kind::config:
    case refusal_kind::same_id:
    case refusal_kind::same_name:
    case refusal_kind::duplicate:
      return errc::conflict;
    case refusal_kind::secret:
      return errc::unauthorized;
    case refusal_kind::fenced:
      return errc::peer_down;
    case refusal_kind::draining:
      return errc::draining;
    case refusal_kind::full:
      return errc::limit_exceeded;
    case refusal_kind::malformed:
      return errc::corrupt_data;
    }
    return errc::unsupported;
  }();
  return {code, why.note};
}

std::optional<refusal> misfit(const hello& mine, const hello& theirs) {
  const auto refuse = [&](refusal_kind kind, std::string note) {
    return refusal{kind, std::move(note), mine.id, mine.name};
  };
  const auto both = fmt::format("nodes '{}' and '{}'", mine.name, theirs.name);
  if (mine.id == theirs.id)
    return refuse(
        refusal_kind::same_id,
        fmt::format("node '{}' reached itself, or another node with its id {}: look at the "
                    "addresses in the cluster file",
                    mine.name, to_string(mine.id)));
  if (mine.name == theirs.name)
    return refuse(
        refusal_kind::same_name,
        fmt::format("two nodes are named '{}': a name is for one running node", mine.name));
  if (mine.has_secret != theirs.has_secret)
    return refuse(refusal_kind::secret,
                  fmt::format("node '{}' has a secret and node '{}' has none: give both the same "
                              "secret_file",
                              mine.has_secret ? mine.name : theirs.name,
                              mine.has_secret ? theirs.name : mine.name));
  if (mine.types_hash != theirs.types_hash)
    return refuse(
        refusal_kind::types,
        fmt::format("{} have different message types, or the same in another order ({:016x} "
                    "and {:016x}): run the same build on both",
                    both, mine.types_hash, theirs.types_hash));
  if (const auto parts = differing_parts(mine, theirs); !parts.empty())
    return refuse(refusal_kind::config,
                  fmt::format("{} have different configs, in: {}; start both from the same files",
                              both, fmt::join(parts, ", ")));
  return {};
}

refusal version_misfit(const hello& mine, std::uint8_t theirs) {
  return {refusal_kind::version,
          fmt::format("node '{}' speaks protocol version {} and its peer version {}: run the same "
                      "release on both",
                      mine.name, protocol_version, theirs),
          mine.id, mine.name};
}

std::vector<std::byte> encode(std::span<const known_node> nodes) {
  std::vector<std::byte> out;
  byte_writer w{out};
  const auto count = std::min(nodes.size(), gossip_nodes_max);
  w.number(static_cast<std::uint32_t>(count));
  for (const auto& node : nodes.first(count)) {
    write(w, node.id);
    w.text(node.name);
    write(w, node.listens_at);
  }
  return out;
}

result<std::vector<known_node>> decode_gossip(std::span<const std::byte> body) {
  byte_reader r{body};
  std::vector<known_node> out;
  const auto count = r.number<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && i < gossip_nodes_max && r.good(); ++i) {
    known_node node;
    node.id = read_node_id(r);
    node.name = r.text(name_bytes_max);
    node.listens_at = read_address(r);
    out.push_back(std::move(node));
  }
  if (!r.complete())
    return fail(errc::corrupt_data, "a list of known nodes is malformed");
  return out;
}

} // namespace troupe::net
