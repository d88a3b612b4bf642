#include "grammar/json_text.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::grammar {
namespace {

constexpr int64_t kMaxDigits = 16;

// What may stand in a string as it is.
CharSet plain_characters() {
  CharSet set{{0x20, kLastCharacter}};
  const CharSet special{{'"', '"'}, {'\\', '\\'}};
  return set.intersection(special.complement());
}

CharSet characters(std::string_view ascii) {
  CharSet set;
  for (const char c : ascii) set.add(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
  return set;
}

const CharSet& digits() {
  static const CharSet kDigits{{'0', '9'}};
  return kDigits;
}

std::string escaped(uint32_t character) {
  switch (character) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return fmt::format("\\u{:04x}", character);
  }
}

}  // namespace

// The rule is declared before it is made, since values hold values.
ExprId JsonText::once(RuleId& rule, const char* name, ExprId (JsonText::*make)()) {
  if (rule < 0) {
    rule = builder_.declare(name);
    const ExprId body = (this->*make)();
    builder_.define(rule, body);
  }
  return builder_.call(rule);
}

ExprId JsonText::space() { return once(space_, "white space", &JsonText::make_space); }
ExprId JsonText::value() { return once(value_, "value", &JsonText::make_value); }
ExprId JsonText::object() { return once(object_, "object", &JsonText::make_object); }
ExprId JsonText::array() { return once(array_, "array", &JsonText::make_array); }
ExprId JsonText::integer() { return once(integer_, "integer", &JsonText::make_integer); }
ExprId JsonText::number() { return once(number_, "number", &JsonText::make_number); }
ExprId JsonText::string_char() { return once(char_, "character", &JsonText::make_char); }

ExprId JsonText::make_space() {
  if (white_space_ == JsonSpace::kOneLine) return builder_.optional(builder_.literal(" "));
  const ExprId indent = builder_.repeat(builder_.chars(characters(" \t")), 0, kMaxIndent);
  return builder_.choice(
      {builder_.empty(), builder_.literal(" "), builder_.sequence({builder_.literal("\n"), indent})});
}

ExprId JsonText::make_value() {
  return builder_.choice({object(), array(), string(), number(), builder_.literal("true"),
                          builder_.literal("false"), builder_.literal("null")});
}

ExprId JsonText::make_object() { return object_of(pair(string(), value()), 0, kUnbounded); }
ExprId JsonText::make_array() { return array_of(value(), 0, kUnbounded); }

ExprId JsonText::make_char() {
  const CharSet hex{{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
  const auto unit = [&](const CharSet& first, const CharSet& second) {
    return builder_.sequence({builder_.chars(characters("u")), builder_.chars(first), builder_.chars(second),
                              builder_.chars(hex), builder_.chars(hex)});
  };
  const CharSet high = characters("dD");
  const CharSet before_surrogates = hex.intersection(high.complement());
  const ExprId pair = builder_.sequence(
      {unit(high, characters("89abAB")), builder_.literal("\\"), unit(high, characters("cdefCDEF"))});
  const ExprId escape =
      builder_.choice({builder_.chars(characters("\"\\/bfnrt")), unit(before_surrogates, hex),
                       unit(high, characters("01234567")), pair});
  return builder_.choice(
      {builder_.chars(plain_characters()), builder_.sequence({builder_.literal("\\"), escape})});
}

ExprId JsonText::make_integer() {
  const ExprId more = builder_.repeat(builder_.chars(digits()), 0, kMaxDigits - 1);
  return builder_.sequence(
      {builder_.optional(builder_.literal("-")),
       builder_.choice({builder_.literal("0"), builder_.sequence({builder_.chars({{'1', '9'}}), more})})});
}

ExprId JsonText::make_number() {
  const ExprId fraction =
      builder_.sequence({builder_.literal("."), builder_.repeat(builder_.chars(digits()), 1, kMaxDigits)});
  const ExprId exponent = builder_.sequence({builder_.chars(characters("eE")),
                                             builder_.optional(builder_.chars(characters("+-"))),
                                             builder_.repeat(builder_.chars(digits()), 1, 2)});
  return builder_.sequence({integer(), builder_.optional(fraction), builder_.optional(exponent)});
}

ExprId JsonText::string(int64_t min, int64_t max) {
  const ExprId quote = builder_.literal("\"");
  return builder_.sequence({quote, builder_.repeat(string_char(), min, max), quote});
}

ExprId JsonText::string_chars(const CharSet& set) {
  const CharSet plain = plain_characters();
  std::vector<ExprId> options{builder_.chars(set.intersection(plain))};
  const CharSet special = set.intersection(plain.complement());
  for (const CharRange& range : special.ranges()) {
    for (uint32_t c = range.first; c <= range.last; ++c) options.push_back(builder_.literal(escaped(c)));
  }
  return builder_.choice(std::move(options));
}

// A rule for each beginning of a name: go on within the names, or leave them for good.
ExprId JsonText::key_except(const std::vector<std::string>& names) {
  const ExprId any = builder_.repeat(builder_.chars(plain_characters()), 0, kUnbounded);
  const RuleId rest = builder_.rule("rest of a further key", any);
  std::vector<std::u32string> sorted;
  for (const std::string& name : names) {
    std::u32string characters_of;
    for (size_t i = 0; i < name.size();) {
      const auto lead = static_cast<uint8_t>(name[i]);
      const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      uint32_t c = length == 1 ? lead : lead & (0x7FU >> length);
      for (size_t k = 1; k < length && i + k < name.size(); ++k)
        c = (c << 6U) | (static_cast<uint8_t>(name[i + k]) & 0x3FU);
      characters_of.push_back(c);
      i += length;
    }
    sorted.push_back(std::move(characters_of));
  }
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());

  // Beginnings in order of length, so that longer ones are made from a list, not by recursion.
  struct Beginning {
    size_t first, last;  // names with it
    size_t length;
    RuleId rule;
  };
  std::vector<Beginning> beginnings{{0, sorted.size(), 0, builder_.declare("a further key")}};
  const RuleId start = beginnings.front().rule;
  for (size_t b = 0; b < beginnings.size(); ++b) {
    const Beginning at = beginnings[b];
    std::vector<ExprId> options;
    size_t first = at.first;
    if (first < at.last && sorted[first].size() == at.length) {
      ++first;  // the beginning is itself a name
    } else {
      options.push_back(builder_.empty());
    }
    CharSet leaving = plain_characters();
    while (first < at.last) {
      const char32_t c = sorted[first][at.length];
      size_t last = first;
      while (last < at.last && sorted[last][at.length] == c) ++last;
      const CharSet one{{c, c}};
      leaving = leaving.intersection(one.complement());
      if (plain_characters().contains(c)) {
        beginnings.push_back({first, last, at.length + 1, builder_.declare("a further key")});
        options.push_back(builder_.sequence({builder_.chars(one), builder_.call(beginnings.back().rule)}));
      }
      first = last;
    }
    options.push_back(builder_.sequence({builder_.chars(leaving), builder_.call(rest)}));
    builder_.define(at.rule, builder_.choice(std::move(options)));
  }
  const ExprId quote = builder_.literal("\"");
  return builder_.sequence({quote, builder_.call(start), quote});
}

ExprId JsonText::literal(const nlohmann::ordered_json& value) {
  try {
    return builder_.literal(value.dump());
  } catch (const nlohmann::json::exception&) {
    fail("a text of the schema is not UTF-8");
  }
}

ExprId JsonText::comma() { return builder_.sequence({builder_.literal(","), space()}); }

ExprId JsonText::pair(ExprId key, ExprId value) {
  return builder_.sequence({key, builder_.literal(":"), space(), value});
}

namespace {

ExprId list_of(JsonText& json, const char* open, ExprId part, const char* close, int64_t min, int64_t max) {
  GrammarBuilder& b = json.builder();
  ExprId parts = b.empty();
  if (max != 0) {
    const ExprId more = b.repeat(b.sequence({json.comma(), part}), std::max<int64_t>(min - 1, 0),
                                 max == kUnbounded ? kUnbounded : max - 1);
    parts = b.sequence({part, more, json.space()});
    if (min == 0) parts = b.optional(parts);
  } else if (min > 0) {
    parts = b.nothing();
  }
  return b.sequence({b.literal(open), json.space(), parts, b.literal(close)});
}

}  // namespace

ExprId JsonText::array_of(ExprId item, int64_t min, int64_t max) {
  return list_of(*this, "[", item, "]", min, max);
}
ExprId JsonText::object_of(ExprId pair, int64_t min, int64_t max) {
  return list_of(*this, "{", pair, "}", min, max);
}

}  // namespace minimax::grammar
