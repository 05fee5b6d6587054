#include "config/models.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "config/completion.hpp"
#include "config/text.hpp"
#include "config/triton_reader.hpp"

namespace troupe::config {

namespace {

/// What a library is found and asked by.
struct library_search {
  const triton_draft& draft;
  const repository_entry& entry;
  const model_context& context;
};

/// A backend of people's own is a library that somebody has to have.
std::optional<backend_needs> ask_library(const library_search& search, std::uint64_t version,
                                         diagnostic_sink& sink) {
  const auto& [draft, entry, context] = search;
  const auto& can = context.options.capabilities;
  const auto& name = draft.message.backend();
  if (!can.ask_backend || name.empty() ||
      std::find(can.backends.begin(), can.backends.end(), name) != can.backends.end())
    return std::nullopt;
  backend_question question{.backend = name,
                            .model = entry.name,
                            .model_directory = entry.directory,
                            .version = version,
                            .backend_directory = *context.cluster.backend_directory,
                            .parameters = {}};
  for (const auto& [key, value] : draft.message.parameters())
    question.parameters[key] = value.string_value();
  auto needs = can.ask_backend(question);
  if (needs)
    return std::move(*needs);
  sink.error(needs.error().code, draft.place("backend"), "backend", needs.error().note);
  return std::nullopt;
}

void check_custom(const triton_draft& draft, const build_capabilities& can, diagnostic_sink& sink) {
  const auto& name = draft.message.backend();
  if (can.ask_backend || name.empty() ||
      std::find(can.backends.begin(), can.backends.end(), name) != can.backends.end())
    return;
  std::vector<std::string_view> known{"troupe", "vllm"};
  known.insert(known.end(), can.backends.begin(), can.backends.end());
  sink.error(errc::unsupported, draft.place("backend"), "backend",
             fmt::format("unable to find backend library for backend {}, there are {}{}",
                         in_quotes(name), choices(known), did_you_mean(name, known)));
}

/// Whether the backend lives in a child process, and how long each of its calls may take there.
void check_process(const triton_draft& draft, diagnostic_sink& sink) {
  const auto written = [&](const char* key) -> const std::string* {
    const auto found = draft.message.parameters().find(key);
    return found == draft.message.parameters().end() ? nullptr : &found->second.string_value();
  };
  const auto complain = [&](const char* key, const std::string& value, const char* wanted) {
    const auto path = element_path("parameters", key);
    sink.error(errc::invalid_argument, draft.place(path), path,
               fmt::format("must be {}, not {}", wanted, in_quotes(value)));
  };
  if (const auto* process = written("PROCESS");
      process != nullptr && *process != "own" && *process != "shared")
    complain("PROCESS", *process, "\"shared\" or \"own\"");
  const auto* limit = written("PROCESS_LIMIT_SECONDS");
  if (limit == nullptr)
    return;
  double seconds = 0;
  const auto* const end = limit->data() + limit->size();
  const auto [at, ec] = std::from_chars(limit->data(), end, seconds);
  if (ec != std::errc{} || at != end || !(seconds >= 0.1 && seconds <= 1e6))
    complain("PROCESS_LIMIT_SECONDS", *limit, "a number of seconds from 0.1 to 1000000");
}

/// A user who wants the engine in a child would think that it is there.
void refuse_process_of_engine(const triton_draft& draft, diagnostic_sink& sink) {
  const auto found = draft.message.parameters().find("PROCESS");
  if (found == draft.message.parameters().end() || found->second.string_value() != "own")
    return;
  const auto path = element_path("parameters", "PROCESS");
  sink.error(
      errc::unsupported, draft.place(path), path,
      fmt::format("'own' is for custom backends; the backend '{}' is the engine, which lives "
                  "in this process: remove the parameter",
                  draft.message.backend()));
}

void read_engines(triton_draft& draft, const repository_entry& entry, const model_context& context,
                  read_model_result& out, diagnostic_sink& sink) {
  for (const auto version : out.description.versions) {
    auto engine = read_model(entry, version, context, out.own_keys, sink);
    apply_to_engine(draft, context.cluster, context.options, engine, sink);
    out.engines.push_back(std::move(engine));
  }
}

/// The library of each version: one may lie in a version's own directory.
std::vector<std::filesystem::path> libraries_of(const library_search& search,
                                                const std::vector<std::uint64_t>& versions,
                                                const backend_needs& highest,
                                                diagnostic_sink& sink) {
  std::vector<std::filesystem::path> all;
  for (const auto version : versions) {
    if (version == versions.back()) {
      all.push_back(highest.library);
      continue;
    }
    const auto needs = ask_library(search, version, sink);
    if (!needs)
      continue;
    all.push_back(needs->library);
    if (needs->base != highest.base)
      sink.error(errc::conflict, search.draft.place("backend"), "backend",
                 fmt::format("the library of version {} builds on '{}' and that of version {} on "
                             "'{}'; the versions of one model need the same",
                             version, needs->base, versions.back(), highest.base));
  }
  return all;
}

} // namespace

std::optional<read_model_result> read_whole_model(const repository_entry& entry,
                                                  const model_context& context,
                                                  const std::string* config_json,
                                                  diagnostic_sink& sink) {
  const auto before = sink.error_count();
  const auto good = [&] { return sink.error_count() == before; };
  const auto repository = entry.directory.parent_path();
  const auto print = fingerprint_model(repository, entry.name);
  auto draft = read_draft(entry, config_json, sink);
  if (!draft)
    return std::nullopt;
  read_model_result out;
  out.description.versions = choose_versions(*draft, entry.versions, sink);
  const auto* backend = find_backend(draft->message.backend());
  std::optional<backend_needs> needs;
  if (backend == nullptr && !out.description.versions.empty()) {
    check_process(*draft, sink);
    if (good())
      needs = ask_library({*draft, entry, context}, out.description.versions.back(), sink);
    if (needs && !needs->base.empty())
      backend = find_backend(needs->base);
  }
  std::vector<std::filesystem::path> libraries;
  if (needs) {
    out.own_keys = needs->own_keys;
    libraries = libraries_of({*draft, entry, context}, out.description.versions, *needs, sink);
  }
  if (backend != nullptr) {
    if (!needs)
      refuse_process_of_engine(*draft, sink);
    complete_for_backend(*draft, *backend, sink);
    check_for_engine(*draft, sink);
  } else if (needs) {
    complete_for_library(*draft, *needs, sink);
    check_for_library(*draft, sink);
  } else {
    check_custom(*draft, context.options.capabilities, sink);
  }
  check_draft(*draft, entry.name, sink);
  if (backend != nullptr)
    read_engines(*draft, entry, context, out, sink);
  const auto again = fingerprint_model(repository, entry.name);
  if (print && (!again || *again != *print)) {
    sink.error(errc::busy, {origin_kind::user_file, entry.directory.string(), 0, {}}, "",
               "changed while it was read; try again");
    return std::nullopt;
  }
  if (!good())
    return std::nullopt;
  const auto instances =
      out.engines.empty() ? setting<std::uint32_t>{1, {}} : out.engines.back().instances;
  complete_defaults(*draft, backend != nullptr, *instances, instances.from);
  out.description = make_triton_model(*draft, entry, std::move(out.description.versions));
  if (needs) {
    out.description.library = std::move(needs->library);
    out.description.libraries = std::move(libraries);
    out.description.base = std::move(needs->base);
    out.description.own_parameters = std::move(needs->own_parameters);
  }
  for (std::size_t i = 0; i < out.engines.size(); ++i) {
    out.engines[i].triton = out.description;
    if (needs)
      out.engines[i].triton.library = out.description.libraries[i];
  }
  out.fingerprint = print ? *print : 0;
  return out;
}

} // namespace troupe::config
