#include "server/page.h"

#include "webui/assets.h"

namespace minimax::server {

http::Response page_file(const http::Request& request,
                         const std::function<http::Response(int, const std::string&)>& error) {
  const webui::Asset* asset = webui::find_asset(request.path);
  if (asset == nullptr) return error(404, "there is no such file; the page is at /");
  return {200,
          std::string(asset->content),
          std::string(asset->content_type),
          {{"Content-Security-Policy", std::string(webui::kContentSecurityPolicy)},
           {"X-Content-Type-Options", "nosniff"},
           {"Referrer-Policy", "no-referrer"},
           {"Cache-Control", "no-cache"}}};
}

}  // namespace minimax::server
