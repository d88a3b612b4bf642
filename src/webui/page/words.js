// The page's words in its languages.
const WORDS = {
  en: {
    conversations: "Conversations", new_conversation: "New conversation", untitled: "New conversation",
    remove: "Remove", language: "Language", theme: "Theme", theme_auto: "As the system", theme_light: "Light",
    theme_dark: "Dark", close: "Close", settings: "Settings", messages: "Messages",
    write_here: "Write a message", send: "Send", stop: "Stop",
    keys: "Enter sends, Shift+Enter starts a line, Esc stops", retry: "Retry", copy: "Copy", copied: "Copied",
    edit: "Edit", reasoning: "Reasoning", reasoning_now: "Reasoning…", calls: "calls", result: "Result",
    send_result: "Send result", result_of: "Result of", empty: "Ask something.", stopped: "stopped",
    cut: "ended at the token limit", system_prompt: "System prompt", thinking: "Thinking",
    thinking_default: "As the model does", thinking_on: "On", thinking_off: "Off", temperature: "Temperature",
    repetition_penalty: "Repetition penalty", max_tokens: "Most tokens", seed: "Seed",
    empty_is_default: "Empty fields take the model's defaults.", tools: "Tools (JSON list of functions)",
    tools_note: "Calls are shown; their results are what you enter. calculate and get_time run in this page.",
    example_tools: "Insert an example", api_key: "API key (kept in this tab)", tokens: "tokens",
    per_second: "tokens/s", first_token: "first token", no_server: "The server cannot be reached: ",
    tools_problem: "The tools are not a JSON list of functions: ", full: "This browser keeps no more conversations: remove some.",
  },
  zh: {
    conversations: "对话", new_conversation: "新对话", untitled: "新对话", remove: "删除", language: "语言",
    theme: "外观", theme_auto: "跟随系统", theme_light: "浅色", theme_dark: "深色", close: "关闭", settings: "设置",
    messages: "消息", write_here: "输入消息", send: "发送", stop: "停止",
    keys: "Enter 发送，Shift+Enter 换行，Esc 停止", retry: "重试", copy: "复制", copied: "已复制", edit: "编辑",
    reasoning: "思考过程", reasoning_now: "思考中…", calls: "调用", result: "结果", send_result: "发送结果",
    result_of: "调用结果：", empty: "请输入问题。", stopped: "已停止", cut: "已达到长度上限",
    system_prompt: "系统提示词", thinking: "思考", thinking_default: "由模型决定", thinking_on: "开启",
    thinking_off: "关闭", temperature: "温度", repetition_penalty: "重复惩罚", max_tokens: "最大 token 数",
    seed: "随机种子", empty_is_default: "留空则使用模型默认值。", tools: "工具（函数的 JSON 列表）",
    tools_note: "调用会显示出来，结果由您填写。calculate 和 get_time 在本页运行。", example_tools: "插入示例",
    api_key: "API 密钥（仅保存在此标签页）", tokens: "token", per_second: "token/秒", first_token: "首 token",
    no_server: "无法连接服务器：", tools_problem: "工具不是函数的 JSON 列表：", full: "浏览器存储已满，请删除一些对话。",
  },
};

let language = "en";

export function chooseLanguage(name) {
  language = WORDS[name] ? name : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = word(element.dataset.text);
  for (const element of document.querySelectorAll("[data-text-title]")) {
    element.title = word(element.dataset.textTitle);
    element.setAttribute("aria-label", element.title);
  }
  for (const element of document.querySelectorAll("[data-text-label]"))
    element.setAttribute("aria-label", word(element.dataset.textLabel));
  for (const element of document.querySelectorAll("[data-text-placeholder]"))
    element.placeholder = word(element.dataset.textPlaceholder);
}

export function word(key) {
  return WORDS[language][key] ?? WORDS.en[key] ?? key;
}
