// The page is whole: what it refers to is carried too, and nothing comes from outside.
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <string>

#include "webui/assets.h"

namespace minimax::webui {
namespace {

std::string text_of(const std::string& path) {
  const Asset* asset = find_asset(path);
  EXPECT_NE(asset, nullptr) << path;
  return asset == nullptr ? "" : std::string(asset->content);
}

std::set<std::string> matches(const std::string& text, const char* pattern) {
  const std::regex regex(pattern);
  std::set<std::string> found;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), regex); it != std::sregex_iterator(); ++it)
    found.insert((*it)[1].str());
  return found;
}

TEST(Page, CarriesAllItRefersTo) {
  EXPECT_EQ(find_asset("/")->content_type, "text/html; charset=utf-8");
  std::set<std::string> files = matches(text_of("/"), "(?:src|href)=\"(ui/[^\"]+)\"");
  EXPECT_GE(files.size(), 3U);
  std::set<std::string> seen;
  while (!files.empty()) {
    const std::string file = *files.begin();
    files.erase(files.begin());
    if (!seen.insert(file).second) continue;
    for (const std::string& other : matches(text_of("/" + file), "from \"\\./([^\"]+)\""))
      files.insert("ui/" + other);
  }
  EXPECT_TRUE(seen.contains("ui/markdown.js"));
  EXPECT_EQ(find_asset("/ui/app.js")->content_type, "text/javascript; charset=utf-8");
}

TEST(Page, TakesNothingFromOutside) {
  for (const char* path : {"/", "/ui/style.css", "/ui/app.js", "/ui/api.js", "/ui/view.js", "/ui/turn.js"}) {
    const std::string text = text_of(path);
    EXPECT_EQ(text.find("https://"), std::string::npos) << path;
    EXPECT_EQ(text.find("innerHTML"), std::string::npos) << path;
  }
}

// Every word that the page asks for exists in both languages.
TEST(Page, HasItsWordsInBothLanguages) {
  const std::string words = text_of("/ui/words.js");
  const size_t chinese = words.find("zh: {");
  ASSERT_NE(chinese, std::string::npos);
  std::set<std::string> keys = matches(text_of("/"), "data-text(?:-[a-z]+)?=\"([a-z_]+)\"");
  for (const char* path : {"/ui/app.js", "/ui/view.js"})
    keys.merge(matches(text_of(path), "word\\(\"([a-z_]+)\"\\)"));
  EXPECT_GE(keys.size(), 30U);
  for (const std::string& key : keys) {
    const size_t first = words.find(" " + key + ":");
    EXPECT_LT(first, chinese) << key;
    EXPECT_NE(words.find(" " + key + ":", chinese), std::string::npos) << key;
  }
}

TEST(Page, KnowsNoOtherFile) { EXPECT_EQ(find_asset("/ui/../secret"), nullptr); }

}  // namespace
}  // namespace minimax::webui
