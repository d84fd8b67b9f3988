// The dream in the browser itself: V, M and C as ONNX, no server. Understands the same orders as the server's sessions.
import * as ort from "./ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // no need for special headers of the web server
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

export async function connect(handlers) {
  const about = await (await fetch("about.json")).json();
  const open = (name) => ort.InferenceSession.create(`${name}.onnx`);
  const [vision, memory, controller] = [await open("vision"), await open("memory"), await open("controller")];
  const size = about.latents.length, tensor = (values) => new ort.Tensor("float32", values, [1, values.length]);
  const clamp = (value, low, high) => Math.max(low, Math.min(high, Number(value) || 0));
  const state = { temperature: about.temperature, rate: about.rate, paused: false, driven: false, watching: null, held: null };
  let moments = [], changes = {}, first = null, seed = 0, random = null, turned = false;
  state.held = new Array(about.actions).fill(0);

  // Noise belongs to the seed and the step, so that a dream taken back goes on as before.
  function generator(a) { // mulberry32
    return () => {
      a = (a + 0x6d2b79f5) | 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }
  function noise(step) {
    random = generator((seed ^ Math.imul(step + 1, 0x9e3779b1)) | 0);
    const normal = Float32Array.from({ length: size }, () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));
    return { normal, uniform: Float32Array.from({ length: size }, () => random()), end: random() };
  }
  const now = () => moments[moments.length - 1];
  const waiting = () => state.paused || (state.watching === null && now().ended);
  const shown = () => (state.watching === null ? now() : moments[state.watching]);

  function start(chosen, z = null) {
    seed = chosen >>> 0;
    if (!z) {
      const { mean, log_variance } = about.starts, { normal, end } = noise(0);
      const row = Math.floor(end * mean.length);
      z = mean[row].map((value, i) => value + Math.exp(log_variance[row][i] / 2) * normal[i]);
    }
    first = Array.from(z);
    changes = { 0: { temperature: state.temperature } };
    moments = [{ step: 0, z: Float32Array.from(z), state: new Float32Array(about.state), action: null, total: 0, earned: 0, reward: 0, hazard: null, spread: 0, ended: false }];
  }

  // One step of M; also what the tests compare with PyTorch.
  async function predict(before, action, drawn, temperature) {
    const feeds = {
      z: tensor(before.z), action: tensor(Float32Array.from(action)), restart: tensor(Float32Array.of(before.step === 0 ? 1 : 0)),
      state: tensor(before.state), uniform: tensor(drawn.uniform), normal: tensor(drawn.normal),
      tau: tensor(Float32Array.of(temperature)),
    };
    const given = Object.fromEntries(memory.inputNames.map((name) => [name, feeds[name]]));
    const out = await memory.run(given);
    return { z: out.next.data, state: out.state_next.data, reward: out.reward.data[0], hazard: out.hazard.data[0], spread: out.spread.data[0] };
  }
  async function agent(before) {
    const feeds = { z: tensor(before.z), state: tensor(before.state) };
    return (await controller.run(Object.fromEntries(controller.inputNames.map((name) => [name, feeds[name]])))).action.data;
  }
  async function decode(z) { return Uint8Array.from((await vision.run({ z: tensor(z) })).frame.data); }

  async function step(action) {
    const before = now();
    if (before.ended) return;
    const chosen = action || Array.from(await agent(before)), drawn = noise(before.step + 1);
    const after = await predict(before, chosen, drawn, state.temperature);
    const earned = before.earned + after.reward - about.usual, won = about.goal > 0 && earned >= about.goal;
    moments.push({
      ...after, step: before.step + 1, action: Array.from(chosen), total: before.total + after.reward, earned,
      hazard: about.done ? after.hazard : null, ended: (about.done && drawn.end < after.hazard) || won || before.step + 1 >= 5000,
    });
  }
  function change(what) { const at = now().step; changes[at] = { ...changes[at], ...what }; }
  function bend(index, value) {
    const z = Float32Array.from(now().z);
    z[index] = clamp(value, -10, 10);
    moments[moments.length - 1] = { ...now(), z };
    const before = (changes[now().step] || {}).latents || {};
    change({ latents: { ...before, [index]: z[index] } });
  }
  function back(steps) {
    moments.length = Math.max(1, moments.length - Math.floor(steps));
    for (const at of Object.keys(changes)) if (Number(at) > now().step) delete changes[at];
  }
  async function advance() {
    if (state.watching === null) await step(state.driven ? state.held : null);
    else if (state.watching + 1 < moments.length) state.watching += 1;
    else { state.paused = true; state.watching = null; }
  }
  async function replay({ seed: of, first: z, actions, changes: told }) {
    if (!Array.isArray(z) || z.length !== size || !Array.isArray(actions) || actions.length > 5000 || !told) throw new Error("no recording of this agent");
    start(of, z);
    for (const action of [...actions, null]) {
      const here = told[now().step] || {};
      if (here.latents) for (const [index, value] of Object.entries(here.latents)) bend(Number(index), value);
      if (here.temperature) { state.temperature = clamp(here.temperature, 0.01, 10); change({ temperature: state.temperature }); }
      if (action) await step(action);
    }
    state.watching = 0;
    state.paused = false;
  }

  const orders = {
    hold: ({ action }) => {
      const held = action.map((value) => clamp(value, -1, 1));
      turned = turned || !state.driven || held.some((value, axis) => value !== state.held[axis]);
      state.held = held;
      state.driven = true;
    },
    agent: () => { state.driven = false; },
    pause: ({ on }) => { state.paused = on; },
    step: async () => { state.paused = true; await advance(); },
    back: ({ steps }) => {
      state.paused = true;
      if (state.watching === null) back(steps); else state.watching = Math.max(0, state.watching - steps);
    },
    start: ({ seed: of }) => start(of === undefined ? Math.floor(Math.random() * 2 ** 31) : of),
    temperature: ({ value }) => { state.temperature = clamp(value, 0.01, 10); change({ temperature: state.temperature }); },
    latent: ({ index, value }) => bend(index, value),
    rate: ({ value }) => { state.rate = clamp(value, 1, 120); },
    save: () => handlers.file("dream.json", JSON.stringify({ seed, first, actions: moments.slice(1).map((m) => m.action), changes })),
    replay: ({ recording }) => replay(recording),
  };

  async function show() {
    const moment = shown();
    handlers.moment({ ...moment, z: Array.from(moment.z), seed, paused: state.paused, driven: state.driven, temperature: state.temperature, beside: false, watching: state.watching !== null }, await decode(moment.z), null);
  }

  // One thing at a time: orders wait for the step under way.
  let queue = Promise.resolve(), due = performance.now(), timer = null;
  const then = (act) => (queue = queue.then(act).catch((error) => handlers.message(error.message)));
  function say(order) {
    then(async () => {
      if (state.watching !== null && !["pause", "step", "back", "rate", "save"].includes(order.do)) {
        back(moments.length - 1 - state.watching);
        state.watching = null;
      }
      await orders[order.do](order);
      if (waiting() || !turned) await show();
      else if (timer !== null) plan();
    });
  }
  function plan() { // another action is answered at once, by a step that comes before its time; the one after it waits for its own
    clearTimeout(timer);
    timer = setTimeout(tick, Math.max(0, due - (turned ? 1000 / state.rate : 0) - performance.now()));
  }
  function tick() {
    timer = null;
    then(async () => {
      turned = false;
      if (!waiting()) { await advance(); await show(); }
    }).then(() => {
      due = Math.max(due + 1000 / state.rate, performance.now());
      plan();
    });
  }

  start(Math.floor(Math.random() * 2 ** 31));
  then(show);
  plan();
  return { about, say, predict, agent, decode };
}
