// Functions that this page offers and can run itself.

export const EXAMPLE = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Current weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
  {
    type: "function",
    function: {
      name: "calculate",
      description: "Value of an arithmetic expression with + - * / and parentheses",
      parameters: { type: "object", properties: { expression: { type: "string" } }, required: ["expression"] },
    },
  },
  {
    type: "function",
    function: { name: "get_time", description: "The current date and time", parameters: { type: "object", properties: {} } },
  },
];

// The tools in `text`, or null when it is empty. THROWS: Error when it is not a list of functions.
export function parseTools(text) {
  if (!text || text.trim() === "") return null;
  const tools = JSON.parse(text);
  if (!Array.isArray(tools)) throw new Error("[ ... ]");
  return tools.map((tool) => {
    const wrapped = tool.function ? tool : { type: "function", function: tool };
    if (typeof wrapped.function?.name !== "string") throw new Error("name");
    return wrapped;
  });
}

// RETURNS: the result as text, or null when this page cannot run the call.
export function runTool(name, argumentText) {
  try {
    const values = JSON.parse(argumentText || "{}");
    if (name === "get_time") return new Date().toString();
    if (name === "calculate") return String(calculate(String(values.expression)));
  } catch (error) {
    return `error: ${error.message}`;
  }
  return null;
}

// Sums and products of numbers and parentheses.
function calculate(text) {
  const tokens = text.match(/\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|\S/gi) ?? [];
  let at = 0;
  const factor = () => {
    const token = tokens[at++];
    if (token === "-") return -factor();
    if (token === "(") {
      const value = sum();
      if (tokens[at++] !== ")") throw new Error("')' is missing");
      return value;
    }
    const value = Number(token);
    if (token === undefined || Number.isNaN(value)) throw new Error(`'${token ?? "end"}' where a number belongs`);
    return value;
  };
  const product = () => {
    let value = factor();
    while (tokens[at] === "*" || tokens[at] === "/") value = tokens[at++] === "*" ? value * factor() : value / factor();
    return value;
  };
  const sum = () => {
    let value = product();
    while (tokens[at] === "+" || tokens[at] === "-") value = tokens[at++] === "+" ? value + product() : value - product();
    return value;
  };
  const value = sum();
  if (at < tokens.length) throw new Error(`'${tokens[at]}' was not expected`);
  return value;
}
