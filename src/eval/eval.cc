#include "eval/eval.h"

#include <array>
#include <functional>

#include "core/error.h"
#include "eval/grade.h"
#include "eval/skills.h"

namespace minimax::eval {
namespace {

struct Skill {
  std::string_view name;
  int max_tokens;
  Case (*draw)(Rng&);
  bool (*grade)(const Case&, std::string_view answer);
};

// The token numbers are the longest right answers of the corpus with some room.
constexpr std::array<Skill, 6> kSkills = {{
    {"arithmetic", 360, draw_arithmetic, grade_arithmetic},
    {"sorting", 300, draw_sorting, grade_items},
    {"reversing", 240, draw_reversing, grade_items},
    {"lookup", 64, draw_lookup, grade_text},
    {"facts", 96, draw_facts, grade_facts},
    {"tool_call", 144, draw_tool_call, grade_tool_call},
}};

const Skill& skill_of(std::string_view name) {
  for (const Skill& skill : kSkills) {
    if (skill.name == name) return skill;
  }
  fail("eval: there is no skill '{}'; known are arithmetic, sorting, reversing, lookup, facts, tool_call",
       name);
}

}  // namespace

const std::vector<std::string>& skill_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    result.reserve(std::size(kSkills));
    for (const Skill& skill : kSkills) result.emplace_back(skill.name);
    return result;
  }();
  return names;
}

int max_tokens(std::string_view skill) { return skill_of(skill).max_tokens; }

Case draw(std::string_view skill, uint64_t seed, uint64_t index) {
  const Skill& entry = skill_of(skill);
  Rng rng(skill, seed, index);
  Case result = entry.draw(rng);
  result.skill = skill;
  return result;
}

bool grade(const Case& drawn, std::string_view generated_text) {
  return skill_of(drawn.skill).grade(drawn, answer_of(generated_text));
}

}  // namespace minimax::eval
