// The server's OpenAI API.

function headers() {
  const key = sessionStorage.getItem("minimax.cpp.key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function problemOf(response) {
  const text = await response.text();
  try {
    return `${response.status}: ${JSON.parse(text).error.message}`;
  } catch {
    return `${response.status}: ${text.slice(0, 300)}`;
  }
}

// THROWS: Error with the server's words.
export async function models() {
  const response = await fetch("v1/models", { headers: headers() });
  if (!response.ok) throw new Error(await problemOf(response));
  return (await response.json()).data.map((model) => model.id);
}

// Calls onChunk with each chunk of the answer. THROWS: Error with the server's words, AbortError when stopped.
export async function streamChat(body, signal, onChunk) {
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw new Error(await problemOf(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data === "" || data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      onChunk(chunk);
    }
  }
}
