// The page of `wm play` and of `wm export web`: what differs between the two is where the dream comes from.
import { connect } from "./source.js";

const $ = (id) => document.getElementById(id);
const KEPT = 300;
const traces = { spread: [], hazard: [], reward: [] };
let source = null, last = null, dragging = null, came = 0;
const sliders = new Map();

// M may take 9 steps a second. A picture fades into the next one, as long as that one took to come, so that it moves evenly.
const QUICK = 1000 / 30, LONGEST = 250; // ms; what comes quicker needs no fading
class Screen {
  constructor(id) {
    this.context = $(id).getContext("2d");
    this.image = this.context.createImageData(64, 64);
    this.image.data.fill(255);
    this.shown = new Uint8Array(3 * 64 * 64);
    this.drawn = 0;
  }
  show(rgb, fade) { // fade: ms; null if it is the same moment again
    if (fade !== null) { this.from = fade ? this.shown : rgb; this.fade = fade; this.begin = performance.now(); }
    this.to = rgb;
    this.moving = true;
  }
  draw(now) {
    if (!this.moving) return;
    const share = this.fade ? Math.min(1, Math.max(0, now - this.begin) / this.fade) : 1;
    if (share < 1 && now - this.drawn < 0.75 * QUICK) return; // 30 a second are enough: drawing is dear without a GPU
    this.drawn = now;
    this.shown = share < 1 ? this.to.map((value, i) => this.from[i] + share * (value - this.from[i])) : this.to;
    const { data } = this.image;
    for (let i = 0, j = 0; i < this.shown.length; i += 3, j += 4) {
      data[j] = this.shown[i]; data[j + 1] = this.shown[i + 1]; data[j + 2] = this.shown[i + 2];
    }
    this.context.putImageData(this.image, 0, 0);
    this.moving = share < 1;
  }
}
const screens = { dream: new Screen("dream"), real: new Screen("real") };
function animate(now) {
  for (const screen of Object.values(screens)) screen.draw(now);
  requestAnimationFrame(animate);
}

function show(moment, dream, real) {
  const same = last && moment.seed === last.seed && moment.step === last.step, now = performance.now();
  const next = last && moment.seed === last.seed && moment.step === last.step + 1 && !moment.paused;
  const fade = same ? null : next && now - came > QUICK ? Math.min(now - came, LONGEST) : 0;
  if (!same) came = now;
  screens.dream.show(dream, fade);
  if (real) screens.real.show(real, last && last.real ? fade : 0);
  $("beside").hidden = !moment.beside;
  $("wake").hidden = !real;
  $("realfacts").textContent = real ? "same actions" : "over, or taken back";
  $("facts").textContent = `${moment.watching ? "replay" : moment.driven ? "you drive" : "agent drives"}, step ${moment.step}, score ${moment.total.toFixed(0)}`;
  $("over").hidden = !moment.ended;
  $("over").textContent = `The dream is over. Score: ${moment.total.toFixed(0)}.`;
  $("driver").firstChild.textContent = moment.driven ? "Let the agent drive" : "Drive yourself";
  $("pause").firstChild.textContent = moment.paused ? "Go on" : "Pause";
  press("besidebutton", moment.beside);
  if (!dragging) {
    put("temperature", Math.log(moment.temperature), moment.temperature.toFixed(2));
    for (const [index, slider] of sliders) { slider.value = moment.z[index]; label(slider, moment.z[index]); }
  }
  if (last && moment.step <= last.step) cut(moment.step);
  if (!last || moment.step !== last.step || moment.seed !== last.seed) remember(moment);
  last = moment;
  if (moment.ended && !moment.paused && !moment.watching) scheduleStart();
}

let restart = null;
function scheduleStart() { // another dream a moment after the end, unless the visitor does something
  if (!restart) restart = setTimeout(() => { restart = null; if (last.ended && !last.paused) say({ do: "start" }); }, 1500);
}

function press(id, on) { $(id).setAttribute("aria-pressed", String(Boolean(on))); }
function put(id, value, text) { $(id).value = value; $(id + "value").textContent = text; }
function label(slider, value) { slider.nextElementSibling.textContent = Number(value).toFixed(2); }
function say(order) { source.say(order); }
function tell(text) { $("message").textContent = text; }

function cut(step) { for (const name in traces) traces[name] = traces[name].filter(([at]) => at < step); }
function remember(moment) {
  for (const name in traces) {
    if (moment.step === 0 || moment[name] === null || moment[name] === undefined) continue;
    traces[name].push([moment.step, moment[name]]);
    if (traces[name].length > KEPT) traces[name].shift();
  }
  plot();
}

const LINES = { spread: ["--dream", "how unsure M is"], hazard: ["--ink", "chance of the end"], reward: ["--real", "reward"] };
function plot() {
  const canvas = $("traces"), ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  if (canvas.width !== canvas.clientWidth * ratio) { canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio; }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const name in traces) {
    if (!shown(name) || traces[name].length < 2) continue;
    const points = traces[name].map(([step, value]) => [step, name === "hazard" ? Math.log10(Math.max(value, 1e-5)) : value]);
    let low = Math.min(...points.map((p) => p[1])), high = Math.max(...points.map((p) => p[1]));
    if (name === "hazard") { low = -5; high = 0; }
    if (high - low < 1e-6) high = low + 1;
    const begin = points[0][0], width = Math.max(KEPT, points[points.length - 1][0] - begin);
    context.beginPath();
    for (const [step, value] of points) {
      context.lineTo((step - begin) / width * canvas.width, (0.95 - 0.9 * (value - low) / (high - low)) * canvas.height);
    }
    context.strokeStyle = style.getPropertyValue(LINES[name][0]);
    context.lineWidth = 1.5 * ratio;
    context.stroke();
  }
}
function shown(name) { return name === "spread" || (name === "hazard" ? source.about.done : source.about.reward); }

// Driving: keys, and buttons for fingers and mice.
const DRIVES = {
  1: { keys: { ArrowLeft: [-1], ArrowRight: [1], a: [-1], d: [1] }, pads: { "◀ left": "ArrowLeft", "right ▶": "ArrowRight" } },
  3: {
    keys: { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 2, 0], ArrowDown: [0, 0, 2] },
    pads: { "◀ left": "ArrowLeft", "▲ gas": "ArrowUp", "▼ brake": "ArrowDown", "right ▶": "ArrowRight" },
  },
};
const down = new Set();
let drives = null;

function drivesOf({ actions, choices, options }) {
  if (!choices.length) return DRIVES[actions] || { keys: {}, pads: {} };
  // A number for each option of a choice, and the largest wins: the key 1 takes the first one.
  const keys = {}, pads = {};
  for (let option = 0; option < Math.min(actions, 9); option++) {
    keys[option + 1] = Array.from({ length: actions }, (_, axis) => (axis === option ? 2 : 0));
    pads[options[option] ? `${option + 1} ${options[option]}` : `${option + 1}`] = `${option + 1}`;
  }
  return { keys, pads };
}

const keysOf = ({ actions, choices }) =>
  choices.length ? "keys 1 and up" : `arrow keys${actions === 3 ? " (up is gas, down is brake)" : ""}`;

function hold() {
  // Gas, brake and options rest at -1, which is none: two more is all.
  const { actions, choices } = source.about;
  const action = choices.length ? new Array(actions).fill(-1) : actions === 3 ? [0, -1, -1] : new Array(actions).fill(0);
  for (const key of down) drives.keys[key].forEach((value, axis) => { action[axis] += value; });
  say({ do: "hold", action: action.map((value) => Math.max(-1, Math.min(1, value))) });
}
function pressKey(key, on) {
  if (on === down.has(key)) return;
  on ? down.add(key) : down.delete(key);
  for (const pad of $("pads").children) pad.classList.toggle("held", down.has(pad.dataset.key));
  hold();
}

const COMMANDS = {
  " ": () => $("pause").click(), ".": () => $("step").click(), ",": () => $("back").click(), r: () => $("start").click(),
  g: () => $("besidebutton").click(), w: () => $("wake").click(), m: () => $("driver").click(),
};
function keyboard(event, on) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=range]");
  if (drives.keys[event.key] && !(typing && event.key.startsWith("Arrow"))) {
    pressKey(event.key, on);
    event.preventDefault();
  } else if (on && !event.repeat && COMMANDS[event.key] && !(event.key === " " && event.target.matches("button, summary, label, input"))) {
    COMMANDS[event.key]();
    event.preventDefault();
  }
}

function build(about) {
  const size = about.latents.length;
  $("about").textContent = `of ${about.name}`;
  $("latentcount").textContent = size;
  put("rate", about.rate, about.rate);
  drives = drivesOf(about);
  for (const [text, key] of Object.entries(drives.pads)) {
    const button = document.createElement("button");
    button.textContent = text;
    button.dataset.key = key;
    button.onpointerdown = (event) => { button.setPointerCapture(event.pointerId); pressKey(key, true); };
    button.onpointerup = button.onpointercancel = () => pressKey(key, false);
    $("pads").append(button);
  }
  for (const [index, mean, std] of about.latents) {
    const line = document.createElement("label"), name = document.createElement("span");
    const slider = document.createElement("input"), value = document.createElement("span");
    name.textContent = `z${index}`;
    const reach = Math.max(3 * std, 0.5);
    Object.assign(slider, { type: "range", min: (mean - reach).toFixed(3), max: (mean + reach).toFixed(3), step: "0.01" });
    slider.setAttribute("aria-label", `latent ${index}`);
    slider.oninput = () => { dragging = slider; label(slider, slider.value); say({ do: "latent", index, value: Number(slider.value) }); };
    slider.onchange = () => { dragging = null; };
    sliders.set(index, slider);
    line.append(name, slider, value);
    $("latents").append(line);
  }
  if (!about.real) for (const id of ["besidebutton", "wake", "film"]) $(id).hidden = true;
  $("legend").replaceChildren(...Object.keys(LINES).filter(shown).map((name) => {
    const item = document.createElement("span"), mark = document.createElement("i");
    mark.style.background = `var(${LINES[name][0]})`;
    item.append(mark, LINES[name][1]);
    return item;
  }));
  const goal = { survival: "Stay alive: drive", events: "Earn reward: drive", none: "Drive" }[about.pay];
  $("help").innerHTML = "Network M makes up what comes next, network V draws it." + (Object.keys(drives.keys).length ?
    ` ${goal} with <span class="keys">the ${keysOf(about)}</span><span class="fingers">the buttons</span>.` : "");
}

function wire() {
  $("driver").onclick = () => (last && last.driven ? say({ do: "agent" }) : hold());
  $("pause").onclick = () => say({ do: "pause", on: !(last && last.paused) });
  $("step").onclick = () => say({ do: "step" });
  $("back").onclick = () => say({ do: "back", steps: 35 });
  $("start").onclick = () => say({ do: "start" });
  $("save").onclick = () => say({ do: "save" });
  if (source.about.real) {
    $("besidebutton").onclick = () => say({ do: "beside", on: !(last && last.beside) });
    $("wake").onclick = () => say({ do: "wake" });
    $("film").onclick = () => { tell("Drawing the video…"); say({ do: "film" }); };
  }
  $("replay").onchange = async ({ target }) => {
    try { say({ do: "replay", recording: JSON.parse(await target.files[0].text()) }); } catch { tell("That file is no recording."); }
    target.value = "";
  };
  $("temperature").oninput = ({ target }) => {
    dragging = target;
    const value = Math.exp(Number(target.value));
    $("temperaturevalue").textContent = value.toFixed(2);
    say({ do: "temperature", value });
  };
  $("temperature").onchange = () => { dragging = null; };
  $("rate").oninput = ({ target }) => { $("ratevalue").textContent = target.value; say({ do: "rate", value: Number(target.value) }); };
  addEventListener("keydown", (event) => keyboard(event, true));
  addEventListener("keyup", (event) => keyboard(event, false));
  addEventListener("blur", () => { if (down.size) { down.clear(); hold(); } });
}

function download(name, content) {
  tell("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const early = []; // what arrives before the page is built
const ready = (handler) => (...all) => (source ? handler(...all) : early.push(() => handler(...all)));
try {
  const found = await connect({ moment: ready(show), message: ready(tell), file: ready(download) });
  source = found;
  build(found.about);
  wire();
  early.forEach((act) => act());
  requestAnimationFrame(animate);
  window.dream = { source, get last() { return last; } };
} catch (error) {
  $("about").textContent = `It does not work: ${error.message}`;
}
