#include "hub/checksum.h"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>
#include <vector>

#include "core/error.h"

namespace minimax::hub {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

std::string hexadecimal(const unsigned char* bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

}  // namespace

bool matches_etag(const std::filesystem::path& file, std::string_view etag) {
  constexpr size_t kSha256Digits = 64;
  constexpr size_t kSha1Digits = 40;
  if (etag.size() != kSha256Digits && etag.size() != kSha1Digits)
    fail("{}: the hub names its content '{}', which is neither a SHA-256 nor a git SHA-1", file.string(),
         etag);
  std::ifstream in(file, std::ios::binary);
  if (!in) fail("{}: cannot be read", file.string());

  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  EVP_DigestInit_ex(context.get(), etag.size() == kSha256Digits ? EVP_sha256() : EVP_sha1(), nullptr);
  if (etag.size() == kSha1Digits) {
    const std::string header = fmt::format("blob {}", std::filesystem::file_size(file));
    EVP_DigestUpdate(context.get(), header.c_str(), header.size() + 1);
  }
  std::vector<char> buffer(size_t{1} << 20U);
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(in.gcount()));
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &size);
  return hexadecimal(digest.data(), size) == etag;
}

}  // namespace minimax::hub
