// Filters of the lists of services and of changes; what is chosen stands in the address.
const { key, hasWords, wordsOf, services } = await import(document.querySelector('script[src*="/assets/search."]').src);
const SHOWN = 100;

// Show the form, and let it, the address and what is shown agree.
function follow(form, apply) {
  const fields = [...form.elements].filter((element) => element.name);
  const read = () => {
    const asked = new URLSearchParams(location.search);
    for (const field of fields) {
      field.value = asked.get(field.name) ?? "";
      if (field.value !== (asked.get(field.name) ?? "")) field.value = "";
    }
    apply(Object.fromEntries(fields.map((field) => [field.name, field.value])));
  };
  const write = (event) => {
    const asked = new URLSearchParams(fields.filter((field) => field.value).map((field) => [field.name, field.value]));
    const address = asked.size ? `?${asked}` : location.pathname;
    // Each choice is a step of its own for the back button, each letter is not.
    history[event.target.tagName === "SELECT" ? "pushState" : "replaceState"](null, "", address);
    apply(Object.fromEntries(fields.map((field) => [field.name, field.value])));
  };
  form.hidden = false;
  form.addEventListener("input", write);
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("popstate", read);
  read();
}

const say = (form, count) => {
  const status = form.querySelector("[role=status]");
  status.textContent = count === null ? "" : status.dataset.words.replace("{count}", count.toLocaleString(document.documentElement.lang));
};

const serviceForm = document.querySelector("#filter-services");
if (serviceForm) {
  const table = document.querySelector("#results");
  const more = document.querySelector("#more");
  const words = (name) => Object.fromEntries([...serviceForm.elements[name].options].map((option) => [option.value, option.text]));
  const [kinds, ownerships] = [words("kind"), words("ownership")];
  const noData = serviceForm.querySelector("[role=status]").dataset.noData;
  let latest = 0;

  const cell = (kind, text, small, address) => {
    const made = document.createElement(kind);
    const first = document.createElement(address ? "a" : "span");
    first.textContent = text;
    if (address) { first.href = address; made.scope = "row"; }
    made.append(first);
    if (small !== undefined) {
      const below = document.createElement("small");
      below.textContent = small;
      made.append(document.createElement("br"), below);
    }
    return made;
  };
  const row = (service) => {
    const made = document.createElement("tr");
    const places = cell("td", service.count === null ? noData : service.count.toLocaleString(document.documentElement.lang));
    places.className = "number";
    made.append(
      cell("th", service.name, service.where, service.address),
      cell("td", kinds[service.group], ownerships[service.ownership]), places);
    return made;
  };

  follow(serviceForm, async ({ q, kind, ownership, comarca }) => {
    const turn = (latest += 1);
    const words = wordsOf(key(q));
    const asked = Boolean(words || kind || ownership || comarca);
    const all = asked ? await services() : [];
    if (turn !== latest) return;
    const found = all.filter((service) =>
      (!kind || service.group === kind) && (!ownership || service.ownership === ownership) &&
      (!comarca || service.comarca === comarca) && hasWords(service.words, words));
    const draw = (count) => {
      table.tBodies[0].replaceChildren(...found.slice(0, count).map(row));
      more.hidden = found.length <= count;
    };
    more.onclick = () => draw(found.length);
    draw(SHOWN);
    table.hidden = !found.length;
    document.querySelector("#by-comarca").hidden = asked;
    say(serviceForm, asked ? found.length : null);
  });
}

const changeForm = document.querySelector("#filter-changes");
if (changeForm) {
  const days = [...document.querySelectorAll(".day")];
  follow(changeForm, ({ change, comarca }) => {
    let shown = 0;
    for (const day of days) {
      const items = [...day.querySelectorAll("li")];
      for (const item of items) {
        item.hidden = Boolean((change && item.dataset.change !== change) || (comarca && item.dataset.comarca !== comarca));
        shown += item.hidden ? 0 : 1;
      }
      day.hidden = items.every((item) => item.hidden);
    }
    say(changeForm, change || comarca ? shown : null);
  });
}
