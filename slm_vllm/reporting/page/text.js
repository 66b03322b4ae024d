"use strict";
// All text of a run goes into the page as text nodes: nothing a model wrote is ever parsed as HTML.

const MOST_CHARACTERS = 3000;
const MOST_IN_LIST = 300;

const $ = (id) => document.getElementById(id);

/** Decompresses one of the two blocks of data at the end of the page. */
async function unpack(id) {
  const block = $(id);
  const binary = atob(block.textContent.trim());
  block.remove();
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Passages are most of the data and wait until a question is opened. */
const passages = (() => {
  let loading = null;
  return () => (loading ??= unpack("passages-data"));
})();

/** The text with a sign for each character that nobody can see. */
function visible(text) {
  return text
    .replace(/[\x00-\x08\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\x7f/g, "\u2421")
    .replace(/[\x80-\x9f\p{Cs}]/gu, "\ufffd");
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const child of children) {
    made.append(typeof child === "string" ? visible(child) : child);
  }
  return made;
}

/** The parts of the spans that lie between two places, counted from the first one. */
function within(spans, start, end) {
  return (spans ?? [])
    .map(([from, to]) => [Math.max(from, start) - start, Math.min(to, end) - start])
    .filter(([from, to]) => from < to);
}

/** A fragment of the text in which the spans are marked. */
function marked(text, spans) {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const [from, to] of within(spans, 0, text.length)) {
    fragment.append(visible(text.slice(end, from)), element("mark", "", text.slice(from, to)));
    end = to;
  }
  fragment.append(visible(text.slice(end)));
  return fragment;
}

/** A block of text; a long one is cut and can be shown whole. */
function textBlock(text, spans = null) {
  const block = element("p", "text");
  block.dir = "auto";
  if (text.length <= MOST_CHARACTERS) {
    block.append(marked(text, spans));
    return block;
  }
  block.append(marked(text.slice(0, MOST_CHARACTERS), spans), "…");
  const more = element("button", "more", `Show all ${text.length.toLocaleString("en")} characters`);
  more.type = "button";
  more.addEventListener("click", () => {
    block.replaceChildren(marked(text, spans));
    more.remove();
  });
  const both = document.createDocumentFragment();
  both.append(block, more);
  return both;
}

function short(text) {
  const line = text.slice(0, MOST_IN_LIST).replace(/\s+/g, " ");
  return text.length > MOST_IN_LIST ? `${line}…` : line;
}

const joined = (answers) => answers.filter((answer) => answer !== null).join(" | ");
