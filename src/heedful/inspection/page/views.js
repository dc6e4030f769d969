// Views of an explanation (heedful.decoding.explanation.Explanation, as JSON). Text of the model is only ever set as
// text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = {
  cross: "Decoder to encoder",
  encoder: "Encoder to itself",
  decoder: "Decoder to itself",
};

export const BEAM = "One column a step. Of those that go on from the same piece the more probable stands higher; the output is bold, grey ones were given up.";

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

export function readable(piece) {
  if (piece === "</s>") return "⏎";
  if (piece === "▁") return "␣";
  return piece.replace(/^▁/, "");
}

// How many Latin letters a text is as wide as; those of Chinese, Japanese and Korean, and pictures, are wider than one.
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const widthOf = (text) => [...text].reduce((sum, character) => sum + (WIDE.test(character) ? 1.8 : 1), 0);
const widest = (texts) => Math.max(...texts.map(widthOf));

// The pieces along the rows and columns of an attention; a decoder's columns are the pieces before, begin first.
export function axes(explanation, kind) {
  const source = explanation.source_pieces.map(readable);
  const target = explanation.target_pieces.map(readable);
  if (kind === "encoder") return [source, source];
  if (kind === "cross") return [target, source];
  return [target, ["▸", ...target.slice(0, -1)]];
}

function mean(heads) {
  return heads[0].map((row, i) => row.map((_, j) => heads.reduce((sum, head) => sum + head[i][j], 0) / heads.length));
}

// Words ------------------------------------------------------------------------------------------------------------

// Pieces as a text. Characters that the vocabulary lacks are spelt in bytes, a piece each: <0xC3> <0xA9> is é.
function joined(pieces) {
  const spelt = pieces.map((piece) => /^<0x([0-9A-F]{2})>$/.exec(piece)?.[1]);
  const bytes = pieces.flatMap((piece, i) => (spelt[i] ? [parseInt(spelt[i], 16)] : [...new TextEncoder().encode(piece)]));
  return readable(new TextDecoder().decode(new Uint8Array(bytes))); // of which the first may be the mark of a word
}

function words(pieces, numbers, probabilities) {
  const found = [];
  pieces.forEach((piece, i) => {
    const number = numbers[i];
    if (number < 0) return;
    found[number] ??= { pieces: [], log: 0 };
    found[number].pieces.push(piece);
    if (probabilities) found[number].log += probabilities[i];
  });
  return found.map((word) => ({ text: joined(word.pieces), log: word.log }));
}

// Source and translation, in their languages; a word under the pointer or in focus shows what it is aligned with, both
// ways, and says so to whoever cannot see it.
export function sentences(explanation) {
  const sides = [
    ["source", "source words", words(explanation.source_pieces, explanation.source_words)],
    ["target", "translation", words(explanation.target_pieces, explanation.target_words, explanation.log_probabilities)],
  ];
  const spans = {};
  const texts = Object.fromEntries(sides.map(([side, , list]) => [side, list.map((word) => word.text)]));
  const lines = sides.map(([side, label, list], order) => {
    const line = make("p", { class: side, role: "group", "aria-label": label, dir: "auto" });
    if (explanation.languages[order]) line.lang = explanation.languages[order];
    spans[side] = list.map((word, number) => {
      const span = make("span", { class: "word", role: "img", tabindex: "0" }, word.text);
      const said = [word.text];
      if (side === "target") {
        const probability = Math.exp(word.log);
        span.title = `probability ${probability.toFixed(2)}`;
        said.push(span.title);
        if (probability < 0.5) {
          span.dataset.doubt = "";
          span.style.setProperty("--doubt", 1 - 2 * probability);
        }
      }
      const linked = explanation.alignment.filter((link) => link[order] === number).map((link) => link[1 - order]);
      const other = order ? "source" : "target";
      if (linked.length) said.push(`aligned with ${linked.map((place) => texts[other][place]).join(", ")}`);
      span.setAttribute("aria-label", said.join(", "));
      const light = (on) => highlight(side, number, on);
      span.addEventListener("pointerenter", () => light(true));
      span.addEventListener("pointerleave", () => light(false));
      span.addEventListener("focus", () => light(true));
      span.addEventListener("blur", () => light(false));
      line.append(span, " ");
      return span;
    });
    return line;
  });
  function highlight(side, number, on) {
    spans[side][number]?.classList.toggle("linked", on);
    for (const [source, target] of explanation.alignment) {
      if (side === "source" && source === number) spans.target[target]?.classList.toggle("linked", on);
      if (side === "target" && target === number) spans.source[source]?.classList.toggle("linked", on);
    }
  }
  return lines;
}

// Attention --------------------------------------------------------------------------------------------------------

let redraw = () => {}; // the grid that is shown, once the colours have changed
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// A grid of all layers and heads of each kind, the chosen one enlarged, and its strongest links as lines.
export function attention(explanation, options = {}) {
  const kinds = Object.keys(KINDS).filter((kind) => `${kind}.0` in explanation.attention);
  if (!kinds.length) return make("p", { class: "quiet" }, "This model has no attention: the decoder sees one state.");
  const tabs = make("div", { class: "tabs", role: "group", "aria-label": "which attention" });
  const grid = make("div", { class: "grid" });
  const large = make("figure", { class: "wide" });
  const off = new Set(explanation.without ?? []);
  let chosen = "cross";

  function layers(kind) {
    const count = Object.keys(explanation.attention).filter((name) => name.startsWith(`${kind}.`)).length;
    return Array.from({ length: count }, (_, layer) => explanation.attention[`${kind}.${layer}`]);
  }

  function press(group, button) {
    for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
  }

  function show(kind) {
    const all = layers(kind);
    const heads = all[0].length;
    const picked = options.picked; // in an earlier explanation, or in other colours
    let again;
    grid.replaceChildren();
    grid.style.gridTemplateColumns = `repeat(${Math.max(heads, 2)}, 1fr)`;
    all.forEach((layer, l) => {
      grid.append(make("span", {}, `layer ${l}`));
      layer.forEach((weights, h) => {
        const isOff = off.has(`${kind}.${l}`) || off.has(`${kind}.${l}.${h}`);
        const label = `${KINDS[kind]}, layer ${l}, head ${h}${isOff ? ", switched off" : ""}`;
        const button = make("button", { type: "button", title: label, "aria-label": label, "aria-pressed": "false" });
        button.append(thumbnail(weights));
        button.addEventListener("click", () => pick(kind, l, h, weights, button));
        if (picked === `${kind}.${l}.${h}`) again = () => pick(kind, l, h, weights, button);
        if (isOff) button.classList.add("off");
        grid.append(button);
      });
    });
    const [, layer, head] = kind === "cross" ? explanation.aligner.split(".") : [];
    const shown = Number(layer ?? Math.max(all.length - 2, 0));
    const label = head === undefined ? `mean of its ${heads} heads` : `head ${head}`;
    const weights = head === undefined ? mean(all[shown]) : all[shown][head];
    again ??= () => enlarge(kind, weights, `${KINDS[kind]}, layer ${shown}, ${label}`);
    again();
  }

  function pick(kind, layer, head, weights, button) {
    press(grid, button);
    options.picked = `${kind}.${layer}.${head}`;
    enlarge(kind, weights, `${KINDS[kind]}, layer ${layer}, head ${head}`);
    if (options.switched) large.prepend(switches(`${kind}.${layer}.${head}`, `${kind}.${layer}`));
  }

  // Buttons that switch a head or its layer off, or on again; what follows is up to who asked for them.
  function switches(...names) {
    const labels = ["this head", "its whole layer"];
    const buttons = names.map((name, i) => {
      const button = make("button", { type: "button" }, `Switch ${labels[i]} ${off.has(name) ? "on" : "off"}`);
      button.addEventListener("click", () => options.switched(name));
      return button;
    });
    return make("div", { class: "tabs" }, ...buttons);
  }

  function enlarge(kind, weights, label) {
    const [rows, columns] = axes(explanation, kind);
    large.replaceChildren(
      make("figcaption", {}, `${label}. Each row adds up to 1; the fuller the colour, the more.`),
      map(weights, rows, columns, label),
      links(weights, rows, columns, label),
    );
  }

  for (const kind of kinds) {
    const button = make("button", { type: "button", "aria-pressed": "false" }, KINDS[kind]);
    button.addEventListener("click", () => {
      press(tabs, button);
      chosen = kind;
      options.kind = kind; // so that the next explanation opens where this one was
      show(kind);
    });
    tabs.append(button);
  }
  (tabs.children[kinds.indexOf(options.kind)] ?? tabs.firstChild).click();
  redraw = () => show(chosen);
  return make("div", {}, tabs, make("div", { class: "attention" }, grid, large));
}

function thumbnail(weights) {
  const canvas = make("canvas", { width: weights[0].length, height: weights.length });
  const context = canvas.getContext("2d");
  const probe = make("i", { class: "accent" });
  document.body.append(probe);
  context.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  weights.forEach((row, y) => {
    row.forEach((weight, x) => {
      context.globalAlpha = weight;
      context.fillRect(x, y, 1, 1);
    });
  });
  return canvas;
}

function map(weights, rows, columns, label) {
  const size = 22;
  const side = 12 + 7 * widest(rows);
  const top = 14 + 6.5 * widest(columns);
  const width = side + columns.length * size + 10;
  const height = top + rows.length * size + 10;
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  columns.forEach((piece, x) => {
    const at = `translate(${side + x * size + size / 2 + 4} ${top - 6}) rotate(-90)`;
    svg.append(draw("text", { transform: at }, piece));
  });
  rows.forEach((piece, y) => {
    const middle = top + y * size + size / 2;
    svg.append(draw("text", { x: side - 6, y: middle + 4, "text-anchor": "end" }, piece));
    columns.forEach((column, x) => {
      const place = { x: side + x * size, y: top + y * size, width: size - 1, height: size - 1 };
      svg.append(draw("rect", { ...place, class: "frame", opacity: 0.5 }));
      const cell = draw("rect", { ...place, class: "cell", "fill-opacity": weights[y][x].toFixed(3) });
      cell.append(draw("title", {}, `${piece} → ${column}: ${weights[y][x].toFixed(3)}`));
      svg.append(cell);
    });
  });
  return svg;
}

function links(weights, rows, columns, label) {
  const step = 24;
  const left = 20 + 8 * widest(columns);
  const right = left + 190;
  const width = right + 20 + 8 * widest(rows);
  const height = Math.max(rows.length, columns.length) * step + 20;
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}, as lines` });
  const y = (i) => 20 + i * step;
  weights.forEach((row, i) => {
    row.forEach((weight, j) => {
      if (weight < 0.08) return;
      const ends = { x1: left, y1: y(j) - 4, x2: right, y2: y(i) - 4 };
      svg.append(draw("line", { ...ends, class: "link", "stroke-opacity": weight.toFixed(3), "stroke-width": 0.5 + 3 * weight }));
    });
  });
  columns.forEach((piece, j) => svg.append(draw("text", { x: left - 6, y: y(j), "text-anchor": "end" }, piece)));
  rows.forEach((piece, i) => svg.append(draw("text", { x: right + 6, y: y(i) }, piece)));
  return svg;
}

// The beam ---------------------------------------------------------------------------------------------------------

// The tree of hypotheses, one column for each token; what was given up is grey.
export function tree(explanation) {
  const branches = explanation.tree;
  const depth = branches.map(() => 0);
  const children = new Map();
  branches.forEach((branch, number) => {
    depth[number] = branch.parent < 0 ? 1 : depth[branch.parent] + 1;
    if (!children.has(branch.parent)) children.set(branch.parent, []);
    children.get(branch.parent).push(number);
  });
  const row = [];
  let next = 0;
  function place(number) {
    const own = [...(children.get(number) ?? [])].sort((a, b) => branches[b].log_probability - branches[a].log_probability);
    own.forEach(place);
    if (number < 0) return;
    row[number] = own.length ? row[own[0]] : next++;
  }
  place(-1);
  const columnWidth = 16 + 7.5 * widest(branches.map((branch) => readable(branch.piece)));
  const width = (Math.max(...depth) + 1) * columnWidth;
  const height = next * 22 + 24;
  const at = (number) => (number < 0 ? [8, 18 + 22 * row[children.get(-1)[0]]] : [depth[number] * columnWidth, 18 + 22 * row[number]]);
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "the beam's tree" });
  branches.forEach((branch, number) => {
    const [x, y] = at(number);
    const [fromX, fromY] = at(branch.parent);
    const start = branch.parent < 0 ? fromX : fromX + 7.5 * widthOf(readable(branches[branch.parent].piece)) + 3;
    const middle = (start + x) / 2;
    const line = `M${start} ${fromY - 4} C${middle} ${fromY - 4} ${middle} ${y - 4} ${x - 3} ${y - 4}`;
    svg.append(draw("path", { d: line, class: branch.best ? "branch best" : "branch" }));
  });
  branches.forEach((branch, number) => {
    const [x, y] = at(number);
    const lost = !branch.ended && !children.has(number);
    const text = draw("text", { x, y, class: lost ? "lost" : "" }, readable(branch.piece));
    if (branch.best) text.setAttribute("font-weight", "600");
    const probability = Math.exp(branch.log_probability);
    text.append(draw("title", {}, `probability so far ${probability.toPrecision(2)}${lost ? ", given up" : ""}`));
    svg.append(text);
  });
  return make("div", { class: "wide" }, svg);
}

// The best outputs of the beam; with `options.choose`, a button each, that is told the output's rank.
export function alternatives(explanation, options = {}) {
  const table = make("table", { class: "outputs" });
  explanation.alternatives.forEach(([text, score], i) => {
    const shown = i + 1 === explanation.rank;
    let what = shown ? make("b", {}, text) : text;
    if (options.choose) {
      what = make("button", { type: "button", "aria-pressed": String(shown) }, text);
      what.addEventListener("click", () => options.choose(i + 1));
    }
    table.append(make("tr", {}, make("td", {}, score.toFixed(2)), make("td", {}, what)));
  });
  return table;
}

// Step by step -----------------------------------------------------------------------------------------------------

const MOST_COLUMNS = 8;

// The worked example of section 3.2, one step at a time: formula, shape and the real numbers of this sentence.
export function steps(explanation, options = {}) {
  const example = explanation.steps;
  if (!example) return make("p", { class: "quiet" }, "The steps are those of a single Transformer; this model is none.");
  const names = Object.keys(example.steps);
  let now = Math.min(options.step ?? 0, names.length - 1);
  const back = make("button", { type: "button" }, "← Back");
  const next = make("button", { type: "button" }, "Next →");
  const place = make("span", { class: "quiet", role: "status" });
  const body = make("div", { class: "wide" });
  function show() {
    const name = names[now];
    const step = example.steps[name];
    options.step = now;
    place.textContent = `step ${now + 1} of ${names.length}`;
    back.disabled = now === 0;
    next.disabled = now === names.length - 1;
    const square = ["scores", "scaled", "weights"].includes(name);
    const columns = square ? example.pieces.map(readable) : step.numbers[0].map((_, i) => String(i));
    const shown = square ? columns.length : Math.min(MOST_COLUMNS, columns.length);
    const most = step.numbers.flat().reduce((most, value) => Math.max(most, Math.abs(value)), 0); // too many for arguments
    const table = make("table", { class: "numbers" });
    table.append(make("tr", {}, make("th"), ...columns.slice(0, shown).map((label) => make("th", { scope: "col" }, label))));
    step.numbers.forEach((row, i) => {
      const cells = row.slice(0, shown).map((value) => {
        const cell = make("td", {}, value.toFixed(2));
        cell.style.setProperty("--share", Math.abs(value) / most);
        cell.className = value < 0 ? "below" : "above";
        return cell;
      });
      table.append(make("tr", {}, make("th", { scope: "row" }, readable(example.pieces[i])), ...cells));
    });
    const rest = columns.length - shown;
    body.replaceChildren(
      make("h3", {}, name),
      make("p", { class: "formula" }, step.is),
      make("p", { class: "quiet" }, `Shape ${step.shape.join(" × ")}${rest ? `; ${rest} more columns not shown` : ""}.`),
      table,
    );
  }
  back.addEventListener("click", () => { now -= 1; show(); });
  next.addEventListener("click", () => { now += 1; show(); });
  show();
  const where = `Encoder layer ${example.layer}, head ${example.number}, d_k = ${example.d_k}. Every number is recomputed from the weights.`;
  return make("div", {}, make("p", { class: "quiet" }, where), make("div", { class: "tabs" }, back, next, place), body);
}

// Positions --------------------------------------------------------------------------------------------------------

// The position vectors of this sentence as a picture: one row a piece, one column a dimension; and some as curves.
export function positions(explanation) {
  const rows = explanation.positions;
  if (!rows) return make("p", { class: "quiet" }, "This model has no position vectors to show.");
  const pieces = explanation.source_pieces.map(readable);
  const width = rows[0].length;
  const side = 12 + 7 * widest(pieces);
  const cell = Math.max(3, Math.floor(640 / width));
  const total = { width: side + width * cell, height: rows.length * 20 + 22 };
  const svg = draw("svg", { ...total, viewBox: `0 0 ${total.width} ${total.height}`, role: "img", "aria-label": "position vectors" });
  rows.forEach((row, y) => {
    svg.append(draw("text", { x: side - 6, y: y * 20 + 15, "text-anchor": "end" }, pieces[y]));
    row.forEach((value, x) => {
      const box = { x: side + x * cell, y: y * 20, width: cell, height: 19 };
      svg.append(draw("rect", { ...box, class: value < 0 ? "negative" : "cell", "fill-opacity": Math.min(1, Math.abs(value)).toFixed(3) }));
    });
  });
  svg.append(draw("text", { x: side, y: total.height - 5 }, "dimension 0"));
  svg.append(draw("text", { x: total.width - 4, y: total.height - 5, "text-anchor": "end" }, String(width - 1)));
  return make("div", { class: "wide" }, svg);
}

// The whole explanation into an element.
export function show(element, explanation, options = {}) {
  element.replaceChildren(
    ...sentences(explanation),
    ...(explanation.without?.length ? [make("p", {}, `Switched off: ${explanation.without.join(", ")}`)] : []),
    make("p", { class: "quiet" }, "Point at a word to see what it is aligned with. Dotted: the model was in doubt."),
    make("h2", {}, "Attention"),
    attention(explanation, options),
    make("h2", {}, "The beam"),
    make("p", { class: "quiet" }, BEAM),
    tree(explanation),
    make("h2", {}, "Outputs with their scores"),
    alternatives(explanation),
  );
}
