#include "config/models.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/completion.hpp"
#include "config/text.hpp"
#include "config/triton_reader.hpp"

namespace troupe::config {

namespace {

/// A backend of people's own is a library that somebody has to have.
void check_custom(const triton_draft& draft, const build_capabilities& can, diagnostic_sink& sink) {
  const auto& name = draft.message.backend();
  if (name.empty() ||
      std::find(can.backends.begin(), can.backends.end(), name) != can.backends.end())
    return;
  std::vector<std::string_view> known{"troupe", "vllm"};
  known.insert(known.end(), can.backends.begin(), can.backends.end());
  sink.error(errc::unsupported, draft.place("backend"), "backend",
             fmt::format("unable to find backend library for backend {}, there are {}{}",
                         in_quotes(name), choices(known), did_you_mean(name, known)));
}

void read_engines(triton_draft& draft, const repository_entry& entry, const model_context& context,
                  read_model_result& out, diagnostic_sink& sink) {
  for (const auto version : out.description.versions) {
    auto engine = read_model(entry, version, context, sink);
    apply_to_engine(draft, context.cluster, context.options, engine, sink);
    out.engines.push_back(std::move(engine));
  }
  const auto& can = context.options.capabilities;
  if (out.description.versions.size() > 1 && !can.several_versions)
    sink.warn(draft.place("version_policy"), "version_policy",
              fmt::format("chooses {} versions, of which this build serves the highest, {}",
                          out.description.versions.size(), out.description.versions.back()));
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
  if (backend != nullptr) {
    complete_for_backend(*draft, *backend, sink);
    check_for_engine(*draft, sink);
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
  complete_defaults(*draft, *instances, instances.from);
  out.description = make_triton_model(*draft, entry, std::move(out.description.versions));
  for (auto& engine : out.engines)
    engine.triton = out.description;
  out.fingerprint = print ? *print : 0;
  return out;
}

} // namespace troupe::config
