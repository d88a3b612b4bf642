// The chat page: wires conversations, settings and answers together.
import { models } from "./api.js";
import { create, current, open, remove, save, state } from "./store.js";
import { EXAMPLE, parseTools, runTool } from "./tools.js";
import { requestBody, run } from "./turn.js";
import { conversationElement, figuresText, make, messageElement } from "./view.js";
import { chooseLanguage, word } from "./words.js";

const $ = (id) => document.getElementById(id);
let model = "";
let running = null; // {controller, conversation, message}
const MOST_ROUNDS = 8; // of calls that this page answers by itself

function keep() {
  if (!save()) $("speed").textContent = word("full");
}

// What is on the screen.

function drawConversations() {
  $("conversations").replaceChildren(
    ...state.conversations.map((conversation) =>
      conversationElement(
        conversation,
        conversation.id === state.current,
        () => {
          open(conversation.id);
          keep();
          draw();
          closeSide();
        },
        () => {
          if (running?.conversation === conversation) running.controller.abort();
          remove(conversation.id);
          keep();
          draw();
        },
      ),
    ),
  );
}

const actions = {
  retry(index) {
    if (running) return;
    const conversation = current();
    conversation.messages.length = index;
    answer(conversation);
  },
  edit(index) {
    if (running) return;
    const conversation = current();
    $("input").value = conversation.messages[index].content;
    conversation.messages.length = index;
    keep();
    draw();
    fitInput();
    $("input").focus();
  },
  result(index, call, text) {
    if (running) return;
    const conversation = current();
    conversation.messages.push({ role: "tool", tool_call_id: call.id, name: call.function.name, content: text });
    keep();
    if (openCalls(conversation).length === 0) answer(conversation);
    else draw();
  },
};

function element(conversation, index) {
  const message = conversation.messages[index];
  const isAnswered = (id) => conversation.messages.some((other) => other.tool_call_id === id);
  return messageElement(message, index, running?.message === message, actions, isAnswered);
}

function drawMessages() {
  const conversation = current();
  const count = conversation?.messages.length ?? 0;
  const elements = [];
  for (let i = 0; i < count; ++i) elements.push(element(conversation, i));
  $("log").replaceChildren(...(count > 0 ? elements : [make("p", { className: "empty" }, word("empty"))]));
  $("title").textContent = conversation?.title || word("untitled");
  $("log").scrollTop = $("log").scrollHeight;
}

function drawState() {
  const isRunning = running !== null;
  $("send").hidden = isRunning;
  $("stop").hidden = !isRunning;
  $("send").disabled = $("input").value.trim() === "";
}

function draw() {
  drawConversations();
  drawMessages();
  drawState();
}

// The last message alone, once a frame, while it grows.
let isDrawing = false;
function drawLast(conversation) {
  if (isDrawing || conversation !== current()) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    const log = $("log");
    const last = log.lastElementChild;
    if (!running || conversation !== current() || !last) return;
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    last.replaceWith(element(conversation, conversation.messages.length - 1));
    if (isAtEnd) log.scrollTop = log.scrollHeight;
    if (running.message.figures) $("speed").textContent = figuresText(running.message.figures);
  });
}

// Answers.

// Calls of the last turn that have no result yet.
function openCalls(conversation) {
  const turn = conversation.messages.findLast((message) => message.role === "assistant");
  const hasResult = (call) => conversation.messages.some((message) => message.tool_call_id === call.id);
  return (turn?.tool_calls ?? []).filter((call) => !hasResult(call));
}

async function answer(conversation) {
  for (let round = 0; round < MOST_ROUNDS; ++round) {
    const message = { role: "assistant", content: "" };
    const controller = new AbortController();
    let body;
    try {
      body = requestBody(model, conversation.messages, state.settings);
    } catch {
      showSettings(true); // which says what is wrong with the tools
      return;
    }
    conversation.messages.push(message);
    running = { controller, conversation, message };
    draw();
    await run(body, message, controller.signal, () => drawLast(conversation));
    running = null;
    const calls = message.stopped || message.problem ? [] : openCalls(conversation);
    for (const call of calls) {
      const result = runTool(call.function.name, call.function.arguments);
      if (result !== null)
        conversation.messages.push({ role: "tool", tool_call_id: call.id, name: call.function.name, content: result });
    }
    keep();
    if (conversation === current()) draw();
    if (calls.length === 0 || openCalls(conversation).length > 0) break;
  }
  drawState();
}

function submit() {
  const text = $("input").value.trim();
  if (text === "" || running) return;
  const conversation = current() ?? create();
  if (!conversation.title) conversation.title = text.split("\n")[0].slice(0, 60);
  conversation.messages.push({ role: "user", content: text });
  $("input").value = "";
  fitInput();
  keep();
  answer(conversation);
}

// Controls.

function fitInput() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
  drawState();
}

function newConversation() {
  if (current()?.messages.length !== 0) create();
  keep();
  draw();
  closeSide();
  $("input").focus();
}

function closeSide() {
  $("side").classList.remove("open");
  $("shade").hidden = true;
}

function showSettings(visible) {
  $("settings").hidden = !visible;
  $("open-settings").setAttribute("aria-expanded", String(visible));
  checkTools();
}

function checkTools() {
  try {
    parseTools(state.settings.tools);
    $("tools-problem").textContent = "";
  } catch (error) {
    $("tools-problem").textContent = word("tools_problem") + error.message;
  }
}

function showTheme() {
  document.documentElement.dataset.theme = state.theme;
}

function wireSettings() {
  for (const field of document.querySelectorAll("[data-setting]")) {
    field.value = state.settings[field.dataset.setting] ?? "";
    field.addEventListener("input", () => {
      state.settings[field.dataset.setting] = field.value;
      checkTools();
      keep();
    });
  }
  $("example-tools").addEventListener("click", () => {
    const field = document.querySelector("[data-setting=tools]");
    field.value = JSON.stringify(EXAMPLE, null, 2);
    field.dispatchEvent(new Event("input"));
  });
  $("api-key").value = sessionStorage.getItem("minimax.cpp.key") ?? "";
  $("api-key").addEventListener("change", () => {
    sessionStorage.setItem("minimax.cpp.key", $("api-key").value);
    findModel();
  });
  $("language").value = state.language;
  $("language").addEventListener("change", () => {
    state.language = $("language").value;
    chooseLanguage(state.language);
    keep();
    draw();
  });
  $("theme").value = state.theme;
  $("theme").addEventListener("change", () => {
    state.theme = $("theme").value;
    showTheme();
    keep();
  });
}

function wireKeys() {
  $("input").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      if (running) running.controller.abort();
      else {
        showSettings(false);
        closeSide();
      }
    } else if (event.altKey && event.code === "KeyN") {
      event.preventDefault();
      newConversation();
    }
  });
}

async function findModel() {
  try {
    const names = await models();
    model = names[0] ?? "";
    $("model").textContent = model;
  } catch (error) {
    $("model").textContent = word("no_server") + error.message;
    setTimeout(findModel, 2000);
  }
}

chooseLanguage(state.language);
showTheme();
wireSettings();
wireKeys();
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("input").addEventListener("input", fitInput);
$("stop").addEventListener("click", () => running?.controller.abort());
$("new").addEventListener("click", newConversation);
$("open-settings").addEventListener("click", () => showSettings($("settings").hidden));
$("close-settings").addEventListener("click", () => showSettings(false));
$("open-side").addEventListener("click", () => {
  $("side").classList.add("open");
  $("shade").hidden = false;
});
$("close-side").addEventListener("click", closeSide);
$("shade").addEventListener("click", closeSide);
findModel();
draw();
$("input").focus();
