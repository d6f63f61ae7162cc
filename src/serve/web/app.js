// The page of `lesion-gpu serve`: it asks the server it came from, and nobody else. Pictures and answers are kept in memory until
// the page is closed.
"use strict";

const by = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

// An element with attributes and children; text is never read as HTML.
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const state = { model: null, token: null, visits: [], shown: null, busy: 0 };

// What a reader of this page can do; the server speaks to programs.
const HELP = {
  "media-type": "choose a JPEG, PNG, BMP, TIFF or WebP picture",
  image: "choose an intact picture: JPEG, PNG, BMP, TIFF or WebP",
  "too-large": "choose a smaller picture, or fewer",
  busy: "try again in a moment",
  late: "try again in a moment",
  "too-many": "wait for the answers that are under way",
  slow: "try again over a faster connection",
  token: "enter the token that the server printed",
};

// What is said to the user.
function say(text) { by("status").textContent = text; }

function complain(error) {
  const box = by("error");
  box.replaceChildren(error.message, ...(error.next ? [make("br"), `What to do: ${error.next}.`] : []));
  box.hidden = false;
  box.scrollIntoView({ block: "center" });
  say("");
}

class Refused extends Error {
  constructor(kind, message, next) {
    super(message);
    this.kind = kind;
    this.next = next;
  }
}

// Asks the server; throws a Refused with its words.
async function ask(path, body) {
  const headers = { Accept: "application/json" };
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body, cache: "no-store" });
  } catch {
    throw new Refused("offline", "The server does not answer.", "see whether lesion-gpu serve still runs, then try again");
  }
  let answer = null;
  try { answer = await response.json(); } catch { /* told below */ }
  if (response.ok && answer) return answer;
  const error = answer && answer.error;
  if (response.status === 401) by("token-form").hidden = false;
  const message = error ? sentence(error.message) : `The server answered with status ${response.status}.`;
  throw new Refused(error ? error.kind : "unknown", message, error ? HELP[error.kind] || error.next : "try again");
}

function sentence(text) { return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`; }

function form(file) {
  const form = new FormData();
  form.append("file", file, file.name || "pasted.png");
  return form;
}

const guideOf = (name) => {
  const found = state.model && state.model.predict && state.model.predict.classes.find((c) => c.class === name);
  return found ? found.guide : null;
};
const titleOf = (name) => (guideOf(name) ? guideOf(name).title : name);
const anchor = (name) => `guide-${encodeURIComponent(name)}`;

// The models, once.
async function start() {
  try {
    state.model = await ask("/v1/model");
  } catch (error) {
    complain(error);
    return;
  }
  by("token-form").hidden = true;
  by("error").hidden = true;
  const { predict, segment, version, device } = state.model;
  const names = [predict, segment].filter(Boolean).flatMap((part) => part.models.map((m) => `${m.name} at ${m.width}x${m.height}`));
  by("about").textContent = `lesion-gpu ${version}, ${names.join(", ")}, on ${device}. For research. Not a medical device.`;
  guides();
  route();
}

function guides() {
  const classes = (state.model.predict && state.model.predict.classes) || [];
  by("guides").replaceChildren(...classes.map(({ class: name, guide }) => {
    if (!guide) {
      return make("article", { class: "card", id: anchor(name) }, make("h2", {}, name), make("p", { class: "small" }, "There is no text on this class."));
    }
    return make("article", { class: "card", id: anchor(name) },
      make("h2", {}, `${guide.title} `, make("span", { class: "code" }, name)),
      make("span", { class: "nature" }, guide.nature),
      make("p", {}, guide.what),
      make("h3", {}, "Looked for through a dermatoscope"),
      make("ul", {}, ...guide.signs.map((sign) => make("li", {}, sign))),
      make("h3", {}, "Mistaken for"),
      make("p", {}, guide.alike));
  }));
}

// Which part of the page the address names.
function route() {
  const hash = location.hash;
  const guide = hash.startsWith("#guide");
  by("view-guide").hidden = !guide;
  by("view-look").hidden = guide;
  document.title = guide ? "Guide - lesion-gpu" : "lesion-gpu";
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if ((link.dataset.view === "guide") === guide) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!guide) return;
  const chosen = hash.length > 1 ? document.getElementById(hash.slice(1)) : null;
  document.querySelectorAll("#guides article").forEach((article) => article.classList.toggle("chosen", article === chosen));
  if (chosen) chosen.scrollIntoView();
  else by("guide-title").focus({ preventScroll: true });
}

// Pictures, one after the other.
async function take(files) {
  const pictures = [...files];
  if (pictures.length === 0) return;
  by("error").hidden = true;
  if (!state.model) await start();
  if (!state.model) return;
  for (const [i, file] of pictures.entries()) {
    const name = file.name || "pasted picture";
    say(pictures.length > 1 ? `Looking at ${name}, ${i + 1} of ${pictures.length} ...` : `Looking at ${name} ...`);
    try {
      await look(file, name);
      say("");
    } catch (error) {
      complain(error instanceof Refused ? error : new Refused("page", "The page could not show the answer.", "load it again"));
    }
  }
}

async function look(file, name) {
  const { predict, segment } = state.model;
  const visit = { name, file, url: URL.createObjectURL(file), maps: new Map(), time: new Date() };
  const [predicted, segmented] = await Promise.all([
    predict ? ask("/v1/predict", form(file)) : null,
    segment ? ask("/v1/segment", form(file)) : null,
  ]);
  visit.predicted = predicted && predicted.images[0];
  visit.calibrated = predicted && predicted.temperature;
  visit.models = predicted ? predicted.models : 0;
  visit.views = predicted && predicted.views;
  visit.segmented = segmented && segmented.images[0];
  state.visits.unshift(visit);
  show(visit);
  by("result-title").focus({ preventScroll: true });
  by("result").scrollIntoView({ block: "nearest" });
  if (visit.predicted) await map(visit, visit.predicted.label);
}

// Where the model looks for a class of a visit's picture.
async function map(visit, name) {
  visit.explained = name;
  if (!state.model.explain) return;
  if (!visit.maps.has(name)) {
    const rollout = state.model.explain.method === "rollout";
    const path = rollout ? "/v1/explain" : `/v1/explain?class=${encodeURIComponent(name)}`;
    visit.maps.set(name, (await ask(path, form(visit.file))).images[0]);
  }
  if (state.shown === visit && visit.explained === name) overlay(visit);
}

function overlay(visit) {
  const found = visit.maps.get(visit.explained);
  by("overlay-controls").hidden = !found;
  by("overlay").hidden = !found;
  if (!found) return;
  by("overlay").src = `data:image/png;base64,${found.overlay}`;
  const layer = found.layer ? ` of ${found.layer}` : "";
  const nothing = found.peak === 0 ? " Nothing in this layer speaks for it." : "";
  by("caption").textContent = `Where the model looks for ${titleOf(visit.explained)}: ${found.method}${layer}. Yellow counts most.${nothing}`;
  opacity();
}

function opacity() {
  const value = Number(by("opacity").value);
  by("overlay").style.opacity = String(value / 100);
  by("opacity-value").textContent = `${value} %`;
  by("opacity").setAttribute("aria-valuetext", `${value} percent`);
}

function show(visit) {
  state.shown = visit;
  by("result").hidden = false;
  by("result-title").textContent = visit.name;
  by("caption").textContent = "";
  by("picture").src = visit.url;
  by("picture").alt = `The picture ${visit.name}`;
  contour(visit.segmented);
  shape(visit.segmented);
  classes(visit);
  facts(visit);
  overlay(visit);
  visits();
}

function contour(found) {
  const svg = by("contour");
  by("contour-controls").hidden = !found;
  svg.toggleAttribute("hidden", !found || !by("contour-on").checked);
  svg.replaceChildren();
  if (!found) return;
  svg.setAttribute("viewBox", `0 0 ${found.width} ${found.height}`);
  const path = found.contours.map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`).join("");
  for (const kind of ["halo", "line"]) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("class", kind);
    element.setAttribute("d", path);
    svg.append(element);
  }
}

// What is measured of the outline, as `predict` does.
function shape(found) {
  const measures = found && found.shape;
  by("shape").hidden = !measures;
  if (!measures) return;
  const { parts, area, perimeter, border, asymmetry, diameter } = measures;
  const pixels = (value) => `${Math.round(value).toLocaleString("en")}\u00a0px`;
  const rows = [
    ["Area", `${area.toLocaleString("en")}\u00a0px²${parts > 1 ? `, of ${parts} parts` : ""}`],
    ["Diameter", pixels(diameter)],
    ["Border length", pixels(perimeter)],
    ["Border irregularity", `${border.toFixed(2)} (a disc: 1.1)`],
    ["Asymmetry", `${percent(asymmetry[0])} along the long axis, ${percent(asymmetry[1])} along the short one`],
  ];
  by("shape-facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function classes(visit) {
  const found = visit.predicted;
  by("classes").hidden = !found;
  by("lead").hidden = !found;
  if (!found) return;
  const first = found.classes[0];
  by("lead").replaceChildren("Likeliest: ", make("strong", {}, titleOf(first.class)), `, ${percent(first.probability)}`);
  by("classes").tBodies[0].replaceChildren(...found.classes.map(({ class: name, probability }) => {
    const guide = guideOf(name);
    const label = guide ? make("a", { href: `#${anchor(name)}` }, guide.title) : name;
    const fill = make("span", { class: "fill" });
    fill.style.width = `${100 * probability}%`;
    return make("tr", {},
      make("th", { scope: "row" }, label, guide ? make("span", { class: "code" }, ` ${name}`) : null),
      make("td", {}, make("span", { class: "number" }, percent(probability)), make("span", { class: "rail", "aria-hidden": "true" }, fill)));
  }));
  const sigmoid = state.model.predict.outputs === "sigmoid";
  by("calibration").textContent = [
    visit.calibrated ? `Calibrated by a temperature of ${visit.calibrated.toFixed(3)}.` : "",
    visit.models > 1 ? `The mean of ${visit.models} models.` : "",
    visit.views ? `The mean of ${visit.views} views of the picture.` : "",
    sigmoid ? "Each class is a yes or no of its own." : "",
    "The model knows no other classes than these.",
  ].filter(Boolean).join(" ");
  by("explained").replaceChildren(...found.classes.map(({ class: name }) => make("option", { value: name }, titleOf(name))));
  by("explained").value = visit.explained || found.label;
}

function facts(visit) {
  const size = visit.predicted || visit.segmented;
  const rows = [["Picture", `${size.width}x${size.height} pixels`], ["Time", visit.time.toLocaleString()]];
  if (visit.segmented) {
    rows.push(["Lesion", visit.segmented.contours.length ? `${percent(visit.segmented.share)} of the picture` : "none was found"]);
  }
  by("facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function visits() {
  by("history").hidden = state.visits.length < 1;
  by("visits").replaceChildren(...state.visits.map((visit) => {
    const text = visit.predicted
      ? `${titleOf(visit.predicted.label)}, ${percent(visit.predicted.classes[0].probability)}`
      : `${percent(visit.segmented.share)} of the picture`;
    const button = make("button", { type: "button" },
      make("img", { src: visit.url, alt: "" }),
      make("span", {}, visit.name, make("span", { class: "code" }, text)));
    if (visit === state.shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      show(visit);
      by("result-title").focus({ preventScroll: true });
      by("result").scrollIntoView({ block: "nearest" });
    });
    return make("li", {}, button);
  }));
}

function forget() {
  state.visits.forEach((visit) => URL.revokeObjectURL(visit.url));
  state.visits = [];
  state.shown = null;
  by("result").hidden = true;
  for (const id of ["picture", "overlay"]) by(id).removeAttribute("src");
  visits();
  by("file").focus();
  say("All pictures of this visit are forgotten.");
}

// Colours: as the system says, light, dark.
const themes = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = name;
  by("theme").textContent = `Colours: ${name}`;
  by("theme").setAttribute("aria-label", `Colours: ${name}. Press to change`);
  remember("theme", name);
}

// The browser may refuse to remember; then the choice lasts as long as the page.
function remember(key, value) { try { sessionStorage.setItem(key, value); } catch { /* as said */ } }
function remembered(key) { try { return sessionStorage.getItem(key); } catch { return null; } }

function listen() {
  by("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
  const drop = by("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") {
        location.hash = "#look";
        take(event.dataTransfer.files);
      }
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (files.length > 0) take(files);
  });
  by("opacity").addEventListener("input", opacity);
  by("explained").addEventListener("change", async (event) => {
    say("Asking where the model looks ...");
    try {
      await map(state.shown, event.target.value);
      say("");
    } catch (error) { complain(error); }
  });
  by("contour-on").addEventListener("change", () => by("contour").toggleAttribute("hidden", !by("contour-on").checked));
  by("print").addEventListener("click", () => window.print());
  by("forget").addEventListener("click", forget);
  by("theme").addEventListener("click", () => {
    const now = themes.indexOf(document.documentElement.dataset.theme || "system");
    theme(themes[(now + 1) % themes.length]);
  });
  by("picture").addEventListener("error", () => {
    if (state.shown) by("caption").textContent = "Your browser cannot show this kind of picture; the answer is about it all the same.";
  });
  by("token-form").querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = by("token").value.trim();
    remember("token", state.token);
    start();
  });
  window.addEventListener("hashchange", route);
}

// The address that the server prints carries the token where it is not sent; it does not stay there.
const given = /^#token=(.+)$/.exec(location.hash);
if (given) {
  remember("token", decodeURIComponent(given[1]));
  window.history.replaceState(null, "", location.pathname);
}
state.token = given ? decodeURIComponent(given[1]) : remembered("token");
theme(themes.includes(remembered("theme")) ? remembered("theme") : "system");
listen();
route();
start();
