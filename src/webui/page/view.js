// Messages to elements.
import { render } from "./markdown.js";
import { word } from "./words.js";

export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// `actions`: retry(index), edit(index), result(index, call, text). RETURNS: the message's article.
export function messageElement(message, index, isRunning, actions, isAnswered) {
  const article = make("article", { className: message.role });
  article.dataset.index = index;
  if (message.role === "user") {
    article.append(make("div", { className: "body" }, message.content));
    if (!isRunning) article.append(actionRow([["edit", () => actions.edit(index)], ["copy", copies(message.content)]]));
    return article;
  }
  if (message.role === "tool") {
    article.append(make("div", { className: "body" }, `${word("result_of")} ${message.name ?? ""}\n${message.content}`));
    return article;
  }
  if (message.reasoning_content) article.append(reasoning(message, isRunning));
  const body = make("div", { className: "body" });
  body.append(render(message.content ?? ""));
  article.append(body);
  for (const call of message.tool_calls ?? [])
    article.append(callElement(call, index, isRunning || isAnswered(call.id), actions));
  if (message.problem) article.append(make("p", { className: "problem" }, message.problem));
  if (!isRunning) {
    const row = actionRow([["retry", () => actions.retry(index)], ["copy", copies(message.content ?? "")]]);
    row.append(make("span", { className: "figures" }, notes(message)));
    article.append(row);
  }
  return article;
}

function reasoning(message, isRunning) {
  const isNow = isRunning && !message.content && !message.tool_calls?.length;
  const details = make("details", { className: "reasoning", open: Boolean(message.isReasoningOpen) });
  details.append(make("summary", {}, word(isNow ? "reasoning_now" : "reasoning")), make("div", {}, message.reasoning_content));
  details.addEventListener("toggle", () => (message.isReasoningOpen = details.open));
  return details;
}

function callElement(call, index, isDone, actions) {
  const element = make("div", { className: "call" });
  const name = make("strong", {}, call.function.name);
  element.append(make("div", {}, name, ` ${word("calls")}`), make("pre", {}, make("code", {}, shownArguments(call.function.arguments))));
  if (isDone) return element;
  const text = make("textarea", { rows: 1, placeholder: word("result"), ariaLabel: word("result") });
  const form = make("form", {}, text, make("button", { type: "submit" }, word("send_result")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    actions.result(index, call, text.value);
  });
  element.append(form);
  return element;
}

function shownArguments(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // still coming
  }
}

function notes(message) {
  const parts = [];
  if (message.stopped) parts.push(word("stopped"));
  if (message.finish_reason === "length") parts.push(word("cut"));
  if (message.figures) parts.push(figuresText(message.figures));
  return parts.join(" · ");
}

export function figuresText(figures) {
  const rate = figures.seconds > 0 && figures.tokens > 1 ? ((figures.tokens - 1) / figures.seconds).toFixed(1) : "–";
  return `${figures.tokens} ${word("tokens")} · ${rate} ${word("per_second")} · ${word("first_token")} ${(figures.firstToken * 1000).toFixed(0)} ms`;
}

function actionRow(entries) {
  const row = make("div", { className: "actions" });
  for (const [key, run] of entries) {
    const button = make("button", { type: "button" }, word(key));
    button.dataset.action = key;
    button.addEventListener("click", () => run(button));
    row.append(button);
  }
  return row;
}

const copies = (text) => async (button) => {
  await navigator.clipboard?.writeText(text);
  button.textContent = word("copied");
};

export function conversationElement(conversation, isCurrent, open, remove) {
  const title = conversation.title || word("untitled");
  const openButton = make("button", { type: "button", className: "open", title }, title);
  if (isCurrent) openButton.setAttribute("aria-current", "true");
  openButton.addEventListener("click", open);
  const removeButton = make("button", { type: "button", className: "remove", title: word("remove"), ariaLabel: `${word("remove")}: ${title}` }, "✕");
  removeButton.addEventListener("click", remove);
  return make("li", { className: isCurrent ? "current" : "" }, openButton, removeButton);
}
