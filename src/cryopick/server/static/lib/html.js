/** Preact bound to htm: components are plain functions, markup is a tagged template. */
import { Component, Fragment, createContext, h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export * from "../vendor/preact_hooks.js";
export { Component, Fragment, createContext, h, render };
export const html = htm.bind(h);
