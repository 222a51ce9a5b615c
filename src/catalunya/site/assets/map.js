// The switches of the map: what a reader chooses is in the address, and the figures are fetched when they are asked for.
const form = document.querySelector("#switches");
const svg = document.querySelector(".map svg");
const group = svg.querySelector(".areas");
const words = JSON.parse(form.dataset.words);
const language = document.documentElement.lang;
const ACCESS = ["nearest_km", "accessibility"];
const COVERAGE = ["rate", "places", "services"];
const DIGITS = { rate: 1, nearest_km: 1, accessibility: 1 };
const CLASSES = 5;
const FIRST_ROWS = 100;
const owners = [...form.elements.ownership.options].map((option) => option.value);
const defaults = Object.fromEntries([...form.elements].map((field) => [field.name, field.value]));
defaults.year = form.dataset.year;
const comarques = [...group.children];
const fetched = new Map();
let shown = "";
let asked = 0;

const isAccess = (state) => ACCESS.includes(state.indicator);
const written = (value, digits, locale, useGrouping) => new Intl.NumberFormat(locale, {
  minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping, roundingMode: "halfEven",
}).format(value);
const number = (value, digits = 0) => value === null ? words.none : written(value, digits, language, "always");
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

// The state of an address; what no switch offers counts as not said.
function stateOf(search) {
  const wanted = new URLSearchParams(search);
  const state = { ...defaults };
  for (const field of form.elements) {
    const value = wanted.get(field.name);
    if ([...field.options].some((option) => option.value === value)) state[field.name] = value;
  }
  return narrowed(state);
}

// Access is known by municipality and of the newest register alone.
function narrowed(state) {
  return isAccess(state) ? { ...state, level: "municipality", ownership: "all", year: defaults.year } : state;
}

function searchOf(state) {
  const own = Object.entries(state).filter(([name, value]) => value !== defaults[name])
    .filter(([name]) => !(isAccess(state) && name === "level"));
  return own.length ? `?${new URLSearchParams(own)}` : "";
}

function load(address) {
  if (!fetched.has(address)) {
    fetched.set(address, fetch(address).then((answer) => {
      if (!answer.ok) throw new Error(`${answer.status} ${address}`);
      return answer.json();
    }).catch((error) => {
      fetched.delete(address);
      throw error;
    }));
  }
  return fetched.get(address);
}

function area([code, name, slug, path]) {
  const svgElement = (kind) => document.createElementNS("http://www.w3.org/2000/svg", kind);
  const link = svgElement("a");
  link.setAttribute("href", `${form.dataset.municipalities}${code}-${slug}/`);
  link.setAttribute("tabindex", "-1");
  Object.assign(link.dataset, { code, name });
  const drawn = svgElement("path");
  drawn.setAttribute("d", path);
  drawn.append(svgElement("title"));
  link.append(drawn);
  return link;
}

async function areasOf(level) {
  if (level === "comarca") return comarques;
  const found = await load("/map/municipality.json");
  found.areas.drawn ??= found.areas.map(area);
  return found.areas.drawn;
}

function figuresOf(entry, state) {
  if (isAccess(state)) return { nearest_km: entry[0], accessibility: entry[1] };
  const at = 2 + 3 * owners.indexOf(state.ownership);
  return { services: entry[at], places: entry[at + 1], rate: entry[at + 2], people: entry[0], year: entry[1] };
}

function shade(value, breaks, digits) {
  if (value === null) return "none";
  if (!value) return "zero";
  const rounded = Number(written(value, digits, "en", false));
  const position = Math.max(0, breaks.slice(0, -1).filter((low) => rounded >= low).length - 1);
  return `c${Math.floor(position * (CLASSES - 1) / Math.max(1, breaks.length - 2))}`;
}

function drawMap(areas, figures, state, breaks) {
  const digits = DIGITS[state.indicator] ?? 0;
  for (const link of areas) {
    const value = figures.get(link.dataset.code)?.[state.indicator] ?? null;
    const path = link.firstElementChild;
    const found = shade(value, breaks, digits);
    path.setAttribute("class", found);
    if (found === "none") path.setAttribute("fill", "url(#hatch)");
    path.firstElementChild.textContent = `${link.dataset.name}: ${number(value, digits)}`;
  }
  if (group.firstElementChild !== areas[0]) group.replaceChildren(...areas);
  svg.classList.toggle("fine", state.level === "municipality");
}

function drawLegend(state, breaks, title) {
  const digits = DIGITS[state.indicator] ?? 0;
  const bounds = breaks.slice(0, -1).map((low, place) => [
    low ? shade(low, breaks, digits) : "c0",
    fill(words.to, { low: number(low, digits), high: number(breaks[place + 1], digits) }),
  ]);
  const entries = [...bounds, ["zero", words.zero[state.indicator]], ["none", words.none]];
  document.querySelector(".legend").replaceChildren(...entries.map(([name, text]) =>
    element("li", [element("span", "", { class: `swatch ${name}` }), text])));
  document.querySelector(".legend-title").textContent = title;
  document.querySelector("#caption").textContent = title;
  svg.setAttribute("aria-label", title);
}

function drawRanking(areas, figures, state, all = false) {
  const columns = isAccess(state) ? ACCESS : [...COVERAGE, "people"];
  const head = columns.map((name) => element("th", words.columns[name], {
    scope: "col", class: "number", ...(name === state.indicator ? { "aria-sort": "descending" } : {}),
  }));
  const rows = areas.map((link) => [link, figures.get(link.dataset.code)]).filter(([, found]) => found);
  const rank = (value) => value ?? -Infinity;
  rows.sort(([one, a], [other, b]) => rank(b[state.indicator]) - rank(a[state.indicator]) || one.dataset.name.localeCompare(other.dataset.name, language));
  const line = ([link, found]) => element("tr", [
    element("th", element("a", link.dataset.name, { href: link.getAttribute("href") }), { scope: "row" }),
    ...columns.map((name) => {
      const cell = element("td", number(found[name], DIGITS[name] ?? 0), { class: "number" });
      const isOlder = name === "people" && found.people !== null && String(found.year) !== state.year;
      if (isOlder) cell.append(" ", element("small", `(${fill(words.population, { year: found.year })})`));
      return cell;
    }),
  ]);
  const table = document.querySelector("#ranking");
  table.tHead.rows[0].replaceChildren(element("th", words.columns[state.level], { scope: "col" }), ...head);
  table.tBodies[0].replaceChildren(...rows.slice(0, all ? rows.length : FIRST_ROWS).map(line));
  const more = document.querySelector("#more");
  more.hidden = all || rows.length <= FIRST_ROWS;
  more.onclick = () => drawRanking(areas, figures, state, true);
}

function setSwitches(state) {
  for (const field of form.elements) field.value = state[field.name];
  for (const name of ["level", "ownership", "year"]) form.elements[name].disabled = isAccess(state);
  for (const link of document.querySelectorAll(".languages a")) link.search = searchOf(state);
}

async function show(state) {
  setSwitches(state);
  const key = JSON.stringify(state);
  if (key === shown) return;
  const turn = ++asked;
  const failed = document.querySelector("#failed");
  try {
    const file = isAccess(state) ? "access" : state.year;
    const [areas, data] = await Promise.all([
      areasOf(state.level), load(`/map/${state.level}/${state.group}/${file}.json`),
    ]);
    if (turn !== asked) return;
    const figures = new Map(Object.entries(data.values).map(([code, entry]) => [code, figuresOf(entry, state)]));
    const breaks = data.breaks[state.indicator][state.ownership];
    const chosen = (name) => form.elements[name].selectedOptions[0].text;
    const owner = isAccess(state) ? [] : [`${form.dataset.owner}: ${chosen("ownership")}`, chosen("year")];
    const title = [chosen("indicator"), chosen("group"), ...owner, chosen("level")].join(" · ");
    drawMap(areas, figures, state, breaks);
    drawLegend(state, breaks, title);
    drawRanking(areas, figures, state);
    document.querySelector("#basis").textContent = isAccess(state) ? "" : words.basis[data.basis];
    failed.hidden = true;
    shown = key;
  } catch {
    // The old figures stay, and the reader is told.
    if (turn === asked) failed.hidden = false;
  }
}

form.addEventListener("change", () => {
  const state = narrowed({ ...stateOf(location.search), ...Object.fromEntries(new FormData(form)) });
  history.pushState(null, "", `${location.pathname}${searchOf(state)}`);
  show(state);
});
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("popstate", () => show(stateOf(location.search)));
svg.addEventListener("pointerover", (event) => {
  const title = event.target.closest("path")?.querySelector("title");
  if (title) document.querySelector("#hovered").textContent = title.textContent;
});

shown = JSON.stringify(defaults);
show(stateOf(location.search));
