#include "engine/text/jinja/strftime.hpp"

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"

namespace troupe::engine::jinja {

namespace {

constexpr std::string_view months[] = {"January",   "February", "March",    "April",
                                       "May",       "June",     "July",     "August",
                                       "September", "October",  "November", "December"};
constexpr std::string_view days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                     "Thursday", "Friday", "Saturday"};

struct civil_time {
  int year, month, day, hour, minute, second, weekday, year_day;
};

civil_time civil(std::chrono::local_seconds when) {
  namespace ch = std::chrono;
  const auto day = ch::floor<ch::days>(when);
  const ch::year_month_day date{day};
  const ch::hh_mm_ss<ch::seconds> time{when - day};
  const auto new_year = ch::local_days{date.year() / ch::January / 1};
  return {int{date.year()},
          static_cast<int>(unsigned{date.month()}),
          static_cast<int>(unsigned{date.day()}),
          static_cast<int>(time.hours().count()),
          static_cast<int>(time.minutes().count()),
          static_cast<int>(time.seconds().count()),
          static_cast<int>(ch::weekday{day}.c_encoding()),
          static_cast<int>((day - new_year).count()) + 1};
}

int twelve(int hour) { return hour % 12 == 0 ? 12 : hour % 12; }

/// What one directive prints; nothing where it is not known. '-' drops leading zeros.
std::optional<std::string> directive(char c, bool bare, const civil_time& t) {
  const auto two = [&](int n) { return bare ? fmt::format("{}", n) : fmt::format("{:02}", n); };
  const auto month = months[t.month - 1];
  const auto day = days[t.weekday];
  switch (c) {
  case 'Y':
    return fmt::format("{}", t.year);
  case 'y':
    return two(t.year % 100);
  case 'm':
    return two(t.month);
  case 'B':
    return std::string(month);
  case 'b':
  case 'h':
    return std::string(month.substr(0, 3));
  case 'd':
    return two(t.day);
  case 'e':
    return bare ? fmt::format("{}", t.day) : fmt::format("{:2}", t.day);
  case 'A':
    return std::string(day);
  case 'a':
    return std::string(day.substr(0, 3));
  case 'H':
    return two(t.hour);
  case 'I':
    return two(twelve(t.hour));
  case 'M':
    return two(t.minute);
  case 'S':
    return two(t.second);
  case 'p':
    return t.hour < 12 ? "AM" : "PM";
  case 'j':
    return bare ? fmt::format("{}", t.year_day) : fmt::format("{:03}", t.year_day);
  case 'u':
    return fmt::format("{}", t.weekday == 0 ? 7 : t.weekday);
  case 'w':
    return fmt::format("{}", t.weekday);
  case 'F':
    return fmt::format("{}-{:02}-{:02}", t.year, t.month, t.day);
  case 'T':
    return fmt::format("{:02}:{:02}:{:02}", t.hour, t.minute, t.second);
  case 'D':
  case 'x':
    return fmt::format("{:02}/{:02}/{:02}", t.month, t.day, t.year % 100);
  case 'R':
    return fmt::format("{:02}:{:02}", t.hour, t.minute);
  case 'X':
    return fmt::format("{:02}:{:02}:{:02}", t.hour, t.minute, t.second);
  case 'c':
    return fmt::format("{} {} {:2} {:02}:{:02}:{:02} {}", day.substr(0, 3), month.substr(0, 3),
                       t.day, t.hour, t.minute, t.second, t.year);
  case 'n':
    return "\n";
  case 't':
    return "\t";
  case '%':
    return "%";
  case 'Z':
  case 'z':
    return "";
  default:
    return std::nullopt;
  }
}

} // namespace

result<std::string> format_time(runtime& rt, std::string_view form,
                                std::chrono::local_seconds when) {
  const auto t = civil(when);
  std::string out;
  for (std::size_t i = 0; i < form.size(); ++i) {
    if (form[i] != '%' || i + 1 == form.size()) {
      out += form[i];
      continue;
    }
    const bool bare = form[i + 1] == '-' && i + 2 < form.size();
    i += bare ? 2 : 1;
    const auto text = directive(form[i], bare, t);
    if (!text)
      return fail(errc::unsupported, fmt::format("strftime_now does not know %{}", form[i]));
    if (auto ok = append(rt, out, *text); !ok)
      return fail(ok.error());
  }
  return out;
}

} // namespace troupe::engine::jinja
