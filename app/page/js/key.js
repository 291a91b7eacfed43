// The API key: asked for when the service wants one, kept for as long as this tab is open.
import { html, useEffect, useRef, useState } from "./html.js";
import { live } from "./live.js";
import { key } from "./net.js";

export function KeyDialog() {
  const dialog = useRef();
  const [wrong, setWrong] = useState(false);
  useEffect(() => {
    const open = () => {
      setWrong(key.get() !== "");
      if (!dialog.current.open) dialog.current.showModal();
    };
    if (key.wanted) open(); // the service may have answered before this was drawn
    addEventListener("key-wanted", open);
    return () => removeEventListener("key-wanted", open);
  }, []);
  const enter = (event) => {
    event.preventDefault();
    key.wanted = false;
    key.set(event.target.elements.key.value.trim());
    dialog.current.close();
    live.retry();
  };
  return html`<dialog ref=${dialog} aria-labelledby="key-title">
    <form onSubmit=${enter}>
      <h2 id="key-title">API key</h2>
      <p>${wrong ? "The service does not know this key." : "This service wants an API key."} It is kept in this tab only.</p>
      <label>Key <input name="key" type="password" autocomplete="off" spellcheck=${false} required autofocus /></label>
      <div class="row end">
        <button type="button" class="quiet" onClick=${() => dialog.current.close()}>Not now</button>
        <button class="primary">Use this key</button>
      </div>
    </form>
  </dialog>`;
}
