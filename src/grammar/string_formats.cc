#include "grammar/string_formats.h"

#include <fmt/format.h>

namespace minimax::grammar {

// Dates exist: years 1000 to 9999, days by month, February 29 in leap years. Offsets and seconds as RFC 3339
// has them, without leap seconds.
std::string format_pattern(std::string_view format) {
  const std::string day =
      R"((?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8])))";
  const std::string leap_year =
      R"((?:[1-9]\d(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00))";
  std::string date = fmt::format(R"((?:[1-9]\d{{3}}-{}|{}-02-29))", day, leap_year);
  std::string time = R"((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d))";
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
  std::string host = fmt::format(R"({}(?:\.{}){{0,8}})", label, label);
  if (format == "date") return date;
  if (format == "time") return time;
  if (format == "date-time") return date + "T" + time;
  if (format == "uuid") return "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}";
  if (format == "email") return R"([A-Za-z0-9_%+-]{1,32}(?:\.[A-Za-z0-9_%+-]{1,16}){0,4}@)" + host;
  if (format == "hostname") return host;
  if (format == "ipv4") {
    const std::string byte = R"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
    return fmt::format(R"({0}\.{0}\.{0}\.{0})", byte);
  }
  if (format == "uri")
    return fmt::format(R"((?:https?|ftp)://{}(?::\d{{1,5}})?(?:/[A-Za-z0-9._~!$&()*+,;=:@-]*)*)", host);
  return {};
}

}  // namespace minimax::grammar
