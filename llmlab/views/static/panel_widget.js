/** The widget of the panel: a form of native controls, and tabs that hold widgets of their own. */

import { element } from "./draw.js";
import { goneBox, whenGone } from "./gone.js";
import { ownKeys } from "./own_keys.js";
import { panelHindrance, panelStay, panelTab } from "./panel_geometry.js";
import { placed } from "./place.js";

const PANEL_NUMBERS = [
  ["temperature", "0", "0.1"], ["top_p", "", "0.05"], ["max_tokens", "64", "1"], ["seed", "0", "1"],
];

/** A control with its label: {line, input}. */
function panelField(parent, words, tag, fill) {
  const line = element("label", "llmlab-panel-field", null, parent);
  element("span", "", words, line);
  const input = element(tag, "", null, line);
  fill?.(input);
  return input;
}

function panelChoices(select, values) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => Object.assign(document.createElement("option"), { value, textContent: value || "–" })));
  if (values.includes(before)) select.value = before;
}

/** The engines as check boxes; what a user ticked stays ticked when others come. */
function panelEngines(parent, changed) {
  const group = element("fieldset", "", null, parent);
  element("legend", "", "Engines", group);
  const boxes = new Map();
  return {
    names: () => [...boxes].filter(([, box]) => box.checked && !box.disabled).map(([name]) => name),
    take(engines) {
      const ticked = new Map([...boxes].map(([name, box]) => [name, box.checked]));
      for (const line of [...group.querySelectorAll("label, p")]) line.remove();
      boxes.clear();
      if (!engines.length) element("p", "", "None is loaded: load two below.", group);
      for (const { name, what, alive, chosen } of engines) {
        const line = element("label", "llmlab-panel-engine", null, group);
        const box = element("input", "", null, line);
        box.type = "checkbox";
        box.checked = ticked.get(name) ?? chosen;
        box.disabled = !alive;
        box.onchange = changed;
        element("b", "", name, line);
        element("span", "", alive ? what : "✕ not loaded any more", line);
        boxes.set(name, box);
      }
    },
  };
}

function render({ model, el }) {
  const root = element("div", "llmlab-view llmlab-panel-form", null, el);
  const giveKeysBack = ownKeys(root);
  const send = (message) => model.send(message);
  element("h3", "", "Panel: one prompt, several engines", root);
  const form = element("form", "", null, root);
  const engines = panelEngines(form, () => judge());
  const more = element("details", "", null, form);
  element("summary", "", "Load another engine", more);
  const kind = panelField(more, "engine", "select");
  const name = panelField(more, "model", "select");
  const quant = panelField(more, "quant", "select");
  const loading = element("button", "llmlab-chip", "Load", more);
  loading.type = "button";
  kind.onchange = () => judge();
  loading.onclick = () => send({ t: "load", engine: kind.value, model: name.value, quant: quant.disabled ? "" : quant.value });
  const settings = element("fieldset", "", null, form);
  element("legend", "", "Sampling", settings);
  const numbers = PANEL_NUMBERS.map(([words, value, step]) =>
    [words, panelField(settings, words, "input", (input) => Object.assign(input, { type: "number", value, step, min: "0" }))]);
  const together = panelField(settings, "together (speeds share the machine)", "input", (input) => (input.type = "checkbox"));
  const prompt = panelField(form, "Prompt (Ctrl + Enter runs)", "textarea", (input) => Object.assign(input, { rows: 3, value: "Why is the sky blue?" }));
  const bar = element("div", "llmlab-compare-bar", null, form);
  const run = element("button", "llmlab-chip", "Run", bar);
  run.type = "submit";
  const stop = element("button", "llmlab-chip llmlab-stop", "■ Stop", bar);
  stop.type = "button";
  stop.onclick = () => send({ t: "stop" });
  const said = element("span", "", "", bar);
  said.setAttribute("role", "status");
  const tabs = panelTabs(root, model);
  let isGone = false;

  function judge() {
    const state = model.get("state");
    const hindrance = isGone ? "" : panelHindrance(state, engines.names(), prompt.value);
    run.disabled = isGone || Boolean(hindrance);
    loading.disabled = isGone || Boolean(state.busy);
    quant.disabled = kind.value !== "llamacpp"; // the others take a model as it is
    stop.hidden = isGone || !state.is_running;
    said.textContent = state.error && !state.busy ? `✕ ${state.error}` : hindrance;
  }
  form.onsubmit = (event) => {
    event.preventDefault();
    if (run.disabled) return;
    const values = Object.fromEntries(numbers.map(([words, input]) => [words, input.value]));
    send({ t: "run", engines: engines.names(), prompt: prompt.value, together: together.checked, ...values });
  };
  prompt.oninput = judge;
  prompt.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation();
      form.requestSubmit();
    }
  };
  let known = "";
  function take() {
    const state = model.get("state");
    const now = JSON.stringify([state.engines, state.kinds, state.models]);
    if (now !== known) {
      known = now;
      engines.take(state.engines);
      panelChoices(kind, state.kinds);
      panelChoices(name, state.models);
      panelChoices(quant, ["", ...state.quants]);
    }
    tabs.take(state.tabs);
    judge();
  }
  take();
  const stopHoping = whenGone(model, () => {
    isGone = true;
    goneBox(root, model.get("state").tabs.length ? "what its tabs show" : "");
    judge();
  });
  model.on("change:state", take);
  send({ t: "refresh" });
  return () => {
    stopHoping();
    model.off("change:state", take);
    giveKeysBack();
    tabs.destroy();
  };
}

/** Tabs of widgets: the arrows lead from one to the next, Tab into the one that is selected. */
function panelTabs(root, model) {
  const list = element("div", "llmlab-panel-tabs", null, root);
  list.setAttribute("role", "tablist");
  const body = element("div", "llmlab-panel-body", null, root);
  const held = new Map(); // model id -> {tab, place, view}
  let order = [];
  let known = [];
  let selected = null;

  function select(id, { focus = false } = {}) {
    selected = known.find((tab) => tab.model === id) ?? null;
    for (const [key, { tab, place }] of held) {
      tab.setAttribute("aria-selected", String(key === id));
      tab.setAttribute("aria-pressed", String(key === id));
      tab.tabIndex = key === id ? 0 : -1;
      place.hidden = key !== id;
    }
    if (focus) held.get(id)?.tab.focus();
  }

  function open({ title, model: id }) {
    const tab = element("button", "llmlab-chip", title, list);
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.onclick = () => select(id);
    tab.onkeydown = (event) => {
      const to = panelTab(event.key, order.indexOf(id), order.length);
      if (to === null) return;
      event.preventDefault();
      event.stopPropagation();
      select(order[to], { focus: true });
    };
    const place = element("div", "", null, body);
    place.setAttribute("role", "tabpanel");
    place.setAttribute("aria-label", title);
    const entry = { tab, place, view: null };
    held.set(id, entry);
    showPanelWidget(model, id, entry);
  }

  function close(id) {
    const { tab, place, view } = held.get(id);
    held.delete(id);
    view?.remove();
    tab.remove();
    place.remove();
  }

  return {
    take(tabs) {
      known = tabs;
      order = tabs.map((tab) => tab.model);
      const hadFocus = list.contains(document.activeElement);
      for (const id of [...held.keys()]) if (!order.includes(id)) close(id);
      for (const tab of tabs) if (!held.has(tab.model)) open(tab);
      order.forEach((id, i) => {
        const { tab } = held.get(id);
        if (list.children[i] !== tab) list.insertBefore(tab, list.children[i] ?? null); // moved, it loses the focus
      });
      const stay = panelStay(tabs, selected);
      if (stay) select(stay.model, { focus: hadFocus });
    },
    destroy: () => [...held.keys()].forEach(close),
  };
}

async function showPanelWidget(model, id, entry) {
  try {
    const child = await model.widget_manager.get_model(id);
    entry.view = await model.widget_manager.create_view(child);
    entry.place.append(entry.view.el);
  } catch {
    entry.place.textContent = "This view is gone: the kernel has let it go.";
  }
}

export default placed(render);
