/** A modal dialog on the browser's own element: focus stays in it and comes back by itself. */
import { html, useEffect, useRef } from "../lib/html.js";

/**
 * @param {{title: string, onClose: () => void, children: any}} props
 */
export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current.showModal();
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  return html`<dialog ref=${element} aria-label=${title} onClose=${onClose}
    onClick=${(event) => event.target === element.current && onClose()}>
    <header><h1>${title}</h1><button class="plain" aria-label="Close" onClick=${onClose}>✕</button></header>
    ${children}
  </dialog>`;
}
