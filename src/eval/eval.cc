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
  Case (*draw)(Rng&, DemoModel);
  bool (*grade)(const Case&, std::string_view answer);
};

// A drawing that does not depend on the model.
template <Case (*kDraw)(Rng&)>
Case any_model(Rng& rng, DemoModel) {
  return kDraw(rng);
}

// The token numbers are the longest right answers of the corpus with some room.
constexpr std::array<Skill, 7> kSkills = {{
    {"arithmetic", 360, any_model<draw_arithmetic>, grade_arithmetic},
    {"sorting", 300, any_model<draw_sorting>, grade_items},
    {"reversing", 240, any_model<draw_reversing>, grade_items},
    {"lookup", 64, any_model<draw_lookup>, grade_text},
    {"facts", 96, draw_facts, grade_facts},
    {"tool_call", 144, any_model<draw_tool_call>, grade_tool_call},
    {"lookup_sparse", 64, any_model<draw_sparse_lookup>, grade_text},
}};
constexpr size_t kCommonSkills = 6;

const Skill& skill_of(std::string_view name) {
  for (const Skill& skill : kSkills) {
    if (skill.name == name) return skill;
  }
  fail(
      "eval: there is no skill '{}'; known are arithmetic, sorting, reversing, lookup, facts, tool_call, "
      "lookup_sparse",
      name);
}

}  // namespace

const std::vector<std::string>& skill_names(DemoModel model) {
  const auto first = [](size_t count) {
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) names.emplace_back(kSkills[i].name);
    return names;
  };
  static const std::vector<std::string> common = first(kCommonSkills);
  static const std::vector<std::string> all = first(kSkills.size());
  return model == DemoModel::kM3 ? all : common;
}

int max_tokens(std::string_view skill) { return skill_of(skill).max_tokens; }

Case draw(std::string_view skill, uint64_t seed, uint64_t index, DemoModel model) {
  const Skill& entry = skill_of(skill);
  Rng rng(skill, seed, index);
  Case result = entry.draw(rng, model);
  result.skill = skill;
  return result;
}

bool grade(const Case& drawn, std::string_view generated_text) {
  return skill_of(drawn.skill).grade(drawn, answer_of(generated_text));
}

}  // namespace minimax::eval
