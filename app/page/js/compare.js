// How alike texts are to an embedding model: the cosines of their vectors, as a coloured table.
import { html } from "./html.js";
import { ask } from "./net.js";
import { Store, useStore } from "./store.js";

const EXAMPLE = "The weather is lovely today.\nIt's so sunny outside!\nHe drove to the stadium.";
const MOST = 20;

/** What was typed and what came of it: it stays while another view is shown. */
class Comparison extends Store {
  constructor() {
    super({ model: "", texts: EXAMPLE, compared: [], cosines: [], failure: "", busy: false });
  }

  async run(model) {
    const compared = this.state.texts.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, MOST);
    if (!compared.length || this.state.busy) return;
    this.set({ busy: true, failure: "" });
    try {
      const response = await ask("POST", "v1/embeddings", { body: { model, input: compared } });
      const vectors = (await response.json()).data.map((row) => row.embedding);
      this.set({ compared, cosines: vectors.map((one) => vectors.map((other) => cosine(one, other))) });
    } catch (error) {
      this.set({ failure: error.message });
    }
    this.set({ busy: false });
  }
}

const comparison = new Comparison();
const dot = (one, other) => one.reduce((sum, value, at) => sum + value * other[at], 0);
const cosine = (one, other) => dot(one, other) / (Math.sqrt(dot(one, one) * dot(other, other)) || 1);

export function Compare({ models }) {
  const now = useStore(comparison);
  const able = models.filter((model) => model.kind === "embedding");
  if (!able.length) return null;
  const model = able.some((it) => it.id === now.model) ? now.model : able[0].id;
  const go = (event) => {
    event.preventDefault();
    comparison.run(model);
  };
  return html`<section class="card compare" aria-labelledby="compare-title">
    <h2 id="compare-title">Compare texts</h2>
    <form onSubmit=${go}>
      <textarea rows="4" aria-label="Texts, one a line" value=${now.texts}
        onInput=${(event) => comparison.set({ texts: event.target.value })}></textarea>
      <div class="row">
        <select aria-label="Embedding model" value=${model} onChange=${(event) => comparison.set({ model: event.target.value })}>
          ${able.map((it) => html`<option value=${it.id}>${it.id}</option>`)}
        </select>
        <button class="primary" disabled=${now.busy || !now.texts.trim()}>Compare</button>
      </div>
    </form>
    ${now.failure && html`<p class="failure" role="alert">${now.failure}</p>`}
    ${now.cosines.length > 0 && html`<${Table} texts=${now.compared} cosines=${now.cosines} />`}
  </section>`;
}

function Table({ texts, cosines }) {
  return html`<div class="scroll"><table aria-label="Cosines">
    <thead><tr><th scope="col">Text</th>${texts.map((_, at) => html`<th scope="col">${at + 1}</th>`)}</tr></thead>
    <tbody>
      ${cosines.map((row, at) => html`<tr>
        <th scope="row">${at + 1}. ${texts[at]}</th>
        ${row.map((value) => html`<td class="alike" style=${{ "--alike": `${Math.round(100 * Math.max(0, value))}%` }}>${value.toFixed(2)}</td>`)}
      </tr>`)}
    </tbody>
  </table></div>`;
}
