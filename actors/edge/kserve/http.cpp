#include "actors/edge/kserve/http.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/kserve/call.hpp"
#include "actors/edge/kserve/control.hpp"
#include "actors/edge/kserve/generate_json.hpp"
#include "actors/edge/kserve/inflate.hpp"
#include "actors/edge/kserve/settings.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <utility>

namespace troupe::actors::kserve {

namespace {

reply with_body(std::string body) {
  reply r;
  r.body = std::move(body);
  return r;
}

/// Health is a status alone.
reply yes_or_no(bool good) { return {good ? 200U : 400U, "text/plain", {}, {}}; }

reply reply_of(outcome<std::string> answer) {
  return answer ? with_body(std::move(*answer)) : failure_reply(answer.error());
}

reply reply_of(const outcome<void>& done) {
  return done ? with_body({}) : failure_reply(done.error());
}

reply index(const service& around, std::string_view body) {
  bool ready_only = false;
  if (!body.empty()) {
    const auto asked = parse_body(body);
    if (!asked)
      return failure_reply({failure_code::invalid_arg, asked.error().message});
    if (const auto ready = asked->find("ready"); ready != asked->end()) {
      if (!ready->is_boolean())
        return failure_reply({failure_code::invalid_arg, "'ready' must be true or false"});
      ready_only = ready->get<bool>();
    }
  }
  return with_body(around.index(ready_only));
}

outcome<void> register_memory(service& around, const http_request& request) {
  const auto body = parse_body(request.body);
  if (!body)
    return refuse(body.error().message);
  const auto key = body->find("key");
  const auto offset = body->find("offset");
  const auto bytes = body->find("byte_size");
  if (key == body->end() || !key->is_string())
    return refuse("'key' must be the name of a shared memory object");
  if (bytes == body->end() || !bytes->is_number_unsigned())
    return refuse("'byte_size' must be a whole number");
  if (offset != body->end() && !offset->is_number_unsigned())
    return refuse("'offset' must be a whole number");
  return around.memory().add(request.where.name,
                             {.key = key->get<std::string>(),
                              .offset = offset == body->end() ? 0 : offset->get<std::uint64_t>(),
                              .bytes = bytes->get<std::uint64_t>()});
}

failure no_cuda_memory() {
  return {failure_code::unsupported,
          "CUDA shared memory is not supported here; use system shared memory"};
}

/// infer and generate, which have one response.
class whole_exchange final : public exchange {
public:
  whole_exchange(std::unique_ptr<call> running, infer_body asked, bool flat)
      : call_{std::move(running)}, asked_{std::move(asked)}, flat_{flat} {}

  void begin() override { call_->begin(); }
  output take() override {
    output out;
    for (const auto& r : call_->take()) {
      out.end = true;
      if (r.error)
        out.whole = failure_reply(*r.error);
      else
        out.whole = flat_ ? with_body(generate_json(r)) : infer_reply(r, asked_);
    }
    return out;
  }

private:
  std::unique_ptr<call> call_;
  infer_body asked_;
  bool flat_;
};

/// generate_stream: an event per response; the first one decides the status.
class event_exchange final : public exchange {
public:
  explicit event_exchange(std::unique_ptr<call> running) : call_{std::move(running)} {}

  void begin() override { call_->begin(); }
  output take() override {
    output out;
    for (const auto& r : call_->take()) {
      out.end = r.last;
      // Of a backend whose end is no response of its own.
      if (r.last && r.outputs.empty() && !r.error && std::exchange(begun_, true))
        break;
      if (r.error && !std::exchange(begun_, true)) {
        out.whole = failure_reply(*r.error);
        return out;
      }
      begun_ = true;
      out.bytes += "data: " + (r.error ? error_json(r.error->text) : generate_json(r)) + "\n\n";
    }
    return out;
  }

private:
  std::unique_ptr<call> call_;
  bool begun_ = false;
};

outcome<infer_body> read_infer(service& around, const http_request& request) {
  std::string unpacked;
  auto body = request.body;
  if (!request.content_encoding.empty() && request.content_encoding != "identity") {
    auto plain = inflate_body(body, request.max_body_bytes);
    if (!plain)
      return tl::unexpected<failure>(std::move(plain.error()));
    unpacked = std::move(*plain);
    body = unpacked;
  }
  const auto split = json_length(request.json_length, body.size());
  if (!split)
    return tl::unexpected<failure>(split.error());
  return parse_infer(body, *split, around.memory());
}

outcome<infer_body> read_generate(const service& around, const http_request& request) {
  const auto model =
      find_version(*around.desk()->view(), request.where.name, request.where.version);
  if (!model)
    return tl::unexpected<failure>(model.error());
  auto read = parse_generate(request.body, *model->declared);
  if (!read)
    return tl::unexpected<failure>(std::move(read.error()));
  return infer_body{std::move(*read), false};
}

/// What a method that carries one response says to a request for several, in Triton's words.
failure one_response(operation what) {
  if (what == operation::infer)
    return {failure_code::unsupported,
            "HTTP end point doesn't support models with decoupled transaction policy when 'stream' "
            "is set; use generate_stream, or ModelStreamInfer of the gRPC service"};
  return {failure_code::invalid_arg, "generate expects model to produce exactly 1 response, use "
                                     "generate stream for requests with 'stream' set"};
}

} // namespace

reply failure_reply(const failure& f) {
  reply r;
  r.status = http_status(f.code);
  r.body = error_json(f.text);
  return r;
}

reply answer_plain(service& around, const http_request& request) {
  const auto& where = request.where;
  const bool change = request.method == "POST";
  switch (where.what) {
  case operation::server:
    return with_body(around.server_json());
  case operation::live:
    return yes_or_no(around.live());
  case operation::ready:
    return yes_or_no(around.ready());
  case operation::model_ready:
    return yes_or_no(around.model_ready(where.name, where.version));
  case operation::metadata:
    return reply_of(around.metadata(where.name, where.version));
  case operation::config:
    return reply_of(around.config(where.name, where.version));
  case operation::stats:
    return reply_of(around.statistics_json(where.name, where.version));
  case operation::index:
    return index(around, request.body);
  case operation::memory_status:
    return reply_of(around.memory().status_json(where.name));
  case operation::memory_register:
    return reply_of(register_memory(around, request));
  case operation::memory_unregister:
    around.memory().remove(where.name);
    return with_body({});
  case operation::logging:
    return reply_of(change ? change_logging(request.body) : outcome<std::string>{logging_json()});
  case operation::trace:
    if (auto known = around.knows(where.name); !known)
      return failure_reply(known.error());
    return reply_of(change ? change_trace(request.body) : outcome<std::string>{trace_json()});
  default:
    return failure_reply(no_cuda_memory());
  }
}

namespace {

tl::expected<std::unique_ptr<exchange>, reply> open_order(std::shared_ptr<service> around,
                                                          const http_request& request,
                                                          std::function<void()> wake) {
  if (const auto may = around->may_control(); !may)
    return tl::unexpected(failure_reply(may.error()));
  auto order = read_order(request.body, request.where.what == operation::load, request.where.name);
  if (!order)
    return tl::unexpected(failure_reply(order.error()));
  return order_exchange(std::move(around), std::move(*order), std::move(wake));
}

} // namespace

tl::expected<std::unique_ptr<exchange>, reply> open_exchange(std::shared_ptr<service> around,
                                                             const http_request& request,
                                                             std::function<void()> wake) {
  const auto what = request.where.what;
  if (what == operation::load || what == operation::unload)
    return open_order(std::move(around), request, std::move(wake));
  auto read =
      what == operation::infer ? read_infer(*around, request) : read_generate(*around, request);
  if (!read)
    return tl::unexpected(failure_reply(read.error()));
  read->request.model = request.where.name;
  read->request.version = request.where.version;
  read->request.arrival = request.arrival;
  auto running = call::open(std::move(around), read->request, std::move(wake));
  if (!running)
    return tl::unexpected(failure_reply(running.error()));
  if (what == operation::generate_stream)
    return std::make_unique<event_exchange>(std::move(*running));
  if ((*running)->many())
    return tl::unexpected(failure_reply(one_response(what)));
  (*running)->expect_one();
  // What the call needs it has; the reply needs the outputs alone.
  read->request.inputs.clear();
  return std::make_unique<whole_exchange>(std::move(*running), std::move(*read),
                                          what == operation::generate);
}

} // namespace troupe::actors::kserve
