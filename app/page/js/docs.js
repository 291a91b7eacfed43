// The API reference: the OpenAPI document, drawn.
import { html, render, useEffect, useState } from "./html.js";
import { Failure, url } from "./net.js";
import { Theme } from "./theme.js";

const VERBS = ["get", "post", "delete"];
const name = (schema) => schema.$ref?.split("/").at(-1);

/** A description, with what stands in backticks as code. */
const Text = ({ of }) => of?.split(/`{1,2}/).map((part, at) => (at % 2 ? html`<code>${part}</code>` : part));

/** A bound; what is beyond a script's exact numbers is one of a whole number's 64 bits. */
function bound(number) {
  if (Number.isSafeInteger(number) || !Number.isInteger(number)) return number;
  return number < 0 ? "-2\u2076\u00b3" : "2\u2076\u00b3 - 1";
}

/** A type in a few words, with a link to what has a name. */
function Kind({ schema }) {
  if (!schema) return "anything";
  if (schema.$ref) return html`<a href=${`#schema-${name(schema)}`}>${name(schema)}</a>`;
  const any = schema.anyOf ?? schema.oneOf;
  if (any) return any.map((it, at) => html`${at > 0 && " or "}<${Kind} schema=${it} />`);
  if (schema.enum) return schema.enum.map((it) => JSON.stringify(it)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return html`list of <${Kind} schema=${schema.items} />`;
  const bounds = [
    schema.minimum !== undefined && `from ${bound(schema.minimum)}`,
    schema.exclusiveMinimum !== undefined && `above ${bound(schema.exclusiveMinimum)}`,
    schema.maximum !== undefined && `up to ${bound(schema.maximum)}`,
  ].filter(Boolean);
  return [schema.type ?? "anything", ...bounds].join(" ");
}

function Fields({ schema }) {
  const fields = Object.entries(schema?.properties ?? {});
  if (fields.length === 0) return null;
  const required = new Set(schema.required);
  return html`<div class="scroll"><table>
    <thead><tr><th>Field</th><th>Type</th><th>What it is</th></tr></thead>
    <tbody>${fields.map(
      ([field, of]) => html`<tr>
        <td>${field}${required.has(field) ? " *" : ""}</td>
        <td><${Kind} schema=${of} /></td>
        <td class="muted"><${Text} of=${of.description} /></td>
      </tr>`,
    )}</tbody>
  </table></div>`;
}

function Operation({ path, verb, operation, schemas }) {
  const asked = operation.requestBody?.content?.["application/json"]?.schema;
  const parameters = operation.parameters ?? [];
  return html`<details>
    <summary><span class="verb ${verb}">${verb.toUpperCase()}</span><span class="path">${path}</span>
      <span class="muted">${operation.summary}</span></summary>
    <p><${Text} of=${operation.description} /></p>
    ${parameters.length > 0 &&
    html`<h3>In the URL</h3><table><tbody>
      ${parameters.map((it) => html`<tr><td>${it.name}</td><td class="muted">${it.description ?? it.schema?.type}</td></tr>`)}
    </tbody></table>`}
    ${asked && html`<h3>Body${" "}<${Kind} schema=${asked} /></h3><${Fields} schema=${schemas[name(asked)] ?? asked} />`}
    <h3>Answers</h3>
    <table><tbody>
      ${Object.entries(operation.responses ?? {}).map(
        ([status, it]) => html`<tr><td>${status}</td>
          <td><${Kind} schema=${Object.values(it.content ?? {})[0]?.schema} /></td><td class="muted"><${Text} of=${it.description} /></td></tr>`,
      )}
    </tbody></table>
  </details>`;
}

function Reference({ document: told }) {
  const schemas = told.components.schemas;
  const operations = Object.entries(told.paths).flatMap(([path, item]) =>
    VERBS.filter((verb) => item[verb]).map((verb) => ({ path, verb, operation: item[verb] })),
  );
  const groups = new Map();
  for (const it of operations) {
    const tag = it.operation.tags?.[0] ?? "Other";
    groups.set(tag, [...(groups.get(tag) ?? []), it]);
  }
  return html`
    <h1>API of ${told.info.title} ${told.info.version}</h1>
    <p class="muted">${told.info.description} Read from <a href="schema/openapi.json">the OpenAPI document</a>.
      A field marked with * must be sent.</p>
    ${[...groups].map(
      ([tag, list]) => html`<h2>${tag}</h2>${list.map((it) => html`<${Operation} ...${it} schemas=${schemas} />`)}`,
    )}
    <h2>Schemas</h2>
    ${Object.entries(schemas).map(
      ([title, schema]) => html`<details id=${`schema-${title}`}>
        <summary><span class="path">${title}</span></summary><p><${Text} of=${schema.description} /></p><${Fields} schema=${schema} />
      </details>`,
    )}`;
}

/** A link to a schema opens it. */
function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

function Page() {
  const [told, setTold] = useState(null);
  const [failure, setFailure] = useState("");
  useEffect(() => {
    fetch(url("schema/openapi.json"))
      .then((response) => (response.ok ? response.json() : Promise.reject(new Failure("status"))))
      .then(setTold, () => setFailure("The OpenAPI document could not be read. Is the service still running?"));
  }, []);
  useEffect(() => {
    openTarget();
    addEventListener("hashchange", openTarget);
    return () => removeEventListener("hashchange", openTarget);
  }, [told]);
  return html`
    <header>
      <a class="brand" href="."><img src="page/icon.svg" alt="" width="26" height="26" /><span>Switchyard</span></a>
      <nav aria-label="Views"><a href=".">Playground</a><a href=".#machine">Machine</a><a href="docs" aria-current="page">API</a></nav>
      <${Theme} />
    </header>
    <main><div class="reference">
      ${failure && html`<p class="failure" role="alert">${failure}</p>`}
      ${told && html`<${Reference} document=${told} />`}
    </div></main>`;
}

render(html`<${Page} />`, document.body);
