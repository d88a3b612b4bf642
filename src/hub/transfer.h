// Reads over HTTP with libcurl: small documents whole, large files in parallel ranges that survive
// interruptions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace minimax::hub {

// An answer of a server that is not what was asked for.
class HttpError : public Error {
 public:
  HttpError(const std::string& url, long status)
      : Error(fmt::format("{} answers with status {}", url, status)), status_(status) {}
  long status() const { return status_; }

 private:
  long status_;
};

struct TransferOptions {
  std::string token;  // sent as bearer to the first host, not to where it redirects
  int num_connections = 8;
  int64_t chunk_bytes = int64_t{64} << 20U;  // of a range
  int num_retries = 5;                       // of a range, in a row without a byte
  int64_t first_delay_ms = 500;              // before a retry, doubled each time
  int64_t stall_seconds = 30;                // without a byte before a range is given up
};

// THROWS: HttpError for an answer other than 200, Error when there is none.
std::string read_url(const std::string& url, const TransferOptions& options);

struct FileToFetch {
  std::string url;
  std::filesystem::path path;
  int64_t size = 0;
};

// Bytes that are there now, of all files.
using BytesProgress = std::function<void(int64_t)>;

// Fetches files range by range into their paths. A file beside each, PATH.ranges, notes the ranges that are
// there, so that a later call goes on; it is removed when the file is whole. Two processes that fetch the
// same file write the same bytes to the same places. THROWS: Error naming the URL; what was read is kept.
void fetch_files(const std::vector<FileToFetch>& files, const TransferOptions& options,
                 const BytesProgress& progress);

}  // namespace minimax::hub
