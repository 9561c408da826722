// A page to try queries. The API key stays in this tab and is sent as a header only; what the server
// answers is shown as text, never as HTML.

const KEY = "search-key";
const find = (id) => document.getElementById(id);
const main = document.querySelector("main");

class Refused extends Error {}

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
  const options = { headers, cache: "no-store" };
  if (body) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const message = answer.error?.message ?? `The server answered with status ${response.status}.`;
  throw response.status === 401 ? new Refused(message) : new Error(message);
}

function say(text, failed = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", failed);
}

function fail(error) {
  if (error instanceof Refused) forget(error.message);
  else say(error.message, true);
}

function forget(message = "") {
  sessionStorage.removeItem(KEY);
  find("results").replaceChildren();
  find("more").hidden = main.hidden = true;
  find("access").hidden = false;
  find("key").focus();
  say(message, true);
}

async function open() {
  const { collections } = await ask("v1/collections");
  find("collection").replaceChildren(...collections.map((name) => new Option(name)));
  find("access").hidden = true;
  main.hidden = false;
  say("");
  find("query").focus();
  if (collections.length) await describe();
  else say("There are no collections.", true);
}

async function describe() {
  const name = find("collection").value;
  const about = await ask(`v1/collections/${encodeURIComponent(name)}`);
  if (find("collection").value !== name) return;
  const fields = Object.entries(about.fields).map(([field, kind]) => `${field} (${kind})`);
  const parts = [`${about.documents} documents`, `language: ${about.language}`];
  if (fields.length) parts.push(`indexed: ${fields.join(", ")}`);
  find("about").textContent = parts.join("; ");
}

function filterGiven() {
  const text = find("filter").value.trim();
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('The filter is not JSON; an example: {"lang": "en"}');
  }
}

let shown = null; // the question whose results are on the page
let last = null; // the request whose answer is awaited

async function search(offset = 0) {
  const question = offset
    ? { ...shown, offset }
    : {
        query: find("query").value,
        collection: find("collection").value,
        mode: find("mode").value,
        expand: find("expand").checked,
        distinct: find("distinct").checked,
        filter: filterGiven(),
        highlight: true,
      };
  say("Searching …");
  const begun = performance.now();
  last = question;
  const answer = await ask("v1/search", question);
  if (last !== question) return;
  const seconds = ((performance.now() - begun) / 1000).toFixed(2);
  if (!offset) find("results").replaceChildren();
  shown = { ...question, offset: answer.next_offset };
  find("results").append(...answer.results.map(item));
  find("more").hidden = answer.next_offset === null;
  const count = find("results").children.length;
  say(`${count || "No"} result${count === 1 ? "" : "s"}, ${seconds} s`);
}

function item(result) {
  const title = made("h2", result.id);
  const place = result.passages > 1 ? `, passage ${result.passage + 1} of ${result.passages}` : "";
  const rerank = result.rerank_score === undefined ? "" : `, reranked ${result.rerank_score.toFixed(3)}`;
  const parts = [title, made("div", `score ${result.score.toFixed(3)}${rerank}${place}`, "place")];
  parts.push(highlighted(result.text, result.highlights ?? []));
  if (Object.keys(result.metadata).length) parts.push(made("pre", JSON.stringify(result.metadata)));
  const found = document.createElement("li");
  found.append(...parts);
  return found;
}

// Positions count characters of Unicode, not JavaScript's units of UTF-16.
function highlighted(text, places) {
  const characters = [...text];
  const part = (from, to) => characters.slice(from, to).join("");
  const whole = made("p", "", "text");
  let end = 0;
  for (const [from, to] of places) {
    whole.append(part(end, from), made("mark", part(from, to)));
    end = to;
  }
  whole.append(part(end));
  return whole;
}

function made(tag, text, style = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = style;
  return element;
}

find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, find("key").value.trim());
  find("key").value = "";
  open().catch(fail);
});
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search().catch(fail);
});
find("collection").addEventListener("change", () => describe().catch(fail));
find("more").addEventListener("click", () => search(shown.offset).catch(fail));
find("forget").addEventListener("click", () => forget());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key !== "/" || typing || main.hidden) return;
  event.preventDefault();
  find("query").select();
});
if (sessionStorage.getItem(KEY)) open().catch(fail);
else find("key").focus();
