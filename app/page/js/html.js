// Preact and htm under one roof: templates as tagged strings, no build step.
import { h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { render };
export { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../vendor/preact-hooks.js";
export const html = htm.bind(h);
