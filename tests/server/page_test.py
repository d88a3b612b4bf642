"""The chat page in a real browser: Chromium, driven by Playwright, against minimax serve.

  page_test.py MINIMAX [--screenshots FOLDER] [-k PATTERN]

Skips with one line where there is no Chromium or no Playwright.
"""

import json
import pathlib
import re
import shutil
import sys
import unittest

import serve_test

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = None
TOOL = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if sync_playwright is None or CHROMIUM is None:
            raise unittest.SkipTest("no Chromium or no Playwright here: the page is not tested in a browser")
        cls.server = serve_test.Server("demo-m2", "--max-num-seqs", "4")
        cls.playwright = sync_playwright().start()
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()
        assert cls.server.stop() == 0

    def open(self, **options):
        self.context = self.browser.new_context(locale="en-US", **options)
        self.addCleanup(self.context.close)
        page = self.context.new_page()
        page.set_default_timeout(30_000)
        self.problems = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.on("request", self.note_request)
        page.goto(self.server.url + "/")
        expect(page.locator("#model")).to_have_text("demo-m2")
        return page

    def note_request(self, request):
        if not request.url.startswith(self.server.url):
            self.problems.append("from outside: " + request.url)

    def set(self, page, **settings):
        page.locator("#open-settings").click()
        for name, value in settings.items():
            page.locator(f"[data-setting={name}]").fill(value)
        page.locator("#close-settings").click()

    def send(self, page, text):
        page.locator("#input").fill(text)
        page.locator("#input").press("Enter")

    def finished(self, page, index):
        article = page.locator(f"article[data-index='{index}']")
        expect(article.locator("[data-action=retry]")).to_be_visible(timeout=60_000)
        return article

    def running(self):
        """How many requests the server runs, by its own word."""
        text = self.server.request("GET", "/metrics")[2]
        return float(re.search(r"^vllm:num_requests_running\S* (\S+)$", text, re.M)[1])

    def picture(self, page, name):
        if SCREENSHOTS:
            page.screenshot(path=str(SCREENSHOTS / f"{name}.png"))

    def tearDown(self):
        self.assertEqual(getattr(self, "problems", []), [])

    def test_a_message_is_answered_and_found_again(self):
        page = self.open()
        self.set(page, temperature="0", max_tokens="800")
        self.send(page, "What is 47 * 36?")
        article = self.finished(page, 1)
        expect(article.locator(".body")).to_contain_text("1692")
        self.assertIsNone(article.locator("details.reasoning").get_attribute("open"))
        article.locator("details.reasoning summary").click()
        expect(article.locator("details.reasoning div")).to_contain_text("47")
        expect(article.locator(".figures")).to_contain_text("tokens/s")
        self.picture(page, "chat")
        # Another conversation, then back to the first after a reload.
        page.keyboard.press("Alt+n")
        expect(page.locator("article")).to_have_count(0)
        self.send(page, "What is 3 + 4?")
        self.finished(page, 1)
        page.reload()
        expect(page.locator("#conversations li")).to_have_count(2)
        page.locator("#conversations button.open", has_text="47 * 36").click()
        expect(page.locator("article[data-index='1'] .body")).to_contain_text("1692")

    def test_an_answer_streams_and_stops(self):
        page = self.open()
        # It must not end by itself, nor reach the page faster than it can be looked at.
        endless = lambda route: route.continue_(  # noqa: E731
            post_data=json.dumps({**json.loads(route.request.post_data), "ignore_eos": True})
        )
        page.route("**/v1/chat/completions", endless)
        network = self.context.new_cdp_session(page)
        limits = {"offline": False, "latency": 0, "uploadThroughput": -1}
        network.send("Network.emulateNetworkConditions", {**limits, "downloadThroughput": 30_000})
        self.set(page, temperature="1", max_tokens="3000", seed="1")
        page.evaluate(
            """() => {
              window.lengths = new Set();
              const log = document.getElementById('log');
              new MutationObserver(() => window.lengths.add(log.textContent.length)).observe(log, {childList: true, subtree: true});
            }"""
        )
        self.send(page, "Tell me everything, at length.")
        article = page.locator("article[data-index='1']")
        expect(article).to_contain_text(re.compile(r"\S{40}|(\S+\s+){20}"))
        expect(page.locator("#stop")).to_be_visible()
        while page.evaluate("() => window.lengths.size") < 4:
            page.wait_for_timeout(50)
        page.keyboard.press("Escape")
        self.finished(page, 1)
        expect(page.locator("#stop")).to_be_hidden()
        expect(article.locator(".figures")).to_contain_text("stopped")
        # Nothing is left running in the server.
        while self.running() > 0:
            page.wait_for_timeout(50)
        network.send("Network.emulateNetworkConditions", {**limits, "downloadThroughput": -1})
        # Retry takes the same place.
        page.unroute("**/v1/chat/completions")
        self.set(page, temperature="0", max_tokens="40")
        article.locator("[data-action=retry]").click()
        self.finished(page, 1)
        expect(page.locator("article")).to_have_count(2)

    def test_a_tool_is_called_and_answered(self):
        page = self.open()
        self.set(page, temperature="0", max_tokens="600", tools=json.dumps(TOOL))
        self.send(page, "What is the weather in Paris?")
        article = self.finished(page, 1)
        call = article.locator(".call")
        expect(call.locator("strong")).to_have_text("get_weather")
        expect(call.locator("code")).to_contain_text("Paris")
        self.picture(page, "tool")
        call.locator("textarea").fill("sunny, 21 degrees")
        call.locator("button").click()
        self.finished(page, 3)
        expect(page.locator("article.tool")).to_contain_text("sunny")

    def test_bad_tools_are_named(self):
        page = self.open()
        page.locator("#open-settings").click()
        page.locator("[data-setting=tools]").fill("{not json")
        expect(page.locator("#tools-problem")).not_to_be_empty()

    def test_it_works_on_a_phone_in_the_dark_and_in_chinese(self):
        page = self.open(viewport={"width": 390, "height": 780}, color_scheme="dark", has_touch=True)
        expect(page.locator("#side")).not_to_be_in_viewport()
        page.locator("#open-side").click()
        expect(page.locator("#side")).to_be_in_viewport()
        page.locator("#language").select_option("zh")
        expect(page.locator("#new span")).to_have_text("新对话")
        page.locator("#close-side").click()
        self.set(page, temperature="0", max_tokens="400")
        self.send(page, "What is 3 + 4?")
        self.finished(page, 1)
        width = page.evaluate("document.documentElement.scrollWidth")
        self.assertLessEqual(width, 390)
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        self.assertLess(max(int(n) for n in re.findall(r"\d+", back)), 80)
        self.picture(page, "phone")

    def test_markup_in_answers_stays_text(self):
        page = self.open()
        found = page.evaluate(
            """async () => {
              const { render } = await import('/ui/markdown.js');
              const box = document.createElement('div');
              box.append(render('# T\\n<img src=x onerror=alert(1)>\\n\\n- **b** `c<d>`\\n\\n```js\\na < b\\n```\\n[x](javascript:alert(1))\\n\\n|a|b|\\n|-|-|\\n|1|2|'));
              return box.innerHTML;
            }"""
        )
        self.assertNotIn("<img", found)
        self.assertNotIn("href", found)
        for part in ("<h2>T</h2>", "<strong>b</strong>", "<code>c&lt;d&gt;</code>", "a &lt; b", "<td>2</td>"):
            self.assertIn(part, found)


if __name__ == "__main__":
    serve_test.MINIMAX = sys.argv.pop(1)
    if "--screenshots" in sys.argv:
        at = sys.argv.index("--screenshots")
        SCREENSHOTS = pathlib.Path(sys.argv.pop(at + 1))
        sys.argv.pop(at)
    unittest.main(verbosity=2)
