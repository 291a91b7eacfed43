// Light, dark, or what the system says.
import { html, useEffect, useState } from "./html.js";

const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SIGN = { auto: "◐", light: "☀", dark: "☾" };

export function Theme() {
  const [theme, set] = useState(localStorage.getItem("switchyard.theme") ?? "auto");
  useEffect(() => {
    localStorage.setItem("switchyard.theme", theme);
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const label = `Colours: ${theme}. Change to ${NEXT[theme]}`;
  return html`<button type="button" class="quiet icon" aria-label=${label} title=${label} onClick=${() => set(NEXT[theme])}>
    ${SIGN[theme]}
  </button>`;
}
