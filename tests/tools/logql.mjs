// Reads a JSON list of LogQL expressions and writes, for each, where Grafana's parser finds an error: empty lists are good.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { parser } = createRequire(`${process.argv[2]}/`)("@grafana/lezer-logql");
const errors = JSON.parse(readFileSync(0, "utf8")).map((text) => {
  const found = [];
  parser.parse(text).iterate({ enter: ({ type, from }) => { if (type.isError) found.push(from); } });
  return found;
});
console.log(JSON.stringify(errors));
