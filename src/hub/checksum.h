// Checksums by which a hub names the content of its files.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace minimax::hub {

// RETURNS: whether the file's content is what `etag` names: 64 hexadecimal digits are its SHA-256, 40 the
// SHA-1 of it as a git blob. THROWS: Error when the file cannot be read or the etag is of neither kind.
bool matches_etag(const std::filesystem::path& file, std::string_view etag);

}  // namespace minimax::hub
