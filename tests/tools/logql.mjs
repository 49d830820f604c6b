// Reads a JSON list of LogQL expressions and writes, for each, where Grafana's parser finds an error: empty lists are good.
import { readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-logql";

const errors = JSON.parse(readFileSync(0, "utf8")).map((text) => {
  const found = [];
  parser.parse(text).iterate({ enter: ({ type, from }) => { if (type.isError) found.push(from); } });
  return found;
});
console.log(JSON.stringify(errors));
