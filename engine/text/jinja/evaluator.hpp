#pragma once

#include <map>

#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/ops.hpp"

namespace troupe::engine::jinja {

/// The variables of one block; what it lacks is looked up in the block around it.
struct scope {
  scope* parent = nullptr;
  std::map<std::string_view, value> vars;
  bool captured = false; ///< A macro refers to it, so it lives until the rendering ends.
};

/// A macro, or the body of a call block as `caller`.
struct macro_object : object {
  const stmt* definition;
  scope* closure;
  bool is_caller;
  macro_object(const stmt* d, scope* c, bool caller)
      : object(object_kind::macro), definition(d), closure(c), is_caller(caller) {}
};

/// Text that a rendering collects, paid for while it grows.
class output {
public:
  explicit output(runtime& rt) : rt_(rt) {}
  output(const output&) = delete;
  output& operator=(const output&) = delete;
  ~output() { rt_.budget.give(text_.size()); }

  [[nodiscard]] result<void> add(std::string_view more);
  [[nodiscard]] const std::string& text() const { return text_; }

private:
  runtime& rt_;
  std::string text_;
};

/// Renders a parsed template once. Expressions are in eval_expr.cpp, calls in eval_call.cpp,
/// statements in eval_stmt.cpp.
class evaluator {
public:
  evaluator(runtime& rt, std::string_view name) : rt_(rt), name_(name) {}

  /// Makes a variable of the outermost scope; `name` must outlive the evaluator.
  void define(std::string_view name, value v) { root_.vars.insert_or_assign(name, std::move(v)); }
  [[nodiscard]] result<std::string> render(const body& statements);

private:
  enum class flow : std::uint8_t { normal, stop, skip };
  class entered;

  // Statements.
  [[nodiscard]] result<flow> run(const body& statements, scope& s, output& out);
  [[nodiscard]] result<flow> run_one(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<flow> run_scoped(const body& statements, scope& s, output& out);
  [[nodiscard]] result<flow> run_print(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<flow> run_branch(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<flow> run_loop(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<flow> run_pass(const stmt& st, const value& item, scope& inner, output& out);
  [[nodiscard]] result<list_ptr> loop_items(const stmt& st, scope& s);
  [[nodiscard]] result<flow> run_set(const stmt& st, scope& s);
  [[nodiscard]] result<flow> run_set_block(const stmt& st, scope& s);
  [[nodiscard]] result<flow> run_macro(const stmt& st, scope& s);
  [[nodiscard]] result<flow> run_call_block(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<flow> run_filter_block(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<flow> run_with(const stmt& st, scope& s, output& out);
  [[nodiscard]] result<value> capture(const body& statements, scope& s);
  [[nodiscard]] result<void> assign(const expr& target, const value& v, scope& s);
  [[nodiscard]] result<flow> print(const value& v, output& out, std::uint32_t line);
  [[nodiscard]] result<value> make_macro(const stmt& st, scope& s, bool caller);

  // Expressions.
  [[nodiscard]] result<value> eval(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_any(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_name(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_items(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_dict(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_binary(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_concat(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_compare(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_logic(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_conditional(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_access(const expr& e, scope& s);
  [[nodiscard]] result<value> eval_slice(const expr& e, scope& s);

  // Calls.
  [[nodiscard]] result<value> eval_call(const expr& e, scope& s, const value* caller);
  [[nodiscard]] result<value> eval_filter(const expr& e, scope& s, const value* subject);
  [[nodiscard]] result<value> eval_test(const expr& e, scope& s);
  [[nodiscard]] result<arguments> eval_args(const expr& e, scope& s);
  [[nodiscard]] result<void> spread(const argument& arg, const value& v, arguments& out);
  [[nodiscard]] result<value> call(const value& callee, const arguments& args, std::uint32_t line);
  [[nodiscard]] result<value> call_macro(const macro_object& m, const arguments& args);
  [[nodiscard]] result<void> bind_macro(const macro_object& m, const arguments& args, scope& inner);
  [[nodiscard]] result<value> call_object(object& o, const arguments& args);

  // Scopes, errors and limits.
  [[nodiscard]] scope* push(scope* parent);
  void pop(scope* s);
  [[nodiscard]] result<void> enter(std::uint32_t line);
  /// The error with the place where it arose, unless it is the template's own message.
  [[nodiscard]] tl::unexpected<error> at(std::uint32_t line, error e) const;
  template <class T>
  [[nodiscard]] result<T> placed(std::uint32_t line, result<T> r) const {
    return r ? std::move(r) : result<T>(at(line, std::move(r.error())));
  }

  runtime& rt_;
  std::string_view name_;
  scope root_;
  std::deque<scope> scopes_;
  std::vector<scope*> free_scopes_;
  std::uint32_t depth_ = 0;
};

/// Counts one level of depth, and holds a scope where one is pushed.
class evaluator::entered {
public:
  explicit entered(evaluator& e, scope* parent = nullptr)
      : e_(e), scope_(parent ? e.push(parent) : nullptr) {
    ++e_.depth_;
  }
  entered(const entered&) = delete;
  entered& operator=(const entered&) = delete;
  ~entered() {
    --e_.depth_;
    if (scope_)
      e_.pop(scope_);
  }
  [[nodiscard]] scope& inner() const { return *scope_; }

private:
  evaluator& e_;
  scope* scope_;
};

} // namespace troupe::engine::jinja
