// Grammars written as text, in the dialect of llama.cpp's GBNF.
//
//   root  ::= "yes" | "no" (" because " word+)?   # a comment
//   word  ::= [a-z]{1,12} " "?
//
// Literals and classes know the escapes \n \r \t \\ \" \[ \] \xHH \uHHHH and \UHHHHHHHH; a dot is any
// character; * + ? {m} {m,} {m,n} repeat. Lines end a rule unless a bracket is open or a | comes next.
#pragma once

#include <string_view>

#include "grammar/builder.h"

namespace minimax::grammar {

// The rule `root` of the text. THROWS: Error with the line of what is wrong.
ExprId add_gbnf(GrammarBuilder& builder, std::string_view text);

}  // namespace minimax::grammar
