/** A field to type in that keeps what is being typed, whatever is drawn anew meanwhile. */
import { html, useState } from "../lib/html.js";

/**
 * @param {{value: string | number, onCommit: (text: string, element: HTMLInputElement) => void, inputRef?: {current: any}, [name: string]: any}} props
 *   `onCommit` is called when somebody has typed to the end: Enter, or the focus goes
 */
export function DraftInput({ value, onCommit, inputRef, ...others }) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  return html`<input ...${others} ref=${inputRef} value=${draft ?? value} onInput=${(event) => setDraft(event.currentTarget.value)} onBlur=${() => setDraft(null)}
    onChange=${(event) => { setDraft(null); onCommit(event.currentTarget.value, event.currentTarget); }} />`;
}
