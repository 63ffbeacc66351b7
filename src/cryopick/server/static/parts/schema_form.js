/** A form made from the JSON Schema of a command's parameters. */
import { html, useMemo } from "../lib/html.js";
import { shownUnit } from "../lib/format.js";
import { DraftInput } from "./draft_input.js";


/** @param {any} schema of one property @returns {{kind: "switch" | "choice" | "number" | "text", options: any[], isOptional: boolean, isWhole: boolean}} */
export function fieldKind(schema) {
  const types = [schema.type].flat().filter(Boolean);
  const isOptional = types.includes("null") || (schema.enum ?? []).includes(null);
  if (schema.enum) return { kind: "choice", options: schema.enum, isOptional, isWhole: false };
  if (types.includes("boolean")) return { kind: isOptional ? "choice" : "switch", options: [null, true, false], isOptional, isWhole: false };
  const isNumber = types.includes("integer") || types.includes("number");
  return { kind: isNumber && !types.includes("string") ? "number" : "text", options: [], isOptional, isWhole: types.includes("integer") && !types.includes("number") };
}

/**
 * What a field holds, as the server wants it; undefined where it is as shipped.
 * @param {any} schema @param {string} text
 */
export function parsed(schema, text) {
  const { kind } = fieldKind(schema);
  if (text === "") return schema.default === null || schema.default === undefined ? undefined : null;
  if (kind === "number") return Number(text);
  return text;
}

function Control({ name, schema, value, now, onChange }) {
  const { kind, options, isOptional, isWhole } = fieldKind(schema);
  const shown = value === undefined ? now : value;
  if (kind === "switch") return html`<input type="checkbox" id=${name} checked=${Boolean(shown)} onChange=${(event) => onChange(event.currentTarget.checked)} />`;
  if (kind === "choice") {
    return html`<select id=${name} value=${String(shown ?? "")} onChange=${(event) => onChange(options.find((option) => String(option ?? "") === event.currentTarget.value))}>
      ${(isOptional && !options.includes(null) ? [null, ...options] : options).map((option) => html`<option key=${String(option)} value=${String(option ?? "")}>${option === null ? "found by itself" : String(option)}</option>`)}</select>`;
  }
  return html`<${DraftInput} id=${name} type=${kind === "number" ? "number" : "text"} step=${isWhole ? schema.multipleOf ?? 1 : "any"} min=${schema.minimum} max=${schema.maximum}
    placeholder=${isOptional ? "found by itself" : ""} value=${shown ?? ""} onCommit=${(text) => onChange(parsed(schema, text))} />`;
}

/**
 * @param {{schema: any, values: Record<string, any>, current?: Record<string, any>, onChange: (values: Record<string, any>) => void, only?: string}} props
 *   values hold what differs from the current values, which are the shipped ones where nothing is said
 */
export function SchemaForm({ schema, values, current = {}, onChange, only = "" }) {
  const groups = useMemo(() => {
    const byName = new Map();
    for (const [name, one] of Object.entries(schema.properties)) {
      const group = one["x-group"] ?? "Parameters";
      byName.set(group, [...(byName.get(group) ?? []), [name, one]]);
    }
    return [...byName];
  }, [schema]);
  const currentOf = (name, one) => (name in current ? current[name] : one.default);
  const change = (name, one) => (value) => {
    const { [name]: _, ...others } = values;
    onChange(value === undefined || value === currentOf(name, one) ? others : { ...others, [name]: value });
  };
  const matches = ([name, one]) => `${name} ${one.title ?? ""} ${one.description ?? ""}`.toLowerCase().includes(only.toLowerCase());
  return html`${groups.map(([group, list]) => {
    const shown = list.filter(matches);
    return shown.length > 0 && html`<fieldset key=${group} class="form-group"><legend>${group}</legend>
      ${shown.map(([name, one]) => html`<div class=${`form-row ${name in values ? "changed" : ""}`} key=${name}>
        <label for=${`p-${name}`}>${one.title ?? name.replaceAll("_", " ")}${schema.required?.includes(name) ? " *" : ""}</label>
        <span class="control"><${Control} name=${`p-${name}`} schema=${one} value=${values[name]} now=${currentOf(name, one)} onChange=${change(name, one)} /> <span class="muted small">${shownUnit(one["x-unit"])}</span></span>
        <span class="muted small">${one.description}</span></div>`)}
    </fieldset>`;
  })}`;
}
