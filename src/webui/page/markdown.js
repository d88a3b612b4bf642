// A small, safe part of Markdown: text becomes nodes, never HTML.

// `text` as a fragment: fenced code, headings, lists, quotes, tables, paragraphs.
export function render(text) {
  const out = document.createDocumentFragment();
  const lines = text.split("\n");
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = line.match(/^\s*(```+|~~~+)(.*)$/);
    if (fence) {
      const code = [];
      for (++i; i < lines.length && !lines[i].trim().startsWith(fence[1]); ++i) code.push(lines[i]);
      ++i;
      out.append(codeBlock(code.join("\n"), fence[2].trim()));
    } else if (/^#{1,6}\s/.test(line)) {
      const level = line.match(/^#+/)[0].length;
      out.append(inline(make(`h${Math.min(level + 1, 6)}`), line.slice(level).trim()));
      ++i;
    } else if (isItem(line)) {
      i = list(lines, i, out);
    } else if (line.includes("|") && /^\s*\|?[\s:|-]*-[\s:|-]*$/.test(lines[i + 1] ?? "") && lines[i + 1].includes("|")) {
      i = table(lines, i, out);
    } else if (/^>\s?/.test(line)) {
      const quoted = [];
      for (; i < lines.length && /^>\s?/.test(lines[i]); ++i) quoted.push(lines[i].replace(/^>\s?/, ""));
      const quote = make("blockquote");
      quote.append(render(quoted.join("\n")));
      out.append(quote);
    } else if (line.trim() === "") {
      ++i;
    } else {
      const paragraph = [];
      for (; i < lines.length && lines[i].trim() !== "" && !startsBlock(lines[i]); ++i) paragraph.push(lines[i]);
      if (paragraph.length === 0) paragraph.push(lines[i++]);
      out.append(inline(make("p"), paragraph.join("\n")));
    }
  }
  return out;
}

const make = (name) => document.createElement(name);
const isItem = (line) => /^\s*([-*+]|\d+[.)])\s+/.test(line);
const startsBlock = (line) => /^\s*(```|~~~)/.test(line) || /^#{1,6}\s/.test(line) || isItem(line) || /^>/.test(line);

function codeBlock(text, language) {
  const block = make("pre");
  const code = make("code");
  code.textContent = text;
  if (language) code.dataset.language = language;
  block.append(code);
  return block;
}

function list(lines, i, out) {
  const ordered = /^\s*\d/.test(lines[i]);
  const element = make(ordered ? "ol" : "ul");
  if (ordered) element.start = parseInt(lines[i], 10);
  for (; i < lines.length && isItem(lines[i]) && /^\s*\d/.test(lines[i]) === ordered; ++i)
    element.append(inline(make("li"), lines[i].replace(/^\s*([-*+]|\d+[.)])\s+/, "")));
  out.append(element);
  return i;
}

function table(lines, i, out) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const element = make("table");
  const row = (line, name) => {
    const tr = make("tr");
    for (const cell of cells(line)) tr.append(inline(make(name), cell));
    element.append(tr);
  };
  row(lines[i], "th");
  for (i += 2; i < lines.length && lines[i].includes("|"); ++i) row(lines[i], "td");
  out.append(element);
  return i;
}

// Code, bold, italic and links of http and https. RETURNS: `element`.
function inline(element, text) {
  const pattern = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([\s\S]+?)\*\*|\*([^\s*][^*]*?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/;
  for (let found = text.match(pattern); found; found = text.match(pattern)) {
    element.append(text.slice(0, found.index));
    element.append(inlineElement(found));
    text = text.slice(found.index + found[0].length);
  }
  element.append(text);
  return element;
}

function inlineElement(found) {
  if (found[2] !== undefined) {
    const code = make("code");
    code.textContent = found[2];
    return code;
  }
  if (found[3] !== undefined) return inline(make("strong"), found[3]);
  if (found[4] !== undefined) return inline(make("em"), found[4]);
  const link = make("a");
  link.href = found[6];
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  link.textContent = found[5];
  return link;
}
