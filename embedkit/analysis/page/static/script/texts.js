// How a row's prompt is shown in one line.

/** @typedef {import("./data.js").Texts} Texts */

const MIN_SHARED = 40;  // characters; a shorter shared prefix is not left out

/**
 * @param {string} text
 * @param {number} length
 */
export const truncate = (text, length) => (text.length > length ? `${text.slice(0, length)} ...` : text);

/**
 * The texts that a row is known by: its prompt, or its text if there are no chats.
 * @param {Texts} texts
 */
export const firstTexts = (texts) => Object.values(texts.columns)[0];

/** The prefix that all carried prompts of a source share. The part that differs comes after it. */
export class SharedPrefixes {
  /**
   * @param {Pick<Texts, "id" | "columns">} texts
   * @param {(id: number) => number} sourceOf the source of a row
   */
  constructor(texts, sourceOf) {
    /** @type {Map<number, string>} */
    this.shared = new Map();
    const prompts = Object.values(texts.columns)[0] ?? [];
    texts.id.forEach((id, at) => {
      const source = sourceOf(id), prompt = prompts[at], prefix = this.shared.get(source);
      let length = 0;
      if (prefix === undefined) length = prompt.length;
      else while (length < prefix.length && prefix[length] === prompt[length]) length++;
      this.shared.set(source, prompt.slice(0, length));
    });
  }

  /**
   * The start of a prompt, without the prefix that its source shares.
   * @param {string} prompt
   * @param {number} source
   * @param {number} length
   */
  start(prompt, source, length) {
    const shared = this.shared.get(source) ?? "";
    const isShort = shared.length < MIN_SHARED || shared.length >= prompt.length;
    const from = isShort ? 0 : shared.lastIndexOf(" ") + 1;
    return (from ? "... " : "") + truncate(prompt.slice(from), length);
  }
}
