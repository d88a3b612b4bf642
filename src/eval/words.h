// Word lists of the drawn cases. The sort order of a word is something the demo model has learnt, so sorted
// and reversed lists keep to `kWords`; keys and values elsewhere may also be invented.
#pragma once

#include <array>
#include <string_view>

namespace minimax::eval {

inline constexpr auto kWords = std::to_array<std::string_view>(
    {"amber",  "apple",  "arrow",  "basil",   "beach",  "birch",   "bread",  "brick",  "cedar",
     "chalk",  "cloud",  "coral",  "daisy",   "delta",  "eagle",   "ember",  "fern",   "field",
     "flame",  "forest", "garden", "ginger",  "grape",  "harbor",  "hazel",  "honey",  "iron",
     "island", "ivory",  "jade",   "jasmine", "kettle", "lantern", "lemon",  "lily",   "linen",
     "maple",  "marble", "meadow", "melon",   "mint",   "moon",    "nectar", "oak",    "ocean",
     "olive",  "orchid", "paper",  "pearl",   "pepper", "pine",    "plum",   "quartz", "rain",
     "raven",  "river",  "rose",   "saffron", "salt",   "silver",  "stone",  "storm",  "sugar",
     "tiger",  "tulip",  "violet", "walnut",  "willow", "winter",  "yarrow", "zinc"});

inline constexpr auto kCities = std::to_array<std::string_view>(
    {"Paris",  "Berlin", "Tokyo",  "London", "Madrid", "Rome",   "Oslo",  "Lima",   "Cairo",  "Delhi",
     "Dublin", "Vienna", "Prague", "Athens", "Lisbon", "Warsaw", "Seoul", "Boston", "Denver", "Sydney"});

inline constexpr auto kNames =
    std::to_array<std::string_view>({"Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry",
                                     "Ida", "Jonas", "Karl", "Lena", "Maria", "Nora", "Oscar", "Paula"});

}  // namespace minimax::eval
