// Conversations and settings, kept in the browser.
//
// A message is what the API takes: {role, content, reasoning_content?, tool_calls?, tool_call_id?}, and what the
// page shows besides: {problem?, figures?, stopped?, finish_reason?}.
const KEY = "minimax.cpp";

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY));
    if (stored && Array.isArray(stored.conversations)) return stored;
  } catch {
    // Not ours or not JSON: begin anew.
  }
  return { conversations: [], settings: {}, language: navigator.language.startsWith("zh") ? "zh" : "en", theme: "auto" };
}

export const state = load();

// RETURNS: whether there was room.
export function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
    return true;
  } catch {
    return false;
  }
}

export function current() {
  return state.conversations.find((conversation) => conversation.id === state.current) ?? null;
}

export function open(id) {
  state.current = id;
}

export function create() {
  const conversation = { id: `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`, title: "", messages: [] };
  state.conversations.unshift(conversation);
  state.current = conversation.id;
  return conversation;
}

export function remove(id) {
  state.conversations = state.conversations.filter((conversation) => conversation.id !== id);
  if (state.current === id) state.current = state.conversations[0]?.id;
}
