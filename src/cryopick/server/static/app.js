/** The frame of all pages: bar, page, command. */
import { html, render, useEffect, useState } from "./lib/html.js";
import { connection, listenForEvents } from "./lib/events.js";
import { listenForKeys, useKeys } from "./lib/keyboard.js";
import { useJson } from "./lib/remote.js";
import { goTo, linkTo, place } from "./lib/router.js";
import { me } from "./lib/session.js";
import { useStore } from "./lib/store.js";
import { CommandBar } from "./parts/command_bar.js";
import { KeyMap } from "./parts/key_map.js";
import { Messages } from "./parts/messages.js";

/** Address, name in the bar, key, module. Modules are loaded when first shown. */
const PAGES = [
  ["overview", "Overview", "1", () => import("./pages/overview.js")],
  ["micrograph", "Micrographs", "2", () => import("./pages/micrograph.js")],
  ["classes", "Classes", "3", () => import("./pages/classes.js")],
  ["particles", "Particles", "4", () => import("./pages/particles.js")],
  ["tomograms", "Tomograms", "5", () => import("./pages/tomograms.js")],
  ["jobs", "Jobs", "6", () => import("./pages/jobs.js")],
  ["export", "Export", "7", () => import("./pages/export.js")],
];

const CONNECTIONS = {
  live: ["good", "live"],
  waiting: ["warn", "waiting for the server"],
  refused: ["bad", "access has ended"],
};

function TopBar({ onKeys }) {
  const { page } = useStore(place);
  const who = useStore(me);
  const [tone, words] = CONNECTIONS[useStore(connection)];
  return html`<header class="top-bar">
    <a class="brand" href=${linkTo("overview")}>
      <svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10" fill="none" stroke="currentColor" stroke-width="2" />
        ${[0, 60, 120, 180, 240, 300].map((angle) => html`<circle cx="12" cy="6.6" r="1.9" fill="currentColor" transform=${`rotate(${angle} 12 12)`} />`)}</svg>
      <span class="wide-only">cryopick</span>
    </a>
    <nav aria-label="Pages">
      ${PAGES.map(([name, title]) => html`<a key=${name} href=${linkTo(name)} aria-current=${page === name ? "page" : null}>${title}</a>`)}
    </nav>
    <div class="status">
      <span class="project clip" title=${who?.project?.folder ?? ""}>${who?.project?.name ?? ""}</span>
      ${who && !who.can_write && html`<span class="chip none">read only</span>`}
      <span class=${`chip ${tone}`} data-testid="connection">${words}</span>
      <button class="plain" aria-label="Keys" title="Keys (?)" onClick=${onKeys}>?</button>
    </div>
  </header>`;
}

/** The module of the page in the address. */
function Page() {
  const { page } = useStore(place);
  const entry = PAGES.find(([name]) => name === page) ?? PAGES[0];
  const [loaded, setLoaded] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    entry[3]().then((module) => isCurrent && setLoaded({ name: entry[0], Shown: module.default }));
    document.title = `${entry[1]} – cryopick`;
    return () => { isCurrent = false; };
  }, [entry[0]]);
  if (loaded?.name !== entry[0]) return html`<main id="page" tabindex="-1" aria-busy="true"></main>`;
  return html`<${loaded.Shown} key=${entry[0]} />`;
}

function App() {
  const [hasKeys, setKeys] = useState(false);
  const who = useJson("api/me");
  useEffect(() => { if (who.value) me.set(who.value); }, [who.value]);
  useKeys("Everywhere", [
    ["?", "this map", () => setKeys(true)],
    ...PAGES.map(([name, title, key]) => [key, title, () => goTo(name)]),
  ]);
  return html`
    <${TopBar} onKeys=${() => setKeys(true)} />
    <${Page} />
    <${CommandBar} />
    ${hasKeys && html`<${KeyMap} onClose=${() => setKeys(false)} />`}
    <${Messages} />`;
}

listenForKeys();
listenForEvents();
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
