// One answer of the model: the request's body, and what its chunks add to a message.
import { streamChat } from "./api.js";
import { parseTools } from "./tools.js";

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];

// THROWS: Error when the tools are no list of functions.
export function requestBody(model, messages, settings) {
  const sent = messages.filter((message) => !message.problem || message.content || message.tool_calls?.length);
  const body = { model, messages: sent.map(sentMessage) };
  if (settings.system) body.messages.unshift({ role: "system", content: settings.system });
  for (const name of NUMBERS) {
    if (settings[name] !== undefined && settings[name] !== "") body[name] = Number(settings[name]);
  }
  if (settings.thinking) body.chat_template_kwargs = { thinking_mode: settings.thinking, enable_thinking: settings.thinking === "enabled" };
  const tools = parseTools(settings.tools);
  if (tools) body.tools = tools;
  return body;
}

function sentMessage(message) {
  const sent = { role: message.role, content: message.content ?? "" };
  if (message.reasoning_content) sent.reasoning_content = message.reasoning_content;
  if (message.tool_calls?.length) sent.tool_calls = message.tool_calls;
  if (message.tool_call_id) {
    sent.tool_call_id = message.tool_call_id;
    sent.name = message.name;
  }
  return sent;
}

// Fills `message` chunk by chunk; onChange after each. Problems end up in the message.
export async function run(body, message, signal, onChange) {
  const begin = performance.now();
  let first = 0;
  let chunks = 0;
  const note = (tokens) => {
    message.figures = { tokens, seconds: (performance.now() - begin - first) / 1000, firstToken: first / 1000 };
  };
  try {
    await streamChat(body, signal, (chunk) => {
      const choice = chunk.choices?.[0];
      if (choice && hasContent(choice.delta)) {
        if (chunks++ === 0) first = performance.now() - begin;
        add(message, choice.delta);
        note(chunks);
      }
      if (choice?.finish_reason) message.finish_reason = choice.finish_reason;
      if (chunk.usage) note(chunk.usage.completion_tokens);
      onChange();
    });
  } catch (error) {
    if (error.name === "AbortError") message.stopped = true;
    else message.problem = error.message;
  }
  if (message.tool_calls) message.tool_calls = message.tool_calls.filter(isWhole);
  onChange();
}

function hasContent(delta) {
  return Boolean(delta?.content || delta?.reasoning_content || delta?.tool_calls?.length);
}

function add(message, delta) {
  if (delta.reasoning_content) message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
  if (delta.content) message.content = (message.content ?? "") + delta.content;
  for (const part of delta.tool_calls ?? []) {
    message.tool_calls ??= [];
    const call = (message.tool_calls[part.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (part.id) call.id = part.id;
    if (part.function?.name) call.function.name = part.function.name;
    call.function.arguments += part.function?.arguments ?? "";
  }
}

// An answer may have been cut within a call.
function isWhole(call) {
  try {
    JSON.parse(call.function.arguments || "{}");
    return true;
  } catch {
    return false;
  }
}
