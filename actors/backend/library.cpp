#include "actors/backend/library.hpp"

#include "actors/backend/library_host.hpp"
#include "actors/backend/process_messages.hpp"

#include <fmt/format.h>

#include <dlfcn.h>

#include <algorithm>
#include <exception>
#include <string_view>
#include <vector>

namespace troupe::actors {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t longest_name = 64;

/// One part of a path, and no way out of it.
bool is_plain(std::string_view name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.size() <= longest_name && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), good);
}

/// What somebody wrote, safe to print.
std::string shown(std::string_view name) {
  std::string text{name.substr(0, longest_name)};
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return text;
}

fs::path own_backends() {
  std::error_code ec;
  const auto program = fs::read_symlink("/proc/self/exe", ec);
  return (program.parent_path() / ".." / "lib" / "troupe" / "backends").lexically_normal();
}

std::string_view text_of(const char* text) { return text == nullptr ? "" : text; }

result<void> check(const troupe_backend_description& about, const fs::path& file,
                   const std::string& name) {
  if (about.api_version != backends::api_version)
    return fail(errc::conflict,
                fmt::format("{} was built for version {} of the backend interface, and this "
                            "program has version {}; build it against this program's headers",
                            file.string(), about.api_version, backends::api_version));
  if (text_of(about.abi) != TROUPE_BACKEND_ABI)
    return fail(errc::conflict,
                fmt::format("{} was built with the ABI '{}', and this program with '{}'; build it "
                            "with the same kind of compiler",
                            file.string(), text_of(about.abi), TROUPE_BACKEND_ABI));
  if (text_of(about.name) != name)
    return fail(errc::conflict,
                fmt::format("{} says that it is the backend '{}', and the model wants '{}'; give "
                            "the file the name of its backend",
                            file.string(), text_of(about.name), name));
  if (about.base == nullptr || about.base_version == nullptr || about.make == nullptr)
    return fail(errc::conflict,
                fmt::format("{} has an incomplete description; export it with TROUPE_BACKEND or "
                            "TROUPE_HYBRID_BACKEND",
                            file.string()));
  if (*about.base != '\0' && std::string_view{about.base} != "troupe")
    return fail(errc::unsupported,
                fmt::format("{} builds on the backend '{}'; the one to build on is 'troupe'",
                            file.string(), about.base));
  return {};
}

result<void> check_base(const troupe_backend_description& about,
                        const config::backend_question& question) {
  if (std::string_view{about.base_version} == engine_version)
    return {};
  const auto asked = question.parameters.find("BASE_VERSION");
  if (asked != question.parameters.end() && asked->second == "any")
    return {};
  return fail(errc::conflict,
              fmt::format("the backend '{}' was tested with version {} of Troupe, and this is {}; "
                          "test it and record this version, or write the parameter BASE_VERSION "
                          "with the string_value \"any\" into config.pbtxt",
                          question.backend, about.base_version, engine_version));
}

result<config::backend_needs> declared(const backend_library& library,
                                       const config::backend_question& question) {
  auto made = library.make();
  if (!made)
    return fail(made.error());
  backends::declarations wishes;
  const backends::model_facts facts{.name = question.model,
                                    .version = question.version,
                                    .directory = question.model_directory,
                                    .parameters = question.parameters,
                                    .config_json = {}};
  if (auto done = guarded("auto_complete_config of the backend '" + question.backend + "'",
                          [&] { return (*made)->auto_complete_config(facts, wishes); });
      !done)
    return fail(done.error());
  return needs_of(wishes);
}

result<config::backend_needs> declared_by_hybrid(const backend_library& library,
                                                 const config::backend_question& question) {
  if (auto good = check_base(library.about(), question); !good)
    return fail(good.error());
  auto made = library.make_hybrid();
  if (!made)
    return fail(made.error());
  config::backend_needs needs;
  needs.base = library.about().base;
  auto told = guarded("own_keys of the backend '" + question.backend + "'", [&]() -> result<void> {
    needs.own_keys = (*made)->own_keys();
    needs.own_parameters = (*made)->own_parameters();
    return {};
  });
  if (!told)
    return fail(told.error());
  return needs;
}

} // namespace

result<backend_library> backend_library::open(const fs::path& file, const std::string& name) {
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return fail(errc::io_failure, fmt::format("{} cannot be opened: {}", file.string(),
                                              reason == nullptr ? "no reason given" : reason));
  }
  using entry = const troupe_backend_description* (*)();
  const auto get = reinterpret_cast<entry>(dlsym(library, backends::entry_name));
  const auto* const about = get == nullptr ? nullptr : get();
  if (about == nullptr) {
    dlclose(library);
    return fail(errc::conflict,
                fmt::format("{} has no function {}; it is no backend, or lacks TROUPE_BACKEND",
                            file.string(), backends::entry_name));
  }
  if (auto good = check(*about, file, name); !good) {
    // Its description goes with it, and is not read again.
    dlclose(library);
    return fail(good.error());
  }
  backend_library made;
  made.file_ = file;
  made.about_ = about;
  return made;
}

result<void*> backend_library::make_any() const {
  try {
    if (void* const made = about_->make())
      return made;
    return fail(errc::internal, fmt::format("{} made no backend", file_.string()));
  } catch (const std::exception& e) {
    return fail(errc::internal, fmt::format("{}: {}", file_.string(), e.what()));
  } catch (...) {
    return fail(errc::internal, fmt::format("{}: its constructor threw", file_.string()));
  }
}

result<std::unique_ptr<backends::backend>> backend_library::make() const {
  return make_any().map([](void* made) {
    return std::unique_ptr<backends::backend>{static_cast<backends::backend*>(made)};
  });
}

result<std::unique_ptr<backends::engine_backend>> backend_library::make_hybrid() const {
  return make_any().map([](void* made) {
    return std::unique_ptr<backends::engine_backend>{static_cast<backends::engine_backend*>(made)};
  });
}

namespace {

/// A link may lead to another file of the same folder, but not out of it.
result<fs::path> inside(const fs::path& place, const std::string& file) {
  std::error_code ec;
  const auto real = fs::canonical(place / file, ec);
  const auto folder = fs::canonical(place, ec);
  if (real.parent_path() == folder)
    return real;
  return fail(errc::invalid_argument,
              fmt::format("{} is a link to {}, out of its folder; copy the library there",
                          (place / file).string(), real.string()));
}

} // namespace

result<fs::path> find_library(const config::backend_question& question) {
  if (!is_plain(question.backend))
    return fail(errc::invalid_argument,
                fmt::format("'{}' is no name of a backend; use at most {} of the characters a-z, "
                            "A-Z, 0-9, '_', '-' and '.', without '.' in front",
                            shown(question.backend), longest_name));
  const auto& directory = question.model_directory;
  const auto& given = question.backend_directory;
  const std::vector<fs::path> places{directory / std::to_string(question.version), directory,
                                     (given.empty() ? own_backends() : given) / question.backend};
  const auto file = "libtroupe_" + question.backend + ".so";
  std::string looked;
  for (const auto& place : places) {
    std::error_code ec;
    if (fs::is_regular_file(place / file, ec))
      return inside(place, file);
    looked += (looked.empty() ? "" : ", ") + place.string();
  }
  return fail(errc::not_found,
              fmt::format("unable to find backend library for backend '{}': there is no {} in {}; "
                          "the program's own are 'troupe' and 'vllm'; say where yours lie with "
                          "--backend-directory",
                          question.backend, file, looked));
}

namespace {

bool is_own_process(const config::backend_question& question) {
  const auto asked = question.parameters.find("PROCESS");
  return asked != question.parameters.end() && asked->second == "own";
}

result<config::backend_needs> ask_here(const config::backend_question& question,
                                       const fs::path& file) {
  const auto library = backend_library::open(file, question.backend);
  if (!library)
    return fail(library.error());
  return library->is_hybrid() ? declared_by_hybrid(*library, question)
                              : declared(*library, question);
}

} // namespace

result<config::backend_needs> ask_backend(const config::backend_question& question) try {
  auto file = find_library(question);
  if (!file)
    return fail(file.error());
  auto needs =
      is_own_process(question) ? ask_in_process(question, *file) : ask_here(question, *file);
  if (needs)
    needs->library = std::move(*file);
  return needs;
} catch (const std::exception& e) {
  return fail(errc::internal, fmt::format("the backend '{}': {}", question.backend, e.what()));
}

} // namespace troupe::actors
