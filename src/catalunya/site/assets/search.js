// The search of a municipality or comarca: its index is fetched when the field is used for the first time.
const field = document.querySelector("#search");
const list = document.querySelector("#found");
const form = field.form;
let entries;
let chosen = -1;

const folded = (text) =>
  text.toLowerCase().replaceAll("·", "").normalize("NFKD").replace(/[\u0300-\u036f]/g, "")
    .replace(/^(l'|el |la |els |les |es |sa |ses |lo )/, "").replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");

async function load() {
  entries ??= fetch(form.dataset.index).then((answer) => answer.json());
  return entries;
}

function rank(entry, wanted) {
  const [own] = entry[1].split(" ");
  if (own === wanted) return 0;
  if (own.startsWith(wanted)) return 1;
  return entry[1].includes(`-${wanted}`) ? 2 : entry[1].includes(wanted) ? 3 : -1;
}

async function show() {
  const wanted = folded(field.value);
  const known = await load();
  const found = wanted
    ? known.map((entry) => [rank(entry, wanted), entry]).filter(([place]) => place >= 0)
        .sort((a, b) => a[0] - b[0] || a[1][0].length - b[1][0].length).slice(0, 8).map(([, entry]) => entry)
    : [];
  chosen = -1;
  list.replaceChildren(...found.map(([name, , address], position) => {
    const item = document.createElement("li");
    item.id = `found-${position}`;
    item.role = "option";
    item.textContent = name;
    item.dataset.address = address;
    item.addEventListener("pointerdown", () => { location.href = address; });
    return item;
  }));
  if (wanted && !found.length) {
    const item = document.createElement("li");
    item.textContent = field.dataset.none;
    list.replaceChildren(item);
  }
  list.hidden = !wanted;
  field.setAttribute("aria-expanded", String(Boolean(wanted)));
}

function choose(step) {
  const options = [...list.querySelectorAll("[role=option]")];
  if (!options.length) return;
  chosen = (chosen + step + options.length) % options.length;
  options.forEach((option, position) => option.setAttribute("aria-selected", String(position === chosen)));
  field.setAttribute("aria-activedescendant", options[chosen].id);
}

field.addEventListener("input", show);
field.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    choose(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Escape") {
    list.hidden = true;
  }
});
form.addEventListener("submit", (event) => {
  const options = list.querySelectorAll("[role=option]");
  if (options.length) {
    event.preventDefault();
    location.href = options[Math.max(chosen, 0)].dataset.address;
  }
});
