"use strict";
// The page's data. Each array is gzip in base64 in its own element, and is unpacked when it is first needed.

const META = JSON.parse(document.getElementById("meta").textContent);
const LEVELS = 65535;
const unpacked = new Map();

/** The typed array with a name. `META.types` has its type. */
function arrayOf(name) {
  if (!unpacked.has(name)) {
    unpacked.set(name, unpack(name).then((buffer) => new globalThis[META.types[name]](buffer)));
  }
  return unpacked.get(name);
}

/** The rows whose texts the page carries: `id`, `columns` of strings, `lengths`, and `at`, the position in `id` by id. */
function carriedTexts() {
  if (!unpacked.has("texts")) {
    unpacked.set("texts", unpack("texts").then((buffer) => {
      const texts = JSON.parse(new TextDecoder().decode(buffer));
      texts.at = new Map(texts.id.map((id, at) => [id, at]));
      return texts;
    }));
  }
  return unpacked.get("texts");
}

/** The texts that a row is known by: its prompt, or its text if there are no chats. */
const firstTexts = (texts) => Object.values(texts.columns)[0];

async function unpack(name) {
  const element = await elementOf(`data-${name}`);
  const packed = fromBase64(element.textContent);
  element.textContent = "";  // so that the data is not in memory twice
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

/** The element, once it is complete. Scripts run while the page loads, and an element exists before its text does. */
async function elementOf(id) {
  if (!document.getElementById(id)?.nextSibling && document.readyState === "loading") {
    await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  }
  return document.getElementById(id);
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
