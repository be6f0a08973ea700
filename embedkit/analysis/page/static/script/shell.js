/**
 * A run's name as a word for the shell. `./` keeps a leading dash from being an option.
 * @param {string} name
 */
export function shellWord(name) {
  const word = name.startsWith("-") ? `./${name}` : name;
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
