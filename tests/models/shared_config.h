// Configuration files that are not ours to publish, where they lie beside the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "formats/json.h"

namespace minimax::testing {

// `name` of the configs folder of MINIMAX_SHARED_DATA or ../shared/data; a test without it skips and says so.
inline std::optional<nlohmann::json> shared_config(const char* name) {
  namespace fs = std::filesystem;
  const fs::path source = MINIMAX_SOURCE_DIR;
  const char* given = std::getenv("MINIMAX_SHARED_DATA");
  for (const fs::path& data :
       {fs::path(given == nullptr ? "" : given), source / "../shared/data", source / "../../shared/data"}) {
    const fs::path path = data / "configs" / name;
    if (fs::exists(path)) return formats::read_json_object(path, 1 << 20);
  }
  return std::nullopt;
}

}  // namespace minimax::testing
