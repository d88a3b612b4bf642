#include "webui/assets.h"

#include <algorithm>
#include <array>

#include "webui/page_files.inc"

namespace minimax::webui {

const Asset* find_asset(std::string_view path) {
  const auto* found = std::find_if(kPageFiles.begin(), kPageFiles.end(),
                                   [path](const Asset& asset) { return asset.path == path; });
  return found == kPageFiles.end() ? nullptr : &*found;
}

}  // namespace minimax::webui
