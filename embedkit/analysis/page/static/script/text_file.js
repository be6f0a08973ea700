// The script of a file of whole texts: sends the texts of one row to the page that shows this file in a frame.

import { carriedTexts } from "./data.js";

addEventListener("message", async ({ source, origin, data }) => {
  // The origin of a file is "null". A page of another site must not read this one, where a web server has it.
  if (source !== parent || origin !== self.origin || !Number.isInteger(data)) return;
  const { at, columns } = await carriedTexts(), i = at.get(data);
  const texts = i === undefined ? null
    : Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column[i]]));
  parent.postMessage({ id: data, texts }, "*");
});
parent.postMessage("ready", "*");
