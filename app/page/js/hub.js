// The hub: searching it by words, pulling from it by name.
import { bytes } from "./format.js";
import { html, useRef, useState } from "./html.js";
import { ask } from "./net.js";

/** A whole name is pulled, other words are searched for. */
const isName = (text) => /^[\w.-]+\/[\w.-]+(@\S+)?$/.test(text);

export function Hub({ pull }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState(null);
  const latest = useRef(0);
  const words = text.trim();
  const search = async () => {
    const number = (latest.current += 1);
    setFound({ words, models: null });
    let told;
    try {
      told = { words, models: (await (await ask("GET", `admin/search?q=${encodeURIComponent(words)}`)).json()).data };
    } catch (error) {
      told = { words, models: [], failure: error.message };
    }
    if (number === latest.current) setFound(told);
  };
  const take = (id) => {
    setFound(null);
    setText("");
    pull(id);
  };
  const go = (event) => {
    event.preventDefault();
    if (isName(words)) take(words);
    else if (words) search();
  };
  return html`<form class="row hub" role="search" onSubmit=${go}>
      <input aria-label="Model of the hub" placeholder="Search the hub, or org/name" value=${text} spellcheck=${false}
        autocapitalize="off" onInput=${(event) => setText(event.target.value)} />
      <button class="primary" disabled=${!words}>${isName(words) ? "Pull" : "Search"}</button>
    </form>
    ${found && html`<${Results} found=${found} take=${take} close=${() => setFound(null)} />`}`;
}

function Results({ found, take, close }) {
  const { words, models, failure } = found;
  return html`<div class="found" role="region" aria-label="Found on the hub" aria-busy=${models === null}>
    <div class="row between"><strong>${models === null ? `Searching for ${words}…` : `“${words}” on the hub`}</strong>
      <button type="button" class="quiet small" onClick=${close}>Close</button></div>
    ${failure && html`<p class="failure" role="alert">${failure}</p>`}
    ${models?.length === 0 && !failure && html`<p class="muted">No model for MLX is called so.</p>`}
    <ul>${models?.map((model) => html`<${Result} key=${model.id} model=${model} take=${take} />`)}</ul>
  </div>`;
}

function Result({ model, take }) {
  const size = model.nbytes === null ? "size not known" : bytes(model.nbytes);
  return html`<li class="row between" data-found=${model.id}>
    <span class="id">${model.id}</span>
    <span class="row end">
      <span class="muted small">${size}</span>
      ${model.fits !== null && html`<span class="chip ${model.fits ? "resident" : "failed"}">${model.fits ? "fits" : "too large"}</span>`}
      ${model.gated && html`<span class="chip waiting" title="Its licence has to be accepted on the hub">gated</span>`}
      ${model.on_disk
        ? html`<span class="chip">on disk</span>`
        : html`<button type="button" class="quiet small" disabled=${model.fits === false} aria-label=${`Pull ${model.id}`} onClick=${() => take(model.id)}>Pull</button>`}
    </span>
  </li>`;
}
