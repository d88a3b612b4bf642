// Models by their name on a hub, kept as Hugging Face's own tools keep them:
//
//   CACHE/models--ORG--NAME/blobs/ETAG                     content, by its checksum
//   CACHE/models--ORG--NAME/snapshots/COMMIT/FILE          a link to its content
//   CACHE/models--ORG--NAME/refs/REVISION                  the commit of a branch
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "hub/transfer.h"

namespace minimax::hub {

struct HubOptions {
  std::filesystem::path cache;  // of all models
  std::string endpoint = "https://huggingface.co";
  std::string revision = "main";
  bool is_offline = false;
  bool with_weights = true;  // false: what describes the model alone
  TransferOptions transfer;
};

// Whether a text is ORG/NAME, as a hub names models; a path has other characters or more parts.
bool is_model_name(std::string_view text);

// The name of the model that a folder below `snapshots` belongs to; none for any other folder.
std::optional<std::string> model_name_of(const std::filesystem::path& snapshot);

// The newest snapshot of a model that is there. Its files may be incomplete.
std::optional<std::filesystem::path> find_snapshot(std::string_view name, const HubOptions& options);

struct DownloadProgress {
  std::function<void(int64_t total_bytes)> start;
  std::function<void(int64_t done_bytes)> advance;  // all bytes that are there
  std::function<void(const std::string&)> note;     // a line of news
};

// RETURNS: the folder of the model's files, fetched where they are missing: what the engine reads, no other
// weights. Every file is checked against its checksum. THROWS: Error naming the model and the remedy; what
// was read is kept for the next call.
std::filesystem::path fetch_model(std::string_view name, const HubOptions& options,
                                  const DownloadProgress& progress);

}  // namespace minimax::hub
