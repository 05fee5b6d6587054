#include "actors/backend/host_command.hpp"

#include "troupe/actors/backends.hpp"

#include <mutex>
#include <utility>

namespace troupe::actors {

namespace {

struct guarded_words {
  std::mutex mutex;
  std::vector<std::string> words;
};

guarded_words& the_command() {
  static guarded_words command;
  return command;
}

} // namespace

void set_host_command(std::vector<std::string> words) {
  auto& command = the_command();
  const std::lock_guard lock{command.mutex};
  command.words = std::move(words);
}

std::vector<std::string> host_command() {
  auto& command = the_command();
  const std::lock_guard lock{command.mutex};
  return command.words;
}

} // namespace troupe::actors
