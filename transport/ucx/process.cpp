#include "transport/ucx/process.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

namespace troupe::net::ucx {

namespace {

/// Field 22 of /proc/PID/stat: the start of the process in clock ticks since boot; 0 when it is
/// gone.
std::uint64_t start_of(const std::string& process) {
  std::ifstream in{"/proc/" + process + "/stat"};
  std::string text;
  std::getline(in, text);
  const auto name_end = text.rfind(')');
  if (name_end == std::string::npos)
    return 0;
  std::istringstream fields{text.substr(name_end + 1)};
  std::string field;
  fields >> field;
  if (field == "Z" || field == "X")
    return 0;
  for (int number = 4; number <= 22; ++number)
    fields >> field;
  return std::strtoull(field.c_str(), nullptr, 10);
}

/// Differs between hosts, boots and process namespaces.
std::uint64_t host_here() {
  std::ifstream in{"/proc/sys/kernel/random/boot_id"};
  std::string boot;
  std::getline(in, boot);
  std::error_code none;
  const auto space = std::filesystem::read_symlink("/proc/self/ns/pid", none).string();
  return std::hash<std::string>{}(boot + space);
}

} // namespace

process_identity this_process() {
  return {host_here(), static_cast<std::uint64_t>(getpid()), start_of("self")};
}

bool is_gone(const process_identity& which, const process_identity& here) {
  return which.process != 0 && which.host == here.host &&
         start_of(std::to_string(which.process)) != which.started;
}

} // namespace troupe::net::ucx
