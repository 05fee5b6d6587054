#pragma once

#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/lexer.hpp"

namespace troupe::engine::jinja {

/// Parses a template into statements. Unknown filters and tests are errors here, except inside a
/// condition, where they may guard themselves and only fail when reached; so does Jinja.
/// @errors corrupt_data: syntax; unsupported: a tag, filter or test that is not there, by name;
///         limit_exceeded: source_bytes_max, syntax_depth_max
[[nodiscard]] result<body> parse(std::string_view source, std::string_view name, const limits& l);

/// The parser itself: statements in parse_stmt.cpp, expressions in parse_expr.cpp.
class parser {
public:
  parser(std::vector<token> tokens, std::string_view name, const limits& l)
      : tokens_(std::move(tokens)), name_(name), limits_(l) {}

  /// Statements up to the tag whose name is in `ends` (which is consumed up to that name, kept in
  /// `ended_by()`), or up to the end of the template where `ends` is empty.
  [[nodiscard]] result<body> statements(std::initializer_list<std::string_view> ends);

private:
  struct nest; // counts the depth of syntax for as long as it lives

  // Tokens.
  [[nodiscard]] const token& now() const { return tokens_[at_]; }
  [[nodiscard]] const token& ahead() const {
    return tokens_[std::min(at_ + 1, tokens_.size() - 1)];
  }
  [[nodiscard]] bool sees(std::string_view symbol) const;
  [[nodiscard]] bool sees_name(std::string_view name) const;
  [[nodiscard]] bool skip(std::string_view symbol);
  [[nodiscard]] bool skip_name(std::string_view name);
  void next() { at_ += at_ + 1 < tokens_.size() ? 1 : 0; }
  [[nodiscard]] result<void> expect(std::string_view symbol);
  [[nodiscard]] result<void> expect_block_end();
  [[nodiscard]] result<std::string> expect_name();
  [[nodiscard]] tl::unexpected<error> broken(std::string_view what) const;
  [[nodiscard]] tl::unexpected<error> unexpected() const;
  [[nodiscard]] result<void> too_deep() const;

  // Statements.
  [[nodiscard]] result<stmt_ptr> statement();
  [[nodiscard]] result<stmt_ptr> print_rest(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> print_tag(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> branch(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> loop(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> set(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> macro(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> call_block(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> filter_block(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> with(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> generation(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> interrupt(std::uint32_t line);
  [[nodiscard]] result<stmt_ptr> refused(std::uint32_t line);
  [[nodiscard]] result<void> signature(stmt& s);
  [[nodiscard]] result<expr_ptr> target(bool attributes);
  [[nodiscard]] result<expr_ptr> one_target(bool attributes);
  [[nodiscard]] result<void> block_body(stmt& s, std::string_view end);
  [[nodiscard]] result<void> macro_body(stmt& s, std::string_view end);

  // Expressions, weakest binding first.
  enum class tuple_mode : std::uint8_t { full, no_condition };
  [[nodiscard]] result<expr_ptr> tuple(tuple_mode mode);
  [[nodiscard]] result<expr_ptr> expression();
  [[nodiscard]] result<expr_ptr> logic(expr_kind kind);
  [[nodiscard]] result<expr_ptr> negation();
  [[nodiscard]] result<expr_ptr> comparison();
  [[nodiscard]] result<expr_ptr> sum();
  [[nodiscard]] result<expr_ptr> concatenation();
  [[nodiscard]] result<expr_ptr> product();
  [[nodiscard]] result<expr_ptr> power();
  [[nodiscard]] result<expr_ptr> unary(bool filters);
  [[nodiscard]] result<expr_ptr> primary();
  [[nodiscard]] result<expr_ptr> named_primary();
  [[nodiscard]] result<expr_ptr> parenthesised();
  [[nodiscard]] result<expr_ptr> list_literal();
  [[nodiscard]] result<expr_ptr> dict_literal();
  [[nodiscard]] result<expr_ptr> postfix(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> filters_and_tests(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> filter(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> filter_chain(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> test(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> attribute(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> subscript(expr_ptr subject);
  [[nodiscard]] result<expr_ptr> call(expr_ptr subject);
  [[nodiscard]] result<void> call_args(expr& into);
  [[nodiscard]] result<void> one_arg(expr& into);
  [[nodiscard]] result<std::string> dotted_name();
  [[nodiscard]] expr_ptr make(expr_kind kind) const;
  /// Computes the height of a finished node and refuses it where it is too high.
  [[nodiscard]] result<expr_ptr> done(expr_ptr e) const;

  std::vector<token> tokens_;
  std::string_view name_;
  limits limits_;
  std::size_t at_ = 0;
  std::uint32_t depth_ = 0;
  std::uint32_t conditions_ = 0; ///< Conditions around the current token.
  std::uint32_t loops_ = 0;      ///< Loops around it, up to the nearest macro.
  bool mentions_varargs_ = false;
  bool mentions_kwargs_ = false;
};

struct parser::nest {
  std::uint32_t& depth;
  explicit nest(std::uint32_t& d) : depth(d) { ++depth; }
  nest(const nest&) = delete;
  nest& operator=(const nest&) = delete;
  ~nest() { --depth; }
};

} // namespace troupe::engine::jinja
