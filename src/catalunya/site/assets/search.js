// The search for a place or a service. Its index is fetched when the field is used for the first time.
const field = document.querySelector("#search");
const list = document.querySelector("#found");
const notFound = document.querySelector("#not-found");
const { dataset } = field.form;
const SHOWN = 8;
const FORMAT = new RegExp(
  "[\\u00ad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890-\\u0891\\u08e2\\u115f-\\u1160\\u17b4-\\u17b5\\u180b-\\u180f" +
  "\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\u{110bd}\\u{110cd}" +
  "\\u{13430}-\\u{1343f}\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e0fff}]+", "gu");

// A name as the pipeline compares it: the macros place_key and without_article (docs/method.md).
export function key(name) {
  return name.replace(FORMAT, "").replace(/[\s\p{Z}\p{Cc}\u2800]+/gu, " ").trim()
    .replace(/[’‘´`ʼ′]/g, "'").toLowerCase()
    .replace(/^(.*?)(?:\s*,\s*|\s*\()(els?|les|la|los?|es|ses|sa|l'|s')\s*\)?$/, "$2 $1").replace(/^([ls]') /, "$1")
    .replaceAll(",", " ").replace(/ŀ/g, "l").replace(/[–—‐‑-]/g, " ")
    .normalize("NFD").replace(/\p{Mn}/gu, "")
    .replace(/l ?[·.•‧∙] ?l/g, "ll").replace(/\s*'\s*/g, "'").replace(/\s+/g, " ").trim();
}

const bare = (name) => name.replace(/^(?:(?:els?|les|la|los?|es|ses|sa) |[ls]')/, "");

// The words of a key, without marks between them.
export const wordsOf = (text) => text.replace(/[^\p{L}\p{N}]+/gu, " ").trim();

const once = (work) => { let kept; return () => (kept ??= work()); };
const fetched = (address) => fetch(address).then((answer) => answer.json());

// Every place: its address and names, and the keys that it is found by.
export const places = once(async () => {
  const found = await fetched(dataset.places);
  const names = new Map(found.map(([path, name]) => [path.split("-")[0], name]));
  return found.map(([path, name, comarca, ...others]) => {
    const keys = [name, ...others].map(key).flatMap((one) => (one === bare(one) ? [one] : [one, bare(one)]));
    return {
      code: path.split("-")[0], name, comarca, keys, words: wordsOf(keys.join(" ")),
      where: comarca ? names.get(comarca) : dataset.comarca,
      address: `${comarca ? dataset.municipalities : dataset.comarques}${path}/`,
    };
  });
});

// Every service of the register of now, with its municipality.
export const services = once(async () => {
  const [known, found] = await Promise.all([places(), fetched(dataset.services)]);
  const municipalities = new Map(known.map((place) => [place.code, place]));
  return found.services.map(([path, name, municipality, group, ownership, count]) => {
    const place = municipalities.get(municipality);
    return {
      name, where: place?.name ?? "", kind: dataset.kinds.split("|")[group], comarca: place?.comarca ?? "", count, isService: true,
      group: found.groups[group], ownership: found.ownerships[ownership],
      address: `${field.form.getAttribute("action")}${path}/`,
      keys: [key(name)], words: wordsOf(`${key(name)} ${place?.words ?? ""} ${path.split("-")[0].toLowerCase()}`),
    };
  });
});

// Whether every word that was typed begins one of the words.
export const hasWords = (words, typed) => typed.split(" ").every((word) => ` ${words}`.includes(` ${word}`));

// How near an entry is to what was typed: smaller is nearer, 9 is not at all.
function distance({ keys, words, isService }, wanted, typed) {
  const near = (one) =>
    one === wanted ? 0 : one.startsWith(`${wanted} `) ? 1 : one.startsWith(wanted) ? 2 : ` ${one}`.includes(` ${wanted}`) ? 3 : 9;
  return Math.min(...keys.map(near), hasWords(words, typed) ? 4 : 9) + (isService ? 0.5 : 0);
}

// The entries that fit what was typed, the nearest first.
export function find(typed, entries) {
  const wanted = key(typed);
  const words = wordsOf(wanted);
  const short = bare(wanted) || wanted;
  if (!words) return [];
  const ranked = entries.map((entry) => [Math.min(distance(entry, wanted, words), distance(entry, short, words) + 0.25), entry]);
  return ranked.filter(([far]) => far < 9).sort((a, b) => a[0] - b[0] || a[1].name.length - b[1].name.length)
    .map(([, entry]) => entry);
}

let known = [];
let chosen = -1;

function show() {
  const found = find(field.value, known).slice(0, SHOWN);
  chosen = -1;
  field.removeAttribute("aria-activedescendant");
  list.replaceChildren(...found.map(({ name, where, kind, address }, position) => {
    const item = document.createElement("li");
    const place = document.createElement("small");
    item.id = `found-${position}`;
    item.role = "option";
    item.setAttribute("aria-selected", "false");
    item.dataset.address = address;
    place.textContent = [where, kind].filter(Boolean).join(", ");
    item.append(name, " ", place);
    return item;
  }));
  list.hidden = !found.length;
  notFound.textContent = known.length && wordsOf(key(field.value)) && !found.length ? dataset.none : "";
  field.setAttribute("aria-expanded", String(Boolean(found.length)));
}

function hide() {
  list.hidden = true;
  notFound.textContent = "";
  field.setAttribute("aria-expanded", "false");
}

function choose(step) {
  const options = [...list.children];
  if (!options.length) return;
  list.hidden = false;
  chosen = chosen < 0 && step < 0 ? options.length - 1 : (chosen + step + options.length) % options.length;
  options.forEach((option, position) => option.setAttribute("aria-selected", String(position === chosen)));
  options[chosen].scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", options[chosen].id);
}

const load = once(async () => {
  known = await places();
  show();
  known = [...known, ...(await services())];
  // The list does not change while an entry of it is chosen.
  if (chosen < 0) show();
});

field.addEventListener("input", () => { show(); load(); });
field.addEventListener("focusout", hide);
field.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    choose(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Escape" && !list.hidden) {
    // The field empties itself at the next one.
    event.preventDefault();
    hide();
  } else if (event.key === "Enter" && !list.hidden && list.children.length && chosen >= 0) {
    event.preventDefault();
    location.href = list.children[chosen].dataset.address;
  }
});
// The field keeps the focus while an entry is clicked.
list.addEventListener("mousedown", (event) => event.preventDefault());
list.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) location.href = item.dataset.address;
});
field.form.addEventListener("submit", async (event) => {
  // What was typed in full leads to its page; anything else to the list of services with these words.
  const [first] = find(field.value, known);
  if (first && !first.isService) {
    event.preventDefault();
    location.href = first.address;
  }
});
