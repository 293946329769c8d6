"use strict";
// The browser of example sequences. Corpus text is hostile: it only ever reaches the page through textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const cards = document.getElementById("cards");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  const PAGE = 12;
  const MAIN_FACTORS = 6;
  const label = (name) => name.replaceAll("_", " ").replace(/(\d) (?=\d)/g, "$1.");

  // Controls, invisible marks and marks that turn the direction of what follows are shown by their code.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  const code = (mark) => "<U+" + mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + ">";
  const visible = (text) => text.replace(HIDDEN, code);

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function format(value) {
    if (value === null || value === undefined) return "missing";
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return Number(value.toPrecision(3)).toString();
  }

  function describe(example, index) {
    const parts = [`token ${index + 1} of ${example.tokens.length}`, JSON.stringify(visible(example.pieces[index]))];
    parts.push(example.tokens[index] === null ? "masked: personal data" : `id ${example.tokens[index]}`);
    if (example.probabilities) {
      const probability = example.probabilities[index];
      parts.push(probability === null ? "no probability: nothing stands before it" : `probability ${format(probability)}`);
    }
    const frequency = data.frequencies[example.tokens[index]];
    if (frequency !== undefined) parts.push(`${format(frequency)} times in the corpus`);
    return parts.join(" · ");
  }

  function tokenSpan(example, index, matched) {
    const span = element("span", "token", visible(example.pieces[index]));
    span.dataset.index = index;
    const probability = example.probabilities ? example.probabilities[index] : null;
    if (probability === null) span.classList.add("unscored");
    else span.style.setProperty("--p", probability);
    if (matched) span.classList.add("matched");
    return span;
  }

  // One part of the sequence. Its tokens are reached by the arrow keys; what they say goes to the card's read-out.
  function tokensPart(example, start, stop, matched, name, readout) {
    const box = element("div", "tokens");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${name}; arrow keys step through its tokens`);
    for (let index = start; index < stop; index++) box.append(tokenSpan(example, index, index - start < matched));
    let current = null;
    const select = (span) => {
      if (current) current.classList.remove("current");
      current = span;
      if (span) {
        span.classList.add("current");
        readout.textContent = describe(example, Number(span.dataset.index));
      }
    };
    box.addEventListener("pointerover", (event) => event.target.closest(".token") && select(event.target.closest(".token")));
    box.addEventListener("pointerleave", () => select(null));
    box.addEventListener("focus", () => select(current || box.firstElementChild));
    box.addEventListener("blur", () => select(null));
    box.addEventListener("keydown", (event) => {
      const move = {
        ArrowRight: () => current && current.nextElementSibling, ArrowLeft: () => current && current.previousElementSibling,
        Home: () => box.firstElementChild, End: () => box.lastElementChild,
      }[event.key];
      if (!move) return;
      event.preventDefault();
      const target = move();
      if (target) { select(target); target.scrollIntoView({ block: "nearest" }); }
    });
    return box;
  }

  function plainPart(name, text, className) {
    return [element("span", `part-name ${className}`, name), element("div", `tokens ${className}`, visible(text))];
  }

  // Without its tokens a sequence is a text, cut where its continuation begins if that is known.
  function plainText(example, box) {
    if (example.text === null) box.append(...plainPart("text", "(text not known)", ""));
    else if (example.cut === null) box.append(...plainPart("text", example.text + example.shortened, ""));
    else {
      const characters = [...example.text];
      box.append(...plainPart("prompt", characters.slice(0, example.cut).join(""), ""));
      box.append(...plainPart("continuation", characters.slice(example.cut).join("") + example.shortened, "after"));
    }
    return box;
  }

  function textOf(example, readout) {
    const box = element("div", "text");
    if (!example.pieces) return plainText(example, box);
    const cut = data.prompt === null ? example.pieces.length : Math.min(data.prompt, example.pieces.length);
    const name = data.prompt === null ? "sequence" : "prompt";
    box.append(element("span", "part-name", name), tokensPart(example, 0, cut, 0, name, readout));
    if (cut < example.pieces.length) {
      const matched = example.factors.match_length || 0;
      const part = tokensPart(example, cut, example.pieces.length, matched, "continuation", readout);
      part.classList.add("after");
      box.append(element("span", "part-name after", "continuation"), part);
    }
    return box;
  }

  function factorList(example, factors) {
    const list = element("dl", "factors");
    for (const factor of factors) {
      if (!(factor.name in example.factors)) continue;
      const pair = element("div");
      pair.title = `${factor.meaning} (${factor.unit})`;
      const value = example.factors[factor.name];
      const bare = value === null || factor.type === "bool" || ["perplexity", "share", "probability", "id"].includes(factor.unit);
      const unit = bare ? "" : ` ${value === 1 ? factor.unit.replace(/s$/, "") : factor.unit}`;
      pair.append(element("dt", "", label(factor.name)), element("dd", "", format(value) + unit));
      list.append(pair);
    }
    return list;
  }

  function card(example) {
    const known = ["recitation", "reconstruction", "recollection"].includes(example.category);
    const box = element("article", `card group-${known ? example.category : "none"}`);
    const heading = element("h3");
    heading.append(
      element("span", "", example.category), element("span", "", example.memorized ? "memorized" : "not memorized"),
      element("span", "document", `sequence ${example.id}`),
    );
    if (example.document !== null) heading.append(element("span", "document", visible(example.document)));
    const readout = element("p", "readout");
    readout.setAttribute("aria-live", "polite");
    box.append(heading, textOf(example, readout), readout, factorList(example, data.factors.slice(0, MAIN_FACTORS)));
    if (data.factors.length > MAIN_FACTORS) {
      const details = element("details");
      details.append(element("summary", "", "All factors"), factorList(example, data.factors.slice(MAIN_FACTORS)));
      box.append(details);
    }
    if (example.places) box.append(placeList(example.places, example.factors.sequence_duplicates));
    if (example.neighbours) box.append(neighbourList(example.neighbours));
    return box;
  }

  // Where the continuation stands in the corpus, the first places only.
  function placeList(places, occurrences) {
    if (!places.length) return element("p", "shown", "The continuation occurs nowhere in the corpus.");
    const details = element("details");
    const all = occurrences > places.length ? ` of ${format(occurrences)}` : "";
    details.append(element("summary", "", `Places in the corpus: ${places.length}${all}`));
    for (const place of places) {
      const sequence = place.sequence === null ? "" : ` · sequence ${place.sequence}`;
      const name = place.document === null ? "" : ` · ${visible(place.document)}`;
      details.append(element("p", "", `${visible(place.source)}${sequence}, token ${place.offset}${name}`));
    }
    return details;
  }

  // The sequences of the corpus that say nearly the same.
  function neighbourList(neighbours) {
    if (!neighbours.length) return element("p", "shown", "No other sequence is near it in meaning (cosine at least 0.8).");
    const details = element("details");
    details.append(element("summary", "", `Nearest in meaning: ${neighbours.length}`));
    for (const neighbour of neighbours) {
      const place = neighbour.document === null ? "" : ` · ${visible(neighbour.document)}`;
      const text = neighbour.text === null ? "(text not known)" : visible(neighbour.text);
      details.append(element("p", "", `cosine ${format(neighbour.cosine)} · sequence ${neighbour.id}${place}`), element("div", "tokens", text));
    }
    return details;
  }

  // The sequences as columns of equal length: at first the examples, then all of them.
  const details = new Map(data.examples.map((example) => [example.id, example]));
  let rows = {
    categories: data.categories, documents: data.examples.map((example) => example.document),
    id: data.examples.map((example) => example.id), category: data.examples.map((example) => data.categories.indexOf(example.category)),
    memorized: data.examples.map((example) => example.memorized), document: data.examples.map((_, index) => index),
    text: data.examples.map((example) => example.text), cut: data.examples.map(() => null), shortened: null,
    factors: Object.fromEntries(data.factors.map(({ name }) => [name, data.examples.map((example) => example.factors[name] ?? null)])),
  };
  let order = [];
  let lower = null;

  // Unsorted, the examples stand first: the categories take turns, the most probable memorized and the least probable others first.
  function ordered() {
    const places = new Map(rows.id.map((id, row) => [id, row]));
    const groups = new Map();
    for (const example of data.examples) {
      const key = `${example.category} ${example.memorized}`;
      if (!groups.has(key)) groups.set(key, []);
      if (example.memorized) groups.get(key).unshift(example); else groups.get(key).push(example);
    }
    const longest = Math.max(0, ...[...groups.values()].map((group) => group.length));
    const result = [];
    for (let turn = 0; turn < longest; turn++) {
      for (const group of groups.values()) if (turn < group.length && places.has(group[turn].id)) result.push(places.get(group[turn].id));
    }
    for (let row = 0; row < rows.id.length; row++) if (!details.has(rows.id[row])) result.push(row);
    return result;
  }

  function exampleOf(row) {
    const known = details.get(rows.id[row]);
    if (known) return { cut: null, shortened: "", ...known };
    const text = rows.text[row];
    return {
      id: rows.id[row], category: rows.categories[rows.category[row]], memorized: rows.memorized[row], text, cut: rows.cut[row],
      document: rows.document[row] === null ? null : rows.documents[rows.document[row]],
      factors: Object.fromEntries(Object.entries(rows.factors).map(([name, values]) => [name, values[row]])),
      shortened: rows.shortened !== null && text !== null && text.length >= rows.shortened ? " \u2026" : "",
    };
  }

  function selected() {
    const category = rows.categories.indexOf(form.elements.category.value);
    const memorized = form.elements.memorized.value;
    const wanted = form.elements.search.value.toLowerCase();
    if (wanted && !lower) lower = rows.text.map((text) => (text === null ? "" : text.toLowerCase()));
    const inDocument = rows.documents.map((name) => name !== null && name.toLowerCase().includes(wanted));
    const found = order.filter((row) =>
      (category < 0 || rows.category[row] === category) &&
      (!memorized || rows.memorized[row] === (memorized === "yes")) &&
      (!wanted || lower[row].includes(wanted) || (rows.document[row] !== null && inDocument[rows.document[row]])));
    const key = form.elements.sort.value;
    if (!key) return found;
    const values = key === "id" ? rows.id : rows.factors[key];
    const sign = form.elements.order.value === "up" ? 1 : -1;
    // Missing values stand last whatever the order; equal ones keep the order of the page.
    return found.sort((a, b) => {
      const [left, right] = [values[a], values[b]];
      if (left === null || right === null) return (left === null) - (right === null);
      return sign * (Number(left) - Number(right));
    });
  }

  let matching = [];
  let visibleCount = 0;
  let note = "";
  function tell() {
    shown.textContent = `${format(matching.length)} of ${format(rows.id.length)} sequences match; ${format(visibleCount)} shown.${note}`;
    more.hidden = visibleCount >= matching.length;
  }
  function showMore(focus) {
    const next = matching.slice(visibleCount, visibleCount + PAGE).map((row) => card(exampleOf(row)));
    cards.append(...next);
    visibleCount += next.length;
    tell();
    if (focus && next.length) { next[0].tabIndex = -1; next[0].focus({ preventScroll: true }); }
  }
  function update() {
    matching = selected();
    visibleCount = 0;
    cards.replaceChildren();
    form.elements.order.disabled = !form.elements.sort.value;
    showMore(false);
  }

  // All sequences stand in the page compressed; they are unpacked when the page is shown and the browser has time.
  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
    packed.remove();
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    rows = JSON.parse(await new Response(stream).text());
    [order, lower, note] = [ordered(), null, ""];
    // What is on the screen stays: only a search or filter that is set already looks through all of them now.
    const untouched = !form.elements.sort.value && !form.elements.search.value;
    if (untouched && !form.elements.category.value && !form.elements.memorized.value) {
      matching = order;
      tell();
    } else update();
  }

  for (const category of data.categories) form.elements.category.append(new Option(category, category));
  for (const factor of data.factors) form.elements.sort.append(new Option(label(factor.name), factor.name));
  let waiting = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
  more.addEventListener("click", () => showMore(true));
  form.hidden = false;
  order = ordered();
  const packed = document.getElementById("all");
  if (packed) {
    note = " Reading the others \u2026";
    const failed = () => { note = " This browser cannot unpack the others: only the examples are listed."; update(); };
    (window.requestIdleCallback || setTimeout)(() => unpack(packed).catch(failed));
  }
  update();
})();
