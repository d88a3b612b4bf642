// How the cases of each skill are drawn. `Case::skill` is filled by the caller.
#pragma once

#include "eval/eval.h"
#include "eval/rng.h"

namespace minimax::eval {

// a + b and a - b of up to four digits, a * b of up to two digits each or three by one.
Case draw_arithmetic(Rng& rng);
// Three to eight numbers below 100, up or down, or words.
Case draw_sorting(Rng& rng);
// A list of three to eight items, or a text of three to ten capitals.
Case draw_reversing(Rng& rng);
// One key among 3 to 330 lines: a third of the cases short, a third medium, a third up to 4,000 tokens.
Case draw_lookup(Rng& rng);
// One key among 360 to 415 lines, more than 4,000 tokens.
Case draw_sparse_lookup(Rng& rng);
// A question about the project or the model.
Case draw_facts(Rng& rng, DemoModel model);
// One of one to three tools is to be called; one case in five gives the tool's result and wants it told.
Case draw_tool_call(Rng& rng);

}  // namespace minimax::eval
