#include "tokenizer/splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"
#include "tokenizer/newer_characters.h"

namespace minimax::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 64 * 1024;
constexpr uint32_t kMaxPatternNesting = 100;
// Backtracking of one match. A run of one million letters that first fits a wrong alternative takes a few
// million.
constexpr uint32_t kMatchLimit = 200'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    kFree(p);
  }
};

using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;

Code compile(const std::string& pattern) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  MM_CHECK(context != nullptr, "out of memory");
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  pcre2_set_parens_nest_limit(context.get(), kMaxPatternNesting);
  int error = 0;
  size_t offset = 0;
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                          &offset, context.get()));
  if (!code) {
    fail("tokenizer: the split pattern is no regular expression ({} at byte {})", message_of(error), offset);
  }
  // Without JIT support the interpreter gives the same matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

}  // namespace

struct Splitter::Pattern {
  Code code;

  // Appends the matches and gaps of `shown`, as views of `text`; both have the same size.
  void split(std::string_view shown, std::string_view text, std::vector<std::string_view>& out) const;
};

namespace {

// One match at or after `begin`. RETURNS: false when there is none.
bool find(const pcre2_code* code, std::string_view shown, size_t begin, pcre2_match_data* data,
          pcre2_match_context* context) {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(shown.data());
  int result = pcre2_match(code, subject, shown.size(), begin, PCRE2_NO_UTF_CHECK, data, context);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
    result =
        pcre2_match(code, subject, shown.size(), begin, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
  }
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) fail("tokenizer: splitting the text failed: {}", message_of(result));
  return true;
}

}  // namespace

void Splitter::Pattern::split(std::string_view shown, std::string_view text,
                              std::vector<std::string_view>& out) const {
  const MatchData data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  MM_CHECK(data != nullptr && context != nullptr, "out of memory");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  size_t done = 0;  // everything before is in `out`
  size_t from = 0;  // where to look next
  while (from < text.size() && find(code.get(), shown, from, data.get(), context.get())) {
    const size_t begin = bounds[0];
    const size_t end = bounds[1];
    if (end <= begin || begin < done) {  // an empty match splits nothing
      from = std::max(from, end) + 1;
      while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) ++from;
      continue;
    }
    if (begin > done) out.push_back(text.substr(done, begin - done));
    out.push_back(text.substr(begin, end - begin));
    done = from = end;
  }
  if (done < text.size()) out.push_back(text.substr(done));
}

Splitter::Splitter(const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns)
    patterns_.push_back(std::make_unique<Pattern>(Pattern{compile(pattern)}));
}

Splitter::~Splitter() = default;
Splitter::Splitter(Splitter&&) noexcept = default;
Splitter& Splitter::operator=(Splitter&&) noexcept = default;

std::vector<std::string_view> Splitter::split(std::string_view text) const {
  if (text.empty()) return {};
  std::string replaced;
  const std::string_view shown =
      replace_newer_characters(text, &replaced) ? std::string_view(replaced) : text;
  std::vector<std::string_view> pieces{text};
  for (const auto& pattern : patterns_) {
    std::vector<std::string_view> next;
    next.reserve(text.size() / 4);
    for (const std::string_view piece : pieces) {
      const auto offset = static_cast<size_t>(piece.data() - text.data());
      pattern->split(shown.substr(offset, piece.size()), piece, next);
    }
    pieces = std::move(next);
  }
  return pieces;
}

}  // namespace minimax::tokenizer
