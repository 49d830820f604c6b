// The filter of a table: `clients:2 index:"IVF256,Flat" state:invalid words`. The monitor and the report read it alike.
// A key is {names: [shown, ...others], of: (row) => values, spoken}; `spoken` ones also take `clients 2`, without a colon.

const TERM = /("[^"]*"|[^\s":=]+)\s*[:=]\s*$|(?:("[^"]*"|[^\s":=]+)\s*[:=]\s*)?(?:"([^"]*)"?|([^\s"]+))/g;
const SIZES = { "": 1, b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12 };
const MOST_TOLD = 12;

// Letter case and the signs between words do not matter in a name.
const plainName = (name) => name.toLowerCase().replace(/[\s_-]+/g, "_");

// The number that a text is, a size with its unit too; NaN where it is none.
function numberOf(text) {
  const [, digits, unit] = /^([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*([a-z]*)$/.exec(text.toLowerCase()) ?? [];
  return digits === undefined ? NaN : Number(digits) * (SIZES[unit] ?? NaN);
}

const inOrder = (one, other) => numberOf(one) - numberOf(other) || (one < other ? -1 : 1);

function same(value, wanted) {
  const [one, other] = [String(value).toLowerCase(), wanted.toLowerCase()];
  return one === other || numberOf(one) === numberOf(other);
}

// What a text asks for: {wanted: key to values, any of which will do; words; unknown: names that are no keys; open: a key
// that still has no value}.
export function readFilter(text, keys) {
  const known = new Map(keys.flatMap((key) => key.names.map((name) => [plainName(name), key])).reverse());
  const found = { wanted: new Map(), words: [], unknown: [], open: null };
  const want = (key, value) => found.wanted.set(key, [...(found.wanted.get(key) ?? []), value]);
  const loose = []; // words, each with whether it was in quotes
  for (const [, last, before, quoted, bare] of text.matchAll(TERM)) {
    const value = quoted ?? bare;
    const name = (last ?? before)?.replaceAll('"', "");
    const key = known.get(plainName(name ?? ""));
    if (name === undefined) loose.push([value, quoted !== undefined]);
    else if (!key) found.unknown.push(name);
    else if (value) want(key, value);
    else found.open = key;
  }
  while (loose.length) {
    const size = [2, 1].find((many) => loose.length > many && loose.slice(0, many + 1).every(([, quoted]) => !quoted)
      && known.get(plainName(loose.slice(0, many).map(([word]) => word).join("_")))?.spoken);
    const words = loose.splice(0, size ? size + 1 : 1).map(([word]) => word);
    if (size) want(known.get(plainName(words.slice(0, size).join("_"))), words[size]);
    else if (words[0]) found.words.push(words[0].toLowerCase());
  }
  return found;
}

// Whether a row is one of those asked for; `text` is what its words are looked for in, in lower case.
export function fits({ wanted, words, unknown }, row, text) {
  return !unknown.length && words.every((word) => text.includes(word))
    && [...wanted].every(([key, values]) => values.some((value) => key.of(row).some((one) => same(one, value))));
}

// What to say of a filter beside the table: a key that nobody has, and which there are; a value that none of the rows has.
export function filterAdvice({ wanted, unknown, open }, keys, rows, write = String) {
  if (unknown.length) {
    const names = keys.map((key) => plainName(key.names[0])).join(", ");
    return `No key “${unknown[0]}”. Keys: ${names}. In quotes it is looked for as text.`;
  }
  const told = (key) => {
    const values = [...new Set(rows.flatMap((row) => key.of(row)).map(String))].sort(inOrder).map(write);
    return values.slice(0, MOST_TOLD).join(", ") + (values.length > MOST_TOLD ? ", …" : "") || "no value";
  };
  const nobody = [...wanted].find(([key, values]) => values.every((value) => !rows.some((row) => key.of(row).some((one) => same(one, value)))));
  if (nobody) return `None has ${plainName(nobody[0].names[0])} ${nobody[1].join(" or ")}. Values: ${told(nobody[0])}.`;
  return open ? `${plainName(open.names[0])}: ${told(open)}` : "";
}
