#include "actors/edge/grpc/messages.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <functional>

namespace troupe::actors::kserve {
namespace {

using inference::ModelInferRequest;

ModelInferRequest::InferInputTensor& add_input(ModelInferRequest& m, const char* name,
                                               const char* type) {
  auto& input = *m.add_inputs();
  input.set_name(name);
  input.set_datatype(type);
  input.add_shape(1);
  return input;
}

std::string refusal(const ModelInferRequest& m) {
  const auto read = read_request(m, shared_memory{});
  REQUIRE_FALSE(read);
  return read.error().text;
}

std::string data_of_one(const char* type,
                        const std::function<void(inference::InferTensorContents&)>& set) {
  ModelInferRequest m;
  set(*add_input(m, "x", type).mutable_contents());
  const auto read = read_request(m, shared_memory{});
  return read ? read->inputs.at(0).data : "refused: " + read.error().text;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST_CASE("raw buffers go to the inputs in their order") {
  ModelInferRequest m;
  m.set_model_name("bard");
  m.set_model_version("2");
  m.set_id("q");
  (*m.mutable_parameters())["priority"].set_uint64_param(7);
  (*m.mutable_parameters())["temperature"].set_double_param(0.5);
  add_input(m, "a", "BYTES");
  add_input(m, "b", "INT32");
  m.add_raw_input_contents("one");
  m.add_raw_input_contents("two");
  m.add_outputs()->set_name("text_output");
  const auto read = read_request(m, shared_memory{});
  REQUIRE(read);
  CHECK((read->model == "bard" && read->version == "2" && read->id == "q"));
  CHECK(std::get<std::int64_t>(read->parameters.at("priority")) == 7);
  CHECK(std::get<double>(read->parameters.at("temperature")) == 0.5);
  CHECK((read->inputs.at(0).data == "one" && read->inputs.at(1).data == "two"));
  CHECK(read->inputs.at(1).type == datatype::int32);
  CHECK(read->outputs.at(0).name == "text_output");
}

TEST_CASE("what does not fit is refused with the request's id") {
  ModelInferRequest m;
  m.set_id("q");
  add_input(m, "a", "BYTES");
  m.add_raw_input_contents("one");
  m.add_raw_input_contents("two");
  CHECK(has(refusal(m), "[request id: q] raw_input_contents has 2 buffers"));
  add_input(m, "b", "BYTES");
  add_input(m, "c", "BYTES");
  CHECK(has(refusal(m), "none is left for input 'c'"));
  m.mutable_inputs(0)->mutable_contents()->add_bytes_contents("x");
  CHECK(has(refusal(m), "contents field must not be specified"));
  m.mutable_inputs(0)->set_datatype("BYTE");
  CHECK(has(refusal(m), "unknown datatype 'BYTE'"));
  for (int i = 0; i < 65; ++i)
    m.mutable_inputs(0)->add_shape(1);
  m.mutable_inputs(0)->set_datatype("BYTES");
  CHECK(has(refusal(m), "66 dimensions"));
  (*m.mutable_parameters())["p"];
  CHECK(has(refusal(m), "parameter 'p' has no value"));
  (*m.mutable_parameters())["p"].set_uint64_param(1ULL << 63U);
  CHECK(has(refusal(m), "larger than 2^63 - 1"));
}

TEST_CASE("places in shared memory and classes are checked") {
  ModelInferRequest m;
  auto& where = *add_input(m, "a", "BYTES").mutable_parameters();
  where["shared_memory_region"].set_bool_param(true);
  CHECK(has(refusal(m), "must be a string"));
  where["shared_memory_region"].set_string_param("r");
  where["shared_memory_byte_size"].set_int64_param(-1);
  CHECK(has(refusal(m), "must be a whole number"));
  where["shared_memory_byte_size"].set_int64_param(1);
  CHECK(has(refusal(m), "Unable to find shared memory region: 'r'"));
  m.clear_inputs();
  auto& out = *m.add_outputs();
  (*out.mutable_parameters())["classification"].set_int64_param(3);
  const auto read = read_request(m, shared_memory{});
  REQUIRE_FALSE(read);
  CHECK(read.error().code == failure_code::unsupported);
}

TEST_CASE("typed contents become the bytes of their type") {
  using contents = inference::InferTensorContents;
  CHECK(data_of_one("BOOL", [](contents& c) { c.add_bool_contents(true); }) == "\x01");
  CHECK(data_of_one("INT8", [](contents& c) { c.add_int_contents(-1); }) == "\xff");
  CHECK(data_of_one("UINT16", [](contents& c) { c.add_uint_contents(0x4241); }) == "AB");
  CHECK(data_of_one("BYTES", [](contents& c) { c.add_bytes_contents("hi"); }) ==
        std::string("\2\0\0\0hi", 6));
  const auto half = data_of_one("FP32", [](contents& c) { c.add_fp32_contents(0.5F); });
  float value = 0;
  REQUIRE(half.size() == sizeof value);
  std::memcpy(&value, half.data(), sizeof value);
  CHECK(value == 0.5F);
  CHECK(has(data_of_one("INT8", [](contents& c) { c.add_int_contents(200); }), "holds 200"));
  CHECK(has(data_of_one("UINT8", [](contents& c) { c.add_uint_contents(256); }), "holds 256"));
  CHECK(has(data_of_one("BOOL", [](contents& c) { c.add_int_contents(1); }), "another type"));
  CHECK(has(data_of_one("BYTES", [](contents& c) { c.add_int_contents(1); }), "another type"));
  CHECK(
      has(data_of_one("FP16", [](contents& c) { c.add_fp32_contents(1); }), "raw_input_contents"));
}

TEST_CASE("a response keeps the place of each output") {
  infer_response r{.model = "m", .version = "1", .id = "q"};
  r.outputs.push_back({.name = "a",
                       .type = datatype::bytes,
                       .shape = {2},
                       .data = {},
                       .memory = memory_place{"r", 4, 8}});
  r.outputs.push_back({.name = "b", .type = datatype::uint32, .shape = {1}, .data = "1234"});
  r.parameters["triton_final_response"] = true;
  inference::ModelInferResponse m;
  write_response(std::move(r), m);
  REQUIRE(m.raw_output_contents_size() == 2);
  CHECK((m.raw_output_contents(0).empty() && m.raw_output_contents(1) == "1234"));
  CHECK(m.outputs(0).parameters().at("shared_memory_offset").int64_param() == 4);
  CHECK(m.outputs(0).parameters().at("shared_memory_byte_size").int64_param() == 8);
  CHECK((m.outputs(0).datatype() == "BYTES" && m.outputs(0).shape(0) == 2));
  CHECK(m.parameters().at("triton_final_response").bool_param());
  CHECK((m.model_name() == "m" && m.model_version() == "1" && m.id() == "q"));
}

} // namespace
} // namespace troupe::actors::kserve
