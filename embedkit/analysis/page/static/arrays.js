"use strict";
// The page's data. Each array is gzip in base64, in an element of its own, and is unpacked when it is first wanted.

const META = JSON.parse(document.getElementById("meta").textContent);
const LEVELS = 65535;
const unpacked = new Map();

/** The typed array of that name; `META.types` says of what type. */
function arrayOf(name) {
  if (!unpacked.has(name)) {
    unpacked.set(name, unpack(name).then((buffer) => new globalThis[META.types[name]](buffer)));
  }
  return unpacked.get(name);
}

/** {id, source-less texts} of the rows whose texts the page carries: position in `id` by id, and columns of strings. */
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

async function unpack(name) {
  const element = await elementOf(`data-${name}`);
  const packed = fromBase64(element.textContent);
  element.textContent = "";  // so that the page does not hold it twice
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

/** The element, once the parser is past it: scripts run before the page is whole, and an element before its text is. */
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
