// The page of `heedful serve`: translate as one types, and look inside one sentence.

import { BEAM, alternatives, attention, make, positions, sentences, steps, tree } from "./views.js";

const at = (id) => document.getElementById(id);
const WAIT = 250; // milliseconds after the last key
const EXAMPLES = { en: "The little dog sleeps on the old sofa.", de: "Der kleine Hund schläft auf dem alten Sofa." };
const VIEWS = {
  Alternatives: (found) => [
    make("p", { class: "quiet" }, "The best outputs of the beam, with their scores. Choose one to look into it in all views."),
    alternatives(found, { choose }),
  ],
  Attention: (found) => [attention(found, attentionOptions)],
  "Step by step": (found) => [steps(found, stepOptions)],
  Beam: (found) => [
    make("p", { class: "quiet" }, BEAM),
    tree(found),
  ],
  Positions: (found) => [
    make("p", { class: "quiet" }, "What is added to each piece's embedding to say where it stands: a sine or cosine in each dimension, unless the model has learned them."),
    positions(found),
  ],
};
const attentionOptions = { switched: toggle };
const stepOptions = {};
let pairs = [];
let sentence = 0;
let rank = 1; // which of the beam's outputs is looked into
let without = new Set();
let view = "Attention";
let found;
let running; // what is being asked for; a newer question ends it
let translated; // the text and languages whose translation stands there
let timer;

async function ask(path, body, signal, tries = 6) {
  const key = at("key").value;
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, ...(key && { api_key: key }) }),
    signal,
  }).catch(instead("The server does not answer."));
  const answer = await response.json().catch(instead(`The server, or what stands before it, answered ${response.status}.`));
  if (response.ok) return answer;
  const again = Number(response.headers.get("retry-after")); // seconds; long ones are for the user to decide
  if (again === 1 && tries > 1) { // many ask at once, as a class does that loads the page
    await pause(1000 * (1 + 2 * Math.random()), signal);
    return ask(path, body, signal, tries - 1);
  }
  if (response.status === 403) at("key-field").hidden = false;
  throw Object.assign(new Error(answer.error), { status: response.status });
}

// What browsers say of a network that failed, or of an answer that is not ours, helps nobody.
function instead(problem) {
  return (error) => { throw error.name === "AbortError" ? error : new Error(problem); };
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const waiting = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(waiting); reject(signal.reason); }, { once: true });
  });
}

// A newer question ends the one that is being asked.
async function attempt(question) {
  running?.abort();
  running = new AbortController();
  complain("");
  try {
    await question(running.signal);
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message, !error.status || error.status >= 429);
  }
}

// Translate all of the text, then explain the chosen sentence of it.
async function translate() {
  if (!pairs.length) return; // not known yet: it is called again when they are
  const q = at("text").value;
  const [source, target] = pairs[at("pair").selectedIndex];
  at("text").lang = source;
  at("translation").lang = target;
  translated = undefined;
  await attempt(async (signal) => {
    if (!q.trim()) {
      at("translation").textContent = "";
      at("inside").hidden = true;
      return;
    }
    at("translation").classList.add("waiting");
    const { translatedText } = await ask("/translate", { q, source, target }, signal).catch((error) => {
      if (error.name !== "AbortError") { // what stands there is of another text
        at("translation").textContent = "";
        at("inside").hidden = true;
      }
      throw error;
    });
    at("translation").textContent = translatedText;
    at("translation").classList.remove("waiting");
    translated = { q, source, target };
    await inside(signal);
  });
}

// Look elsewhere inside the text that is translated already.
function look() {
  return translated?.q === at("text").value ? attempt(inside) : translate();
}

async function inside(signal) {
  await explain(translated, signal).catch((error) => {
    if (error.name !== "AbortError") at("inside").hidden = true; // what stands there is another sentence's
    throw error;
  });
}

async function explain(wanted, signal) {
  try {
    found = await ask("/explain", { ...wanted, sentence, rank, without: [...without] }, signal);
  } catch (error) {
    if (error.status === 413 && sentence) { // too long to explain: the first one has the buttons that lead to others
      complain(error.message);
      sentence = 0;
      return explain(wanted, signal);
    }
    if (error.status !== 400 || (!sentence && rank === 1 && !without.size)) throw error;
    if (rank > 1) rank = 1; // the beam's outputs have become fewer,
    else if (sentence) sentence = 0; // or the text shorter,
    else without.clear(); // or the server has another model, without these heads
    return explain(wanted, signal);
  }
  at("inside").hidden = !found.sentences.length; // an address, say, has nothing to look into
  if (found.sentences.length) keepingFocus(fill);
}

function fill() {
  at("sentences").hidden = found.sentences.length < 2;
  at("sentences").replaceChildren(...found.sentences.map(sentenceButton));
  at("words").replaceChildren(...sentences(found));
  const off = found.without.length;
  at("without").hidden = !off;
  const all = make("button", { type: "button" }, "Switch all on");
  all.addEventListener("click", () => { without.clear(); look(); });
  at("without").replaceChildren(`Switched off: ${found.without.join(", ")} `, all);
  show();
}

// What is filled anew has new buttons; the keyboard stays where it was.
function keepingFocus(fill) {
  const buttons = (id) => [...at(id).querySelectorAll("button")];
  const place = ["sentences", "without", "view"].find((id) => buttons(id).includes(document.activeElement));
  const number = place && buttons(place).indexOf(document.activeElement);
  fill();
  if (!place) return;
  const same = buttons(place)[number];
  (same?.offsetParent ? same : at("views").querySelector('[tabindex="0"]')).focus(); // one that is hidden has none
}

function sentenceButton(text, number) {
  const button = make("button", { type: "button", "aria-pressed": String(number === found.sentence) }, text);
  button.addEventListener("click", () => { sentence = number; rank = 1; look(); });
  return button;
}

function choose(number) {
  rank = number;
  look();
}

function toggle(name) {
  if (!without.delete(name)) without.add(name);
  look();
}

function show() {
  for (const button of at("views").children) {
    const chosen = button.textContent === view;
    button.setAttribute("aria-selected", chosen);
    button.tabIndex = chosen ? 0 : -1;
  }
  at("view").setAttribute("aria-label", view);
  at("view").replaceChildren(...VIEWS[view](found));
}

function complain(problem, temporary = false) {
  at("problem").replaceChildren(problem);
  if (temporary) {
    const again = make("button", { type: "button" }, "Try again");
    again.addEventListener("click", translate);
    at("problem").append(" ", again);
  }
  at("problem").hidden = !problem;
  at("translation").classList.remove("waiting");
}

function makeTabs() {
  const names = Object.keys(VIEWS);
  names.forEach((name, i) => {
    const button = make("button", { type: "button", role: "tab", "aria-controls": "view" }, name);
    button.addEventListener("click", () => { view = name; show(); });
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = at("views").children[(i + step + names.length) % names.length];
      next.focus();
      next.click();
    });
    at("views").append(button);
  });
}

at("text").addEventListener("input", () => {
  clearTimeout(timer);
  rank = 1;
  timer = setTimeout(translate, WAIT);
});
at("key").addEventListener("change", translate);
at("key-field").addEventListener("submit", (event) => event.preventDefault());
at("pair").addEventListener("change", () => {
  without.clear();
  sentence = 0;
  rank = 1;
  translate();
});
at("copy").hidden = !navigator.clipboard; // browsers give it to secure places alone
at("copy").addEventListener("click", async () => {
  const refused = await navigator.clipboard.writeText(at("translation").textContent).catch(() => true);
  at("copy").textContent = refused ? "Not allowed" : "Copied";
  setTimeout(() => { at("copy").textContent = "Copy"; }, 1500);
});

makeTabs();
const languages = await fetch("/languages").then((answer) => (answer.ok ? answer.json() : [])).catch(() => []);
if (!languages.length) complain("The server does not say which languages it knows: load this page again.");
const names = Object.fromEntries(languages.filter((one) => one.name !== one.code).map((one) => [one.code, one.name]));
const inEnglish = new Intl.DisplayNames("en", { type: "language" });
const nameOf = (code) => names[code] ?? (/^[a-z]{2,3}$/.test(code) ? inEnglish.of(code) : code); // the server knows few
pairs = languages.flatMap((language) => language.targets.map((target) => [language.code, target]));
at("pair").append(...pairs.map(([source, target]) => make("option", {}, `${nameOf(source)} to ${nameOf(target)}`)));
if (!at("text").value && pairs.length) {
  at("text").value = EXAMPLES[pairs[0][0]] ?? "";
  at("text").select(); // whoever types writes over it
}
translate();
