#include "hub/hub.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "hub/checksum.h"

namespace minimax::hub {
namespace {

namespace fs = std::filesystem;

struct RemoteFile {
  std::string name;  // its path in the repository
  std::string etag;
  int64_t size = 0;
};

struct RemoteModel {
  std::string commit;
  std::vector<RemoteFile> files;
};

fs::path folder_of(std::string_view name, const HubOptions& options) {
  std::string folder = "models--" + std::string(name);
  folder.replace(folder.find('/'), 1, "--");
  return options.cache / folder;
}

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [name](std::string_view e) { return name.ends_with(e); });
}

bool is_wanted(std::string_view name, const HubOptions& options) {
  return ends_with_any(name, {".json", ".jinja", "merges.txt", "LICENSE"}) ||
         (options.with_weights && name.ends_with(".safetensors"));
}

// Whether a path stays below the folder that it is put into.
bool is_inside(std::string_view name) {
  const fs::path path(name);
  return !path.empty() && path.is_relative() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

[[noreturn]] void explain(const HttpError& error, std::string_view name, const HubOptions& options) {
  constexpr long kUnauthorized = 401;
  constexpr long kForbidden = 403;
  constexpr long kNotFound = 404;
  if (error.status() == kUnauthorized || error.status() == kForbidden) {
    fail(
        "{}: {} refuses it (status {}). Set HF_TOKEN to a token that may read it, accept the model's terms "
        "on its "
        "page, or check the name",
        name, options.endpoint, error.status());
  }
  if (error.status() == kNotFound)
    fail("{}: {} has no such model or no revision '{}'; check both", name, options.endpoint,
         options.revision);
  throw error;
}

RemoteFile remote_file(const nlohmann::json& entry) {
  RemoteFile file{entry.at("rfilename").get<std::string>(), "", 0};
  const auto large = entry.find("lfs");
  if (large != entry.end() && large->is_object()) {
    file.etag = large->at("sha256").get<std::string>();
    file.size = large->at("size").get<int64_t>();
  } else {
    file.etag = entry.at("blobId").get<std::string>();
    file.size = entry.at("size").get<int64_t>();
  }
  const bool is_plain = std::all_of(file.etag.begin(), file.etag.end(),
                                    [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!is_plain || file.size < 0)
    fail("{}: its checksum is '{}', its size {}", file.name, file.etag, file.size);
  return file;
}

RemoteModel look_up(std::string_view name, const HubOptions& options) {
  const std::string url =
      fmt::format("{}/api/models/{}/revision/{}?blobs=true", options.endpoint, name, options.revision);
  const std::string text = read_url(url, options.transfer);
  try {
    const auto body = nlohmann::json::parse(text);
    RemoteModel model{body.at("sha").get<std::string>(), {}};
    if (!is_inside(model.commit) || model.commit.find('/') != std::string::npos)
      fail("the commit is '{}'", model.commit);
    for (const auto& entry : body.at("siblings")) {
      const auto file = entry.at("rfilename").get<std::string>();
      if (!is_wanted(file, options)) continue;
      if (!is_inside(file)) fail("a file is called '{}'", file);
      model.files.push_back(remote_file(entry));
    }
    return model;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not the description of a model: {}", url, error.what());
  } catch (const Error& error) {
    fail("{}: not the description of a model: {}", url, error.what());
  }
}

bool has_size(const fs::path& path, int64_t size) {
  std::error_code error;
  const auto found = fs::file_size(path, error);
  return !error && static_cast<int64_t>(found) == size;
}

// Points snapshots/COMMIT/FILE to its content.
void link_file(const fs::path& folder, const RemoteModel& model, const RemoteFile& file) {
  const fs::path link = folder / "snapshots" / model.commit / file.name;
  fs::create_directories(link.parent_path());
  const fs::path target = fs::relative(folder / "blobs" / file.etag, link.parent_path());
  std::error_code error;
  if (fs::read_symlink(link, error) == target) return;
  fs::remove(link, error);
  fs::create_symlink(target, link, error);
  // Some file systems have no links; then the content itself lies there.
  if (error) fs::copy_file(folder / "blobs" / file.etag, link, fs::copy_options::overwrite_existing);
}

void write_ref(const fs::path& folder, const std::string& revision, const std::string& commit) {
  const fs::path path = folder / "refs" / revision;
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::trunc);
  out << commit << std::flush;
  if (!out) fail("{}: cannot be written", path.string());
}

class Download {
 public:
  Download(std::string_view name, const HubOptions& options, const DownloadProgress& progress,
           RemoteModel model)
      : name_(name),
        options_(options),
        progress_(progress),
        model_(std::move(model)),
        folder_(folder_of(name, options)) {}

  fs::path run() {
    fs::create_directories(folder_ / "blobs");
    find_missing();
    check_space();
    // A file of which a disk lost a part after it was noted is fetched once more.
    for (int turn = 0; !missing_.empty(); ++turn) {
      fetch_missing();
      verify(turn > 0);
    }
    for (const RemoteFile& file : model_.files) link_file(folder_, model_, file);
    write_ref(folder_, options_.revision, model_.commit);
    return folder_ / "snapshots" / model_.commit;
  }

 private:
  fs::path blob(const RemoteFile& file) const { return folder_ / "blobs" / file.etag; }
  fs::path incomplete(const RemoteFile& file) const { return blob(file).string() + ".incomplete"; }

  void find_missing() {
    for (const RemoteFile& file : model_.files) {
      const bool is_listed = std::any_of(missing_.begin(), missing_.end(),
                                         [&](const RemoteFile& other) { return other.etag == file.etag; });
      if (!is_listed && !has_size(blob(file), file.size)) missing_.push_back(file);
    }
  }

  void check_space() const {
    int64_t needed = 0;
    for (const RemoteFile& file : missing_) {
      // Ranges leave holes: the size of a file says nothing of what it takes.
      constexpr int64_t kStatBlock = 512;
      struct stat status {};
      const bool is_there = ::stat(incomplete(file).c_str(), &status) == 0;
      needed += std::max<int64_t>(0, file.size - (is_there ? status.st_blocks * kStatBlock : 0));
    }
    std::error_code error;
    const fs::space_info space = fs::space(folder_, error);
    if (!error && needed > static_cast<int64_t>(space.available)) {
      fail("{}: {} bytes are still to be fetched and {} are free in {}. Set HF_HOME to a larger disk", name_,
           needed, space.available, options_.cache.string());
    }
  }

  void fetch_missing() {
    std::vector<FileToFetch> files;
    int64_t bytes = 0;
    for (const RemoteFile& file : missing_) {
      files.push_back({fmt::format("{}/{}/resolve/{}/{}", options_.endpoint, name_, model_.commit, file.name),
                       incomplete(file), file.size});
      bytes += file.size;
    }
    if (progress_.start) progress_.start(bytes);
    fetch_files(files, options_.transfer, progress_.advance);
  }

  void verify(bool is_last_try) {
    std::vector<RemoteFile> wrong;
    for (const RemoteFile& file : missing_) {
      if (matches_etag(incomplete(file), file.etag)) {
        fs::rename(incomplete(file), blob(file));
        continue;
      }
      fs::remove(incomplete(file));
      if (is_last_try) {
        fail(
            "{}/{}: what {} sends is not what its checksum {} says, twice in a row. Try another HF_ENDPOINT "
            "or "
            "network",
            name_, file.name, options_.endpoint, file.etag);
      }
      if (progress_.note)
        progress_.note(fmt::format("{}: the checksum is wrong, fetching it again", file.name));
      wrong.push_back(file);
    }
    missing_ = std::move(wrong);
  }

  std::string name_;
  const HubOptions& options_;
  const DownloadProgress& progress_;
  RemoteModel model_;
  fs::path folder_;
  std::vector<RemoteFile> missing_;
};

}  // namespace

bool is_model_name(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == text.size()) return false;
  const auto is_name = [](std::string_view part) {
    return part.front() != '.' && part.find("--") == std::string_view::npos &&
           std::all_of(part.begin(), part.end(), [](char c) {
             return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '_' || c == '-';
           });
  };
  return is_name(text.substr(0, slash)) && is_name(text.substr(slash + 1));
}

std::optional<std::string> model_name_of(const fs::path& snapshot) {
  constexpr std::string_view kPrefix = "models--";
  const std::string folder = snapshot.parent_path().parent_path().filename().string();
  const size_t separator = folder.find("--", kPrefix.size());
  if (snapshot.parent_path().filename() != "snapshots" || !folder.starts_with(kPrefix) ||
      separator == std::string::npos) {
    return std::nullopt;
  }
  return folder.substr(kPrefix.size(), separator - kPrefix.size()) + "/" + folder.substr(separator + 2);
}

std::optional<fs::path> find_snapshot(std::string_view name, const HubOptions& options) {
  const fs::path folder = folder_of(name, options);
  std::string commit = options.revision;
  std::ifstream(folder / "refs" / options.revision) >> commit;
  const fs::path snapshot = folder / "snapshots" / commit;
  if (!fs::is_directory(snapshot)) return std::nullopt;
  return snapshot;
}

fs::path fetch_model(std::string_view name, const HubOptions& options, const DownloadProgress& progress) {
  const std::optional<fs::path> there = find_snapshot(name, options);
  if (options.is_offline) {
    if (there) return *there;
    fail("{}: it is not in {} and HF_HUB_OFFLINE is set. Unset it, or point HF_HOME to where the model is",
         name, options.cache.string());
  }
  RemoteModel model;
  try {
    model = look_up(name, options);
  } catch (const HttpError& error) {
    explain(error, name, options);
  } catch (const Error& error) {
    if (!there) throw;
    if (progress.note) progress.note(fmt::format("{}; using what is in {}", error.what(), there->string()));
    return *there;
  }
  try {
    return Download(name, options, progress, std::move(model)).run();
  } catch (const HttpError& error) {
    explain(error, name, options);
  }
}

}  // namespace minimax::hub
