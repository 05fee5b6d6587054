#include "actors/edge/kserve/shared_memory.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace troupe::actors::kserve {

namespace {

constexpr std::size_t most_regions = 4096;

std::string why() { return std::generic_category().message(errno); }

bool fits(int fd, std::uint64_t offset, std::uint64_t bytes) {
  struct stat about {};
  if (fstat(fd, &about) != 0)
    return false;
  const auto size = static_cast<std::uint64_t>(about.st_size);
  return offset <= size && bytes <= size - offset;
}

} // namespace

/// An open object. Data is moved by pread and pwrite: an object that shrinks after the check ends
/// in a short count, where touching a mapping would be a signal.
struct shared_memory::mapping {
  ~mapping() {
    if (fd >= 0)
      close(fd);
  }
  int fd = -1;
  region what;
};

outcome<void> shared_memory::add(const std::string& name, region what) {
  if (name.empty() || name.size() > 256)
    return refuse("a shared memory region needs a name of 1 to 256 bytes");
  if (what.key.find('/', 1) != std::string::npos || what.key.size() < 2 || what.key.size() > 254 ||
      what.key.find('\0') != std::string::npos)
    return refuse(fmt::format("'{}' is no key of a shared memory object; write /name with no "
                              "further slash",
                              what.key.substr(0, 64)));
  auto made = std::make_shared<mapping>();
  made->fd = shm_open(what.key.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (made->fd < 0)
    return refuse(fmt::format("Unable to open shared memory region: '{}' ({})", what.key, why()));
  if (what.bytes == 0 || !fits(made->fd, what.offset, what.bytes))
    return refuse(fmt::format("failed to register shared memory region '{}': the object '{}' does "
                              "not hold {} bytes from offset {}",
                              name, what.key, what.bytes, what.offset));
  made->what = std::move(what);
  const std::lock_guard lock{mutex_};
  if (regions_.size() >= most_regions)
    return refuse(failure_code::unavailable,
                  fmt::format("{} shared memory regions are registered, the most that there may "
                              "be; unregister some",
                              most_regions));
  if (!regions_.emplace(name, std::move(made)).second)
    return refuse(failure_code::already_exists,
                  fmt::format("shared memory region '{}' already in manager", name));
  return {};
}

void shared_memory::remove(std::string_view name) {
  const std::lock_guard lock{mutex_};
  if (name.empty())
    regions_.clear();
  else if (const auto found = regions_.find(name); found != regions_.end())
    regions_.erase(found);
}

outcome<std::shared_ptr<shared_memory::mapping>>
shared_memory::place(const memory_place& at) const {
  const std::lock_guard lock{mutex_};
  const auto found = regions_.find(at.region);
  if (found == regions_.end())
    return refuse(
        fmt::format("Unable to find shared memory region: '{}'", at.region.substr(0, 64)));
  const auto& whole = found->second->what;
  if (at.offset > whole.bytes || at.bytes > whole.bytes - at.offset)
    return refuse(fmt::format("Invalid offset + byte size for shared memory region: '{}': {} bytes "
                              "from offset {} of {}",
                              at.region, at.bytes, at.offset, whole.bytes));
  return found->second;
}

outcome<void> shared_memory::check(const memory_place& at) const {
  const auto where = place(at);
  return where ? outcome<void>{} : tl::unexpected<failure>(where.error());
}

outcome<std::string> shared_memory::read(const memory_place& from) const {
  const auto where = place(from);
  if (!where)
    return tl::unexpected<failure>(where.error());
  const auto offset = (*where)->what.offset + from.offset;
  if (!fits((*where)->fd, offset, from.bytes))
    return refuse(fmt::format("the object of shared memory region '{}' has shrunk", from.region));
  std::string data(from.bytes, '\0');
  for (std::size_t have = 0; have < data.size();) {
    const auto n = pread((*where)->fd, data.data() + have, data.size() - have,
                         static_cast<off_t>(offset + have));
    if (n <= 0)
      return refuse(fmt::format("cannot read shared memory region '{}': {}", from.region,
                                n < 0 ? why() : "it has shrunk"));
    have += static_cast<std::size_t>(n);
  }
  return data;
}

outcome<void> shared_memory::write(const memory_place& to, std::string_view data) const {
  const auto where = place(to);
  if (!where)
    return tl::unexpected<failure>(where.error());
  if (data.size() > to.bytes)
    return refuse(fmt::format("shared memory size specified with the request for an output ({} "
                              "bytes) should be at least {} bytes",
                              to.bytes, data.size()));
  const auto offset = (*where)->what.offset + to.offset;
  if (!fits((*where)->fd, offset, data.size()))
    return refuse(fmt::format("the object of shared memory region '{}' has shrunk", to.region));
  for (std::size_t done = 0; done < data.size();) {
    const auto n = pwrite((*where)->fd, data.data() + done, data.size() - done,
                          static_cast<off_t>(offset + done));
    if (n <= 0)
      return refuse(fmt::format("cannot write shared memory region '{}': {}", to.region, why()));
    done += static_cast<std::size_t>(n);
  }
  return {};
}

outcome<std::string> shared_memory::status_json(std::string_view name) const {
  auto all = nlohmann::ordered_json::array();
  const std::lock_guard lock{mutex_};
  for (const auto& [known, mapped] : regions_)
    if (name.empty() || name == known)
      all.push_back({{"name", known},
                     {"key", mapped->what.key},
                     {"offset", mapped->what.offset},
                     {"byte_size", mapped->what.bytes}});
  if (!name.empty() && all.empty())
    return refuse(failure_code::not_found, fmt::format("Unable to find system shared memory region "
                                                       "'{}'",
                                                       name.substr(0, 64)));
  return all.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace troupe::actors::kserve
